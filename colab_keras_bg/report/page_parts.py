"""The sections of a report that are not drawn.

Invariant: everything that was read goes through `shown` or is a number that
was formatted here.
"""

from __future__ import annotations

import math
import shlex

from colab_keras_bg.durability import ago
from colab_keras_bg.report.divergence import divergence_text
from colab_keras_bg.report.markup import shown, table
from colab_keras_bg.report.numbers import (
    as_bytes,
    as_count,
    as_secs,
    as_time,
    as_value,
    moment,
)
from colab_keras_bg.report.page_data import PageData
from colab_keras_bg.report.status import RunStatus
from colab_keras_bg.report.text import resources_text, safe_text
from colab_keras_bg.report.timeline import Split, Stretch

__all__ = [
    "attempts_part",
    "checkpoints_part",
    "configuration_part",
    "goodput_part",
    "head_part",
]

# What time is spent on, what that is called, and in which colour.
_SPENT = (
    ("productive", "training", "--good"),
    ("input_wait", "waiting for data", "--line-1"),
    ("save_wait", "saving", "--line-3"),
    ("lost", "lost: trained again", "--bad"),
    ("starting", "starting", "--warn"),
    ("waiting", "between attempts", "--idle"),
)
_SHOWN_ATTEMPTS = 60
_MOST_COMMAND = 2000


def head_part(data: PageData, *, trouble: str | None) -> str:
    """State, step, what is safe, and what goes wrong.

    Args:
        data: What is known.
        trouble: Why the run was not read where it lives.
    """
    status = data.status
    where = status.shipped_to or status.run_dir
    state = status.state if status.state.isalpha() else "unknown"
    reason = ""
    if status.reason not in ("", status.state):
        reason = f"<span>{shown(status.reason)}</span>"
    found = [
        f'<header><h1>{shown(where, most=200)}</h1><span class="pill {state}">'
        f'{state}</span>{reason}<span class="muted small">as of '
        f"{as_time(data.now)}</span></header>"
    ]
    for text in filter(None, (status.problem, trouble)):
        found.append(_alarm(text, is_bad=True))
    if data.diverged:
        told = divergence_text(data.diverged)
        found.append(_alarm(f"diverged: {told}", is_bad=True))
    found += [_alarm(f"damaged: {text}") for text in status.damaged[:10]]
    return "\n".join([*found, _tiles(data)])


def _alarm(text: str, *, is_bad: bool = False) -> str:
    name = "alarm bad" if is_bad else "alarm"
    return f'<div class="{name}" role="alert">{shown(text, most=600)}</div>'


def _tiles(data: PageData) -> str:
    status, split = data.status, data.past.split
    step = "none" if status.step is None else as_count(status.step)
    below = "" if status.epoch is None else f"epoch {status.epoch + 1}"
    bar = ""
    if status.expected_steps and status.step is not None:
        share = min(1.0, status.step / status.expected_steps)
        below = f"of {as_count(status.expected_steps)}, {below}".rstrip(", ")
        bar = _bar([(share, "--accent")])
    tiles = [_tile("step", step, below, bar), _durable_tile(status, data.now)]
    if data.eta_secs is not None:
        tiles.append(_tile("left", as_secs(data.eta_secs), "at this pace"))
    if (goodput := split.goodput) is not None and split.wall_secs >= 1:
        tiles.append(
            _tile(
                "goodput",
                f"{100 * goodput:.1f} %",
                f"of {as_secs(split.wall_secs)}",
            )
        )
    tiles.append(_tile("attempts", as_count(status.attempts), ""))
    if status.last_heartbeat is not None:
        tiles.append(
            _tile(
                "last sign of life",
                as_time(status.last_heartbeat),
                f"{ago(data.now - status.last_heartbeat)} before this page",
            )
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(
    name: str, value: str, below: str, bar: str = "", kind: str = ""
) -> str:
    return (
        f'<div class="card {kind}"><p class="muted small">{name}</p>'
        f'<strong>{value}</strong>{bar}<p class="muted small">{below}</p></div>'
    )


def _durable_tile(status: RunStatus, now: float) -> str:
    name = "durable step" if status.shipped_to else "committed step"
    value = "none yet"
    if status.durable_step is not None:
        value = as_count(status.durable_step)
    elif status.unconfirmed_step is not None:
        value = f"{as_count(status.unconfirmed_step)}, not confirmed"
    return _tile(name, value, shown(safe_text(status, now=now)), kind="wide")


def _bar(shares: list[tuple[float, str]]) -> str:
    pieces = "".join(
        f'<i style="width:{100 * share:.2f}%;background:var({colour})"></i>'
        for share, colour in shares
    )
    return f'<div class="bar">{pieces}</div>'


def goodput_part(data: PageData) -> str:
    """What the time went into."""
    split = data.past.split
    wall_secs = split.wall_secs
    if wall_secs < 1:
        return ""
    shares = [
        (getattr(split, name) / wall_secs, colour) for name, _, colour in _SPENT
    ]
    return (
        "<section><h2>Where the time went</h2>"
        f'<div class="card"><p><b>{100 * (split.goodput or 0):.1f} %</b> of '
        f"{as_secs(wall_secs)} moved the training forward for good"
        f"{_of_attempts(data)}.</p>"
        f"{_bar(shares)}{_keys(split)}</div></section>"
    )


def _of_attempts(data: PageData) -> str:
    """Of which attempts that is, if not of all."""
    if not data.past.left_out:
        return ""
    told = as_count(len(data.past.stretches))
    return f", over {told} of {as_count(data.status.attempts)} attempts"


def _keys(split: Split) -> str:
    keys = "".join(
        f'<span class="key" style="--c:var({colour})">{what} '
        f"<b>{as_secs(secs)}</b></span>"
        for name, what, colour in _SPENT
        if (secs := getattr(split, name)) > 0
    )
    return f'<div class="keys small">{keys}</div>'


def attempts_part(data: PageData) -> str:
    """The attempts on a line of time, and as a table."""
    stretches = data.past.stretches
    if not stretches:
        return ""
    began = min(one.started for one in stretches)
    ended = max(one.ended for one in stretches)
    whole_secs = max(1e-9, ended - began)
    line = "".join(_pieces(one, began, whole_secs) for one in stretches[-200:])
    rows = [
        [
            str(one.number),
            shown(one.reason, most=160),
            _steps(one),
            as_secs(one.secs),
            as_time(one.started),
            shown(one.host, most=60),
        ]
        for one in reversed(stretches[-_SHOWN_ATTEMPTS:])
    ]
    more = data.past.left_out + max(0, len(stretches) - _SHOWN_ATTEMPTS)
    note = ""
    if more:
        note = f'<p class="muted small">{as_count(more)} older ones.</p>'
    head = ["", "how it ended", "steps", "lasted", "started", "machine"]
    return (
        '<section><h2>Attempts</h2><div class="card">'
        f'<div class="line">{line}</div><div class="ends muted small">'
        f"<span>{as_time(began)}</span><span>{as_time(ended)}</span></div>"
        f"{table(head, rows, name='attempts')}{note}</div></section>"
    )


def _pieces(one: Stretch, began: float, whole_secs: float) -> str:
    """An attempt on the line: starting, kept, trained again."""
    training = one.training_secs
    kept = training * one.kept_share
    at, found = one.started - began, []
    for secs, colour in (
        (one.secs - training, "--warn"),
        (kept, "--good"),
        (training - kept, "--bad"),
    ):
        if secs > 0:
            left, width = 100 * at / whole_secs, 100 * secs / whole_secs
            found.append(
                f'<i style="left:{left:.3f}%;width:{width:.3f}%;'
                f'background:var({colour})"></i>'
            )
        at += secs
    return "".join(found)


def _steps(one: Stretch) -> str:
    if one.from_step is None:
        return "none"
    end = "?" if one.to_step is None else as_count(one.to_step)
    told = f"{as_count(one.from_step)} to {end}"
    if one.to_step is not None and one.kept_step is not None:
        lost = one.to_step - max(one.kept_step, one.from_step)
        if lost > 0:
            told += f' <span class="muted">({as_count(lost)} again)</span>'
    return told


def checkpoints_part(data: PageData) -> str:
    """What is kept, and what of it is safe."""
    status = data.status
    if not data.checkpoints:
        return (
            "<section><h2>Checkpoints</h2>"
            '<p class="muted">None is committed yet.</p></section>'
        )
    rows = [
        [
            as_count(one.step),
            _where(status, one.step),
            shown(_values(one.metrics), most=160),
            as_time(one.created),
            as_bytes(one.size_bytes),
            str(one.attempt),
        ]
        for one in data.checkpoints
    ]
    more = len(status.checkpoints) - len(rows)
    note = (
        f'<p class="muted small">{as_count(more)} older ones.</p>'
        if more
        else ""
    )
    best = ""
    if status.best:
        best = f"<p>The best: {shown(status.best)}</p>"
    head = ["step", "where", "measured", "committed", "written", "attempt"]
    return (
        f'<section><h2>Checkpoints</h2><div class="card">{best}'
        f"{table(head, rows)}{note}</div></section>"
    )


def _where(status: RunStatus, step: int) -> str:
    if status.shipped_to is None:
        return "this machine"
    if status.unconfirmed_step is not None and step <= status.unconfirmed_step:
        return "not confirmed"
    if status.durable_step is not None and step <= status.durable_step:
        return "durable"
    return "on its way"


def _values(metrics: object) -> str:
    if not isinstance(metrics, dict):
        return ""
    return ", ".join(
        f"{name} {as_value(value)}"
        for name, value in list(metrics.items())[:4]
        if math.isfinite(value)
    )


def configuration_part(data: PageData) -> str:
    """What was asked for, and of whom."""
    status, run = data.status, data.run
    facts: list[tuple[str, str]] = []
    newest = data.past.stretches[-1] if data.past.stretches else None
    if newest is not None and newest.command:
        command = shlex.join(newest.command)
        facts.append(
            ("command", f"<code>{shown(command, most=_MOST_COMMAND)}</code>")
        )
    if status.saves:
        facts.append(("saves", shown(status.saves)))
    facts += [(what, shown(told)) for what, told in _used(data)]
    for name in ("run_id", "version", "backend"):
        if isinstance(told := run.get(name), str):
            facts.append((name.replace("_", " "), shown(told, most=80)))
    if (created := moment(run.get("created"))) is not None:
        facts.append(("created", as_time(created)))
    facts.append(("read from", shown(status.run_dir)))
    for name, value in list(data.hparams.items())[:50]:
        facts.append((shown(name, most=60), shown(value, most=160)))
    rows = "".join(f"<tr><td>{n}</td><td>{v}</td></tr>" for n, v in facts)
    return (
        '<section><h2>Configuration</h2><div class="card swipe">'
        f'<table class="facts">{rows}</table></div></section>'
    )


def _used(data: PageData) -> list[tuple[str, str]]:
    """What the machine has, as it was last seen."""
    told = resources_text(data.used)
    return [("machine", ", ".join(told.values()))] if told else []
