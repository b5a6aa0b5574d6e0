"""Charts as SVG, drawn by matplotlib: the one door to it.

Invariant: no text from outside gets in here: what is drawn are lines, and
numbers at axes. Colours are CSS variables, so that a chart follows its page.
The same curves give the same bytes.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from colab_keras_bg.report.curves import Chart

__all__ = ["COLOURS", "svg_of"]

# Drawn in these, which nobody else uses; each is replaced by a variable.
_INK, _GRID, _MARK = "#010203", "#010204", "#010205"
_LINES = ("#010206", "#010207", "#010208")
COLOURS = ("--line-1", "--line-2", "--line-3")
_VARIABLES = {
    _INK: "var(--muted)",
    _GRID: "var(--grid)",
    _MARK: "var(--mark)",
    **{
        ours: f"var({name})" for ours, name in zip(_LINES, COLOURS, strict=True)
    },
}
_SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}
_INCHES = (4.4, 2.1)
# Above this ratio, and of positive values, a logarithmic axis shows more.
_WIDE = 100.0
# What is larger is drawn as if it were this.
_LARGEST = 1e60
_PREFACE = re.compile(r".*?(?=<svg )", re.S)
_METADATA = re.compile(r" ?<metadata>.*?</metadata>\n?", re.S)
_STYLE = re.compile(r" *<defs>\s*<style[^>]*>.*?</style>\s*</defs>\n?", re.S)
_IDS = re.compile(r"<g id=\"[^\"]*\"")
_NAMESPACES = re.compile(r" xmlns(?::\w+)?=\"[^\"]*\"| version=\"1.1\"")
_SIZE = re.compile(r"(<svg) ?[^>]*?(viewBox=\"[^\"]*\")[^>]*>")
_FONT = re.compile(r" font-family: [^;\"]*;")
_DIGITS = re.compile(r"(\d+\.\d)\d+")
_TAG = re.compile(r"<[^>]+>")
_EMPTY = re.compile(r"<g[^>]*/>\n?")
_COLOUR = re.compile("|".join(_VARIABLES))


def svg_of(chart: Chart, *, name: str, marks: Sequence[float] = ()) -> str:
    """A chart.

    Args:
        chart: What to draw.
        name: Ours, and no other chart's on the page.
        marks: Where along the horizontal axis something happened.
    """
    with _settings(name):
        figure = Figure(figsize=_INCHES, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for index, curve in enumerate(chart.curves):
            colour = _LINES[index % len(_LINES)]
            alone = sum(not math.isnan(y) for y in curve.ys) < 3
            axes.plot(
                curve.xs,
                [_drawable(y) for y in curve.ys],
                color=colour,
                linewidth=1.6,
                marker="o" if alone else "",
                markersize=4,
                gid="line",
            )
        _set_limits(axes, chart)
        for mark in marks:
            axes.axvline(
                mark, color=_MARK, linewidth=0.8, linestyle=(0, (2, 2))
            )
        _dress(axes, chart)
        drawn = io.StringIO()
        canvas.print_svg(drawn, metadata={"Date": None})
    return _for_a_page(drawn.getvalue())


@contextmanager
def _settings(name: str) -> Iterator[None]:
    """Ours, whatever a person has set; theirs again afterwards."""
    level = logging.getLogger("matplotlib").level
    with matplotlib.rc_context():
        # Which fonts there are is of no interest here.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        matplotlib.rcParams.update(
            {
                key: value
                for key, value in matplotlib.rcParamsDefault.items()
                if key != "backend"
            }
        )
        matplotlib.rcParams.update({**_SETTINGS, "svg.hashsalt": name})
        try:
            yield
        finally:
            logging.getLogger("matplotlib").setLevel(level)


def _drawable(value: float) -> float:
    """A value that axes can be computed for."""
    if math.isnan(value):
        return value
    if abs(value) < 1 / _LARGEST:
        return 0.0
    return max(-_LARGEST, min(_LARGEST, value))


def _set_limits(ax: Any, chart: Chart) -> None:
    known = [
        _drawable(y) for c in chart.curves for y in c.ys if not math.isnan(y)
    ]
    if not known:
        return
    low, high = min(known), max(known)
    if chart.from_zero and low >= 0:
        top = max(high, chart.most or 0.0) or 1.0
        ax.set_ylim(0, 1.06 * top)
    elif low > 0 and high / low > _WIDE and math.isfinite(high / low):
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
        ax.minorticks_off()


def _dress(ax: Any, chart: Chart) -> None:
    ax.grid(axis="y", color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(
        axis="both", length=0, colors=_INK, labelcolor=_INK, labelsize=9
    )
    ax.spines["bottom"].set_color(_GRID)
    ax.xaxis.set_major_locator(
        MaxNLocator(5, integer=chart.along == "step", min_n_ticks=1)
    )
    ax.xaxis.set_major_formatter(FuncFormatter(_short))
    ax.yaxis.set_major_formatter(FuncFormatter(_short))
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(4))
    along = chart.along
    if ax.get_yscale() == "log":
        along = f"vertically by powers of ten · {along}"
    ax.set_xlabel(along, color=_INK, fontsize=9, loc="right")
    ax.margins(x=0.01)
    xs = [x for curve in chart.curves for x in curve.xs]
    if xs and min(xs) < max(xs):  # Where there is no value, too.
        beside = 0.01 * (max(xs) - min(xs))
        ax.set_xlim(min(xs) - beside, max(xs) + beside)
    ax.patch.set_visible(False)
    ax.figure.patch.set_visible(False)


def _short(value: float, _: object = None) -> str:
    """A number at an axis."""
    if not math.isfinite(value):
        return ""
    for least, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= least:
            scaled = value / {"G": 1e9, "M": 1e6, "k": 1e3}[letter]
            return f"{scaled:.4g}{letter}"
    return f"{value:.4g}"


def _for_a_page(svg: str) -> str:
    """Without what an SVG file needs, and a page that holds many does not."""
    svg = _PREFACE.sub("", svg, count=1)
    for doomed in (_METADATA, _STYLE, _NAMESPACES):
        svg = doomed.sub("", svg)
    svg = _IDS.sub("<g", svg)
    svg = _SIZE.sub(r'\1 \2 role="img" aria-hidden="true">', svg, count=1)
    svg = _FONT.sub("", svg)
    for _ in range(3):
        svg = _EMPTY.sub("", svg)
    svg = _TAG.sub(lambda tag: _DIGITS.sub(r"\1", tag[0]), svg)
    svg = svg.replace("xlink:href", "href")
    svg = _COLOUR.sub(lambda found: _VARIABLES[found[0]], svg)
    return re.sub(r"\n\s*", "\n", svg).strip()
