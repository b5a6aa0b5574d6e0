"""How a `Run` shows itself in a notebook: a small card.

Invariant: nothing far away is asked, so that showing it takes no time; all
text is escaped, and no script or style sheet leaves the card.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from typing import TYPE_CHECKING

from colab_keras_bg.errors import StorageError, UsageError
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.report.markup import shown
from colab_keras_bg.report.numbers import as_count, as_secs
from colab_keras_bg.report.status import RunStatus, status_of
from colab_keras_bg.report.text import safe_text
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import DamagedRecordError, read_record
from colab_keras_bg.stored_run import stored_run

if TYPE_CHECKING:
    from colab_keras_bg.run import Run

__all__ = ["card_of"]

_COLOURS = {
    "training": "#14804a",
    "running": "#14804a",
    "done": "#1769d2",
    "interrupted": "#a35200",
    "paused": "#a35200",
    "failed": "#c02626",
}
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
    status = _status(run)
    signs = _signs(run)
    state = status.state if status else "not begun on this machine"
    if run.is_open:
        told = str(signs.get("state"))
        state = (
            told
            if told in ("starting", "training", "paused", "done")
            else "open"
        )
    colour = _COLOURS.get(state, "#5d6b7a")
    rows = [("step", _step(run, status, signs)), _safe(status)]
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


def _status(run: Run) -> RunStatus | None:
    """Where it stands, by what this machine has of it; None if that is none."""
    with contextlib.suppress(UsageError, StorageError):
        return status_of(stored_run(run.path))
    return None


def _step(run: Run, status: RunStatus | None, signs: dict[str, object]) -> str:
    step = status.step if status else None
    if run.is_open:
        step = run.step
    if step is None:
        return "none yet"
    expected = status.expected_steps if status else None
    secs = signs.get("step_secs")
    told = f"<b>{as_count(step)}</b>"
    if not expected:
        return told
    share = 100 * min(1.0, step / expected)
    told += f" of {as_count(expected)}"
    left = max(0, expected - step)
    if isinstance(secs, float) and left and run.is_open:
        told += f", about {as_secs(left * secs)} left"
    return (
        f'{told}<div style="{_BAR}"><div style="{_BAR};width:{share:.1f}%;'
        'background:#1769d2"></div></div>'
    )


def _safe(status: RunStatus | None) -> tuple[str, str]:
    if status is None:
        return "safe", "nothing yet"
    name = "durable" if status.shipped_to else "committed"
    return name, shown(safe_text(status, now=time.time()), most=300)


def _problem(signs: dict[str, object]) -> str:
    if not signs.get("problem"):
        return ""
    return (
        '<div style="border-left:4px solid #c02626;padding:4px 10px;'
        f'margin:8px 0">{shown(signs["problem"], most=400)}</div>'
    )
