"""What trainer and sidecar tell each other: two small files of the spool.

Invariant: each file has one writer, is replaced as a whole and read without
waiting; whoever died, what it last said is there. The trainer writes what is
wanted (`Orders`), the sidecar what is (`Report`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["FOLDER", "Orders", "Report", "read", "write"]

# A leading dot: no object of the run has such a name.
FOLDER = ".sidecar"

_T = TypeVar("_T", "Orders", "Report")


@dataclass(frozen=True)
class Orders:
    """What a sidecar is to do.

    Attributes:
        url: The run directory that it ships to.
        keep: What is kept there: the arguments of `keep_policy`.
        take_over: Whether to take the run from one that lives.
        finish: Whether to ship what is left and end.
        fallback: Where to ship to as long as that stays dead; empty if
            nowhere.
        fallback_after_secs: For how long it has to be dead before.
        bytes_per_sec: How much to send at most; None for as much as can be.
        console_bytes: How much is kept of what an attempt prints.
        resources_secs: How often it is measured what is used; 0 for never.
        report_secs: How often the report is written; 0 for never.
        deaths: How often a sidecar of this launch has died by itself.
        died: When one last did, in seconds since 1970.
        launch: Drawn at random by whoever gives them. A sidecar that finds
            others than it was started by ends: they have one of their own.
    """

    NAME = "orders.json"

    url: str = ""
    keep: dict[str, Any] = field(default_factory=dict)
    take_over: bool = False
    finish: bool = False
    fallback: str = ""
    fallback_after_secs: float = 300.0
    bytes_per_sec: float | None = None
    console_bytes: int = 0
    resources_secs: float = 0.0
    report_secs: float = 0.0
    deaths: int = 0
    died: float = 0.0
    launch: str = ""


@dataclass(frozen=True)
class Report:
    """How a sidecar is doing.

    Attributes:
        phase: `"starting"`, `"fetching"`, `"shipping"` (or `"watching"`, if
            there is nowhere to ship to), `"drained"` (all that there was is
            durable, and it has ended) or `"failed"`.
        pid: Its process.
        beat: When it wrote this, in seconds since 1970.
        past_attempt: The last attempt of another machine.
        durable_step: The newest step that is on the remote, verified.
        confirms: Whether the far end tells what has arrived where it lasts;
            if it does not, that step is only written there.
        durable_since: When that became known, in seconds since 1970.
        far: The far end that it ships to at present.
        waiting: How many checkpoints are not there yet.
        problem: What stands in the way, in words; None if nothing does.
        problem_since: Since when, in seconds since 1970.
        error: With `"failed"`, which error of ours it was.
        message: And what it says.
        progress: What it does, how many bytes are done, and of how many.
        skipped: What was passed over, in words.
        traffic: What was asked of the remote.
        local_problem: What goes wrong with its duties on this machine.
        warnings: What will go wrong on this machine before long.
    """

    NAME = "report.json"

    phase: str = "starting"
    pid: int = 0
    beat: float = 0.0
    past_attempt: int = 0
    durable_step: int | None = None
    durable_since: float | None = None
    far: str = ""
    confirms: bool = True
    waiting: int = 0
    problem: str | None = None
    problem_since: float | None = None
    error: str | None = None
    message: str = ""
    progress: tuple[str, int, int] | None = None
    skipped: tuple[str, ...] = ()
    traffic: dict[str, Any] = field(default_factory=dict)
    local_problem: str | None = None
    warnings: tuple[str, ...] = ()


def write(spool: Path, what: Orders | Report) -> None:
    """Puts it in place of what was there.

    Args:
        spool: The spool.
        what: Orders, or a report.

    Raises:
        OSError: If it cannot be written.
    """
    folder = spool / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{what.NAME}.{secrets.token_hex(6)}.tmp"
    try:
        temporary.write_text(json.dumps(asdict(what)), encoding="utf-8")
        os.replace(temporary, folder / what.NAME)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read(spool: Path, kind: type[_T]) -> _T | None:
    """Reads it.

    Args:
        spool: The spool.
        kind: `Orders` or `Report`.

    Returns:
        What was last written; None if nothing was that can be understood.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        text = (spool / FOLDER / kind.NAME).read_text(encoding="utf-8")
        record = json.loads(text)
        names = {one.name for one in fields(kind)}
        return kind(**{k: v for k, v in record.items() if k in names})
    return None
