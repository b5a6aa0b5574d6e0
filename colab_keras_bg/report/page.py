"""The report: one HTML page that stands alone.

Invariant: it needs no network and no script, and says so to the browser; all
that was read goes through `markup`. It stays below `MOST_BYTES`, however long
the run: what would make it larger is left out from the end.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from colab_keras_bg._version import __version__
from colab_keras_bg.report.curves import Chart
from colab_keras_bg.report.markup import console_html, shown
from colab_keras_bg.report.numbers import as_count, as_time, as_value
from colab_keras_bg.report.page_data import PageData, read_page_data
from colab_keras_bg.report.page_parts import (
    attempts_part,
    checkpoints_part,
    configuration_part,
    goodput_part,
    head_part,
)
from colab_keras_bg.report.status import wherever
from colab_keras_bg.report.style import STYLE
from colab_keras_bg.stored_run import StoredRun

__all__ = ["MOST_BYTES", "page_of", "report_page"]

MOST_BYTES = 900_000
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_LINES = ("--line-1", "--line-2", "--line-3")
_ADVICE = (
    'The curves need matplotlib: <code>pip install "colab_keras_bg[report]"'
    "</code>, and write the report again."
)
_Draw = Callable[..., str]


def report_page(
    run_dir: str | os.PathLike[str],
    *,
    clock: Callable[[], float] = time.time,
) -> str:
    """The report of a run, as HTML.

    Args:
        run_dir: The run directory.
        clock: Seconds since 1970.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If it cannot be read.
    """
    data, trouble = wherever(run_dir, partial(_read, now=clock()))
    return page_of(data, draw=_drawn_by(), trouble=trouble)


def _read(stored: StoredRun, *, now: float) -> PageData:
    return read_page_data(stored, now=now)


def _drawn_by() -> _Draw | None:
    """What draws charts; None where matplotlib is not installed."""
    try:
        charts = importlib.import_module("colab_keras_bg.report.charts")
    except ImportError:
        return None
    draw: _Draw = charts.svg_of
    return draw


def page_of(
    data: PageData, *, draw: _Draw | None, trouble: str | None = None
) -> str:
    """The page.

    Args:
        data: What it shows.
        draw: Draws a chart as SVG; None if nothing can.
        trouble: Why the run was not read where it lives.
    """
    title = data.status.shipped_to or data.status.run_dir
    top = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{shown(title, most=200)}</title>\n"
        f"<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    )
    bottom = (
        f'<footer class="muted small">Written {as_time(data.now)} by '
        f"colab-keras-bg {__version__}.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )
    room = MOST_BYTES - len(top.encode()) - len(bottom.encode())
    parts = []
    for part in _parts(data, draw, trouble):
        room -= len(part.encode()) + 1
        if room < 0:
            parts.append('<p class="muted">There is more than fits here.</p>')
            break
        parts.append(part)
    return top + "\n".join(parts) + "\n" + bottom


def _parts(
    data: PageData, draw: _Draw | None, trouble: str | None
) -> Iterator[str]:
    """The sections, from the top."""
    yield head_part(data, trouble=trouble)
    yield _curves(data, draw)
    yield goodput_part(data)
    yield attempts_part(data)
    if data.resources and draw is not None:
        yield _section("Resources", _charts(data.resources, draw, "r"))
    yield checkpoints_part(data)
    yield configuration_part(data)
    yield _console(data)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>"


def _curves(data: PageData, draw: _Draw | None) -> str:
    if not data.charts:
        return _section(
            "Metrics", '<p class="muted">None was reported yet.</p>'
        )
    if draw is None:
        values = "".join(
            f"<tr><td>{shown(name, most=80)}</td><td>{as_value(v)}</td></tr>"
            for name, v in list(data.metrics.items())[:100]
        )
        return _section(
            "Metrics",
            f'<p>{_ADVICE}</p><div class="card swipe"><table class="facts">'
            f"{values}</table></div>",
        )
    restarts = [
        float(one.from_step)
        for one in data.past.stretches[1:][-40:]
        if one.from_step
    ]
    content = _charts(data.charts, draw, "m", marks=restarts)
    if data.more_metrics:
        content += (
            f'<p class="muted">{as_count(data.more_metrics)} more metrics are '
            "not drawn: <code>bg.load_metrics</code> reads them all.</p>"
        )
    return _section("Metrics", content)


def _charts(
    charts: Sequence[Chart],
    draw: _Draw,
    kind: str,
    *,
    marks: Sequence[float] = (),
) -> str:
    cards = []
    for index, chart in enumerate(charts):
        last = chart.curves[0].xs[-1] if chart.curves[0].xs else 0.0
        known = [mark for mark in marks if mark <= last]
        try:
            svg = draw(chart, name=f"{kind}{index}", marks=known)
        except (ArithmeticError, ValueError) as error:
            svg = f'<p class="muted">cannot be drawn: {shown(error)}</p>'
        unit = f' <span class="muted">{chart.unit}</span>' if chart.unit else ""
        title = shown(chart.title, most=60).strip() or "(without a name)"
        keys = "".join(
            f'<span class="key" style="--c:var({line})">'
            f"{shown(curve.name, most=60)} <b>{as_value(curve.last)}</b></span>"
            for curve, line in zip(chart.curves, _LINES, strict=False)
        )
        cards.append(
            f'<div class="card"><h3>{title}{unit}</h3>'
            f'<p class="small">{keys}</p>{svg}</div>'
        )
    return f'<div class="charts">{"".join(cards)}</div>'


def _console(data: PageData) -> str:
    if not data.console:
        return ""
    lines: list[str] = []
    attempt = 0
    for line in data.console:
        if line.attempt != attempt:
            attempt = line.attempt
            lines.append(f"\x1b[2m── attempt {attempt} ──\x1b[0m")
        lines.append(line.text.decode("utf-8", "replace"))
    count = len(data.console)
    return _section(
        f"Console, the last {count} lines",
        # It opens at its end.
        f'<div class="newest"><pre dir="ltr">{console_html(lines)}</pre></div>',
    )
