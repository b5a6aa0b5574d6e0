"""Where a run stands, read from its directory alone.

Invariant: reading changes nothing and needs none of the heavy packages; a
record that is damaged is named, not believed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.run_directory import RUN, RunDirectory
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.storage.records import DamagedRecordError, read_record

__all__ = ["RunStatus", "as_text", "read_status"]


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        run_dir: The absolute path of the run directory.
        state: `running`, `interrupted`, `done` or `failed`.
        step: Training batches consumed, as last told.
        epoch: The epoch, from 0, as last told.
        durable_step: The newest committed step; None before the first.
        durable_since: When it was committed, in seconds since 1970.
        attempts: How many attempts there were.
        last_heartbeat: When the run last gave a sign of life, in seconds
            since 1970; None if it never did.
        reason: Why it is done, or why the last attempt ended.
        problem: What is going wrong now, if anything.
        checkpoints: The committed steps, oldest first.
        damaged: Records that cannot be read.
    """

    run_dir: str
    state: str
    step: int | None
    epoch: int | None
    durable_step: int | None
    durable_since: float | None
    attempts: int
    last_heartbeat: float | None
    reason: str
    problem: str | None
    checkpoints: list[int]
    damaged: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def read_status(run_dir: str | os.PathLike[str]) -> RunStatus:
    """Reads where a run stands.

    Args:
        run_dir: The run directory.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If the directory cannot be read.
    """
    directory = RunDirectory(run_dir)
    if not directory.path.is_dir() or not (
        directory.storage.exists(RUN) or directory.attempts.numbers()
    ):
        raise UsageError(
            f"There is no run in {directory.path}: give the directory that "
            "`train` was given as --run_dir."
        )
    damaged: list[str] = []

    def tried(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except DamagedRecordError as error:
            damaged.append(str(error))
            return None

    signs = tried(lambda: read_record(directory.storage, STATUS)) or {}
    head: Head | None = tried(lambda: Head.read(directory.storage))
    done = tried(lambda: read_record(directory.storage, "DONE"))
    last = directory.attempts.latest()
    steps = directory.checkpoints.steps()
    durable = head.step if head and head.step in steps else None
    durable = max([s for s in (durable, *steps[-1:]) if s is not None], default=None)
    running = DirectoryLock.holder_of(directory.path) is not None
    state, reason = "interrupted", "killed"
    if running:
        state, reason = "running", ""
    elif done is not None:
        state, reason = "done", str(done.get("reason", ""))
    elif last is not None and last.ended is not None:
        reason = last.reason
        if last.exit_status not in (None, 0, 75):
            state = "failed"
    return RunStatus(
        run_dir=str(directory.path),
        state=state,
        step=_number(signs.get("step"), durable),
        epoch=_number(signs.get("epoch"), None),
        durable_step=durable,
        durable_since=head.committed if head else None,
        attempts=len(directory.attempts.numbers()),
        last_heartbeat=signs.get("heartbeat"),
        reason=reason,
        problem=signs.get("problem") if running else None,
        checkpoints=steps,
        damaged=damaged,
    )


def as_text(status: RunStatus, *, now: float) -> str:
    """One screen for people.

    Args:
        status: What to show.
        now: Seconds since 1970.
    """
    step = "-" if status.step is None else str(status.step)
    if status.epoch is not None:
        step += f" (epoch {status.epoch + 1})"
    durable = "nothing yet"
    if status.durable_step is not None:
        durable = f"step {status.durable_step}"
        if status.durable_since is not None:
            durable += f", since {_ago(now - status.durable_since)}"
        durable += " (on this machine's disk)"
    beat = "never"
    if status.last_heartbeat is not None:
        beat = f"{_ago(now - status.last_heartbeat)} ago"
    state = status.state + (f" ({status.reason})" if status.reason else "")
    rows = [
        ("run", status.run_dir),
        ("state", state),
        ("step", step),
        ("committed", durable),
        ("checkpoints", ", ".join(map(str, status.checkpoints)) or "none"),
        ("attempts", str(status.attempts)),
        ("heartbeat", beat),
    ]
    if status.problem:
        rows.append(("problem", status.problem))
    rows += [("damaged", text) for text in status.damaged]
    return "\n".join(f"{name:<12} {text}" for name, text in rows)


def _ago(secs: float) -> str:
    secs = max(0.0, secs)
    if secs < 120:
        return f"{secs:.0f} s"
    if secs < 7200:
        return f"{secs / 60:.0f} min"
    return f"{secs / 3600:.1f} h"


def _number(value: Any, otherwise: int | None) -> int | None:
    return value if type(value) is int else otherwise

