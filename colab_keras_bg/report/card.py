"""How a `Run` shows itself in a notebook: a small card.

Invariant: nothing far away is asked, so that showing it takes no time; all
text is escaped, and no script or style sheet leaves the card.
"""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING

from colab_keras_bg.errors import StorageError
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.report.markup import shown
from colab_keras_bg.report.numbers import as_count, as_secs
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import DamagedRecordError, read_record

if TYPE_CHECKING:
    from colab_keras_bg.run import Run

__all__ = ["card_of"]

_COLOURS = {"training": "#14804a", "done": "#1769d2", "ended": "#a35200"}
_CARD = (
    "font-family:system-ui,sans-serif;font-size:14px;line-height:1.5;"
    "max-width:640px;border:1px solid rgba(128,128,128,.35);"
    "border-radius:10px;padding:12px 16px;overflow-wrap:anywhere"
)
_PILL = (
    "color:#fff;border-radius:99px;padding:1px 10px;font-size:12px;"
    "font-weight:600"
)
_MUTED = "opacity:.7;padding-right:16px;vertical-align:top"
_BAR = "height:6px;border-radius:99px;background:rgba(128,128,128,.3)"


def card_of(run: Run) -> str:
    """The card of a run, as HTML.

    Args:
        run: The run, open or not.
    """
    signs = _signs(run)
    state = str(signs.get("state", "not open"))
    if run.is_open and state not in ("starting", "training", "done"):
        state = "open"
    elif not run.is_open and state in ("starting", "training"):
        state = "not open"  # Here: another process may be at work.
    colour = _COLOURS.get(state, "#5d6b7a")
    rows = [
        ("step", _step(run, signs)),
        ("durable" if run.durable_step is not None else "safe", _safe(run)),
    ]
    if signs.get("saves") and run.is_open:
        rows.append(("saves", shown(signs["saves"], most=200)))
    facts = "".join(
        f'<tr style="background:none"><td style="{_MUTED};text-align:left">'
        f'{name}</td><td style="text-align:left">{value}</td></tr>'
        for name, value in rows
    )
    where = shlex.quote(run.address)
    commands = "".join(
        f"<div><code>!colab-keras-bg {name} {shown(where)}</code></div>"
        for name in ("status", "logs", "report")
    )
    return (
        f'<div style="{_CARD}"><div><b>{shown(run.address)}</b> '
        f'<span style="{_PILL};background:{colour}">{shown(state)}</span></div>'
        f'{_problem(signs)}<table style="margin:8px 0">{facts}</table>'
        f'<div style="opacity:.8;font-size:12px">{commands}</div></div>'
    )


def _signs(run: Run) -> dict[str, object]:
    """What the run last told of itself."""
    with contextlib.suppress(DamagedRecordError, StorageError):
        signs = read_record(LocalStorage(run.path), STATUS) or {}
        return {**signs, "problem": run.saves.problem or signs.get("problem")}
    return {"problem": run.saves.problem}


def _step(run: Run, signs: dict[str, object]) -> str:
    expected, secs = signs.get("expected_steps"), signs.get("step_secs")
    told = f"<b>{as_count(run.step)}</b>"
    if not isinstance(expected, int) or expected <= 0:
        return told
    share = 100 * min(1.0, run.step / expected)
    told += f" of {as_count(expected)}"
    left = max(0, expected - run.step)
    if isinstance(secs, float) and left and run.is_open:
        told += f", about {as_secs(left * secs)} left"
    return (
        f'{told}<div style="{_BAR}"><div style="{_BAR};width:{share:.1f}%;'
        'background:#1769d2"></div></div>'
    )


def _safe(run: Run) -> str:
    step = run.durable_step
    return "nothing yet" if step is None else f"step {as_count(step)}"


def _problem(signs: dict[str, object]) -> str:
    if not signs.get("problem"):
        return ""
    return (
        '<div style="border-left:4px solid #c02626;padding:4px 10px;'
        f'margin:8px 0">{shown(signs["problem"], most=400)}</div>'
    )
