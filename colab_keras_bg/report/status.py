"""Where a run stands, read from its directory alone.

Invariant: reading changes nothing and needs none of the heavy packages; a
record that is damaged is named, not believed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import CheckpointError, UsageError
from colab_keras_bg.journal.announce import printable
from colab_keras_bg.journal.attempts import Attempt
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.run_directory import DONE, RUN, RunDirectory
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.storage.records import DamagedRecordError, read_record

__all__ = ["RunStatus", "as_text", "read_status"]

_SHOWN_STEPS = 6


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        run_dir: The absolute path of the run directory.
        state: `running`, `interrupted`, `done` or `failed`.
        step: Training batches consumed, as last told.
        epoch: The epoch, from 0, as last told.
        durable_step: The newest committed step whose files look whole; None
            if there is none.
        durable_since: When it was committed, in seconds since 1970.
        attempts: How many attempts there were.
        last_heartbeat: When the run last gave a sign of life, in seconds
            since 1970; None if it never did.
        reason: Why it is done, or why the last attempt ended.
        problem: What is going wrong now, if anything.
        saves: When it saves, and why then, as last told.
        best: The best checkpoint that is kept as such, as last told.
        checkpoints: The committed steps, oldest first.
        damaged: What cannot be read, or is not whole at first sight.
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
    saves: str | None = None
    best: str | None = None

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
    if not directory.holds_a_run():
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

    running = DirectoryLock.holder_of(directory.path) is not None
    storage, numbers = directory.storage, directory.attempts.numbers()
    tried(lambda: read_record(storage, RUN))
    signs = tried(lambda: read_record(storage, STATUS)) or {}
    head: Head | None = tried(lambda: Head.read(storage))
    done = tried(lambda: read_record(storage, DONE))
    last: Attempt | None = None
    if numbers:
        last = tried(lambda: directory.attempts.read(numbers[-1]))
    steps = directory.checkpoints.steps()
    durable = _newest_whole(directory.checkpoints, steps, damaged)
    since = durable.created if durable else None
    if head and durable and head.step == durable.step:
        since = head.committed
    state, reason = _state(running, done, last)
    committed = durable.step if durable else None
    step, epoch = _told(signs, committed)
    return RunStatus(
        run_dir=str(directory.path),
        state=state,
        step=step,
        epoch=epoch,
        durable_step=committed,
        durable_since=since,
        attempts=len(numbers),
        last_heartbeat=_typed(signs.get("heartbeat"), float),
        reason=reason,
        problem=_typed(signs.get("problem"), str) if state != "done" else None,
        checkpoints=steps,
        damaged=damaged,
        saves=_typed(signs.get("saves"), str),
        best=_typed(signs.get("best"), str),
    )


def _newest_whole(
    store: CheckpointStore, steps: Sequence[int], damaged: list[str]
) -> Manifest | None:
    """The newest checkpoint that looks whole; those above it are named."""
    for step in reversed(steps):
        if store.looks_whole(step):
            with contextlib.suppress(CheckpointError):
                return store.manifest(step)
        damaged.append(f"the checkpoint of step {step} is not whole")
    return None


def _told(
    signs: Mapping[str, Any], committed: int | None
) -> tuple[int | None, int | None]:
    """The step and the epoch of the last sign of life.

    An attempt that has not come to its training yet tells of an older step;
    what is committed tells more then.
    """
    step = _typed(signs.get("step"), int, otherwise=committed)
    epoch = _typed(signs.get("epoch"), int)
    if signs.get("state") != "training" and (step or 0) < (committed or 0):
        return committed, None
    return step, epoch


def _state(
    running: bool, done: Mapping[str, Any] | None, last: Attempt | None
) -> tuple[str, str]:
    """The state, and the reason for it."""
    if running:
        return "running", ""
    if done is not None and (
        last is None
        or last.number
        <= _typed(done.get("attempt"), int, otherwise=last.number)
    ):
        return "done", str(done.get("reason", ""))
    if last is None or last.ended is None:
        return "interrupted", "killed"
    if last.exit_status in (None, 0, 75):
        return "interrupted", last.reason
    return "failed", last.reason


def as_text(status: RunStatus, *, now: float) -> str:
    """One screen for people.

    Args:
        status: What to show.
        now: Seconds since 1970.
    """
    step = "-" if status.step is None else str(status.step)
    if status.epoch is not None:
        step += f" (epoch {status.epoch + 1})"
    reason = "" if status.reason in ("", status.state) else f": {status.reason}"
    beat = "never"
    if status.last_heartbeat is not None:
        beat = f"{_ago(now - status.last_heartbeat)} ago"
    rows = [
        ("run", status.run_dir),
        ("state", status.state + reason),
        ("step", step),
        ("committed", _committed(status, now=now)),
        ("checkpoints", _listed(status.checkpoints)),
        ("attempts", str(status.attempts)),
        ("heartbeat", beat),
    ]
    if status.best:
        rows.insert(5, ("best", status.best))
    if status.saves and status.state == "running":
        rows.append(("saves", status.saves))
    if status.problem:
        rows.append(("problem", status.problem))
    rows += [("damaged", text) for text in status.damaged]
    return "\n".join(f"{name:<12} {printable(text)}" for name, text in rows)


def _committed(status: RunStatus, *, now: float) -> str:
    if status.durable_step is None:
        return "nothing yet"
    since = ""
    if status.durable_since is not None:
        since = f", {_ago(now - status.durable_since)} ago"
    return f"step {status.durable_step}{since}, on this machine's disk"


def _listed(steps: Sequence[int]) -> str:
    if len(steps) <= _SHOWN_STEPS:
        return ", ".join(map(str, steps)) or "none"
    newest = ", ".join(map(str, steps[-_SHOWN_STEPS:]))
    return f"{len(steps)}, the newest: {newest}"


def _ago(secs: float) -> str:
    secs = max(0.0, secs)
    if secs < 120:
        return f"{secs:.0f} s"
    if secs < 7200:
        return f"{secs / 60:.0f} min"
    return f"{secs / 3600:.1f} h"


def _typed(value: Any, kind: type, *, otherwise: Any = None) -> Any:
    """A field of a record that anyone may have written."""
    return value if type(value) is kind else otherwise
