"""Where a run stands, read from its directory alone.

Invariant: reading changes nothing and needs none of the heavy packages; a
record that is damaged is named, not believed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.durability import ago, spool_report, spool_target
from colab_keras_bg.errors import (
    CheckpointError,
    ObjectNotFoundError,
    StorageUnavailableError,
)
from colab_keras_bg.journal.announce import printable
from colab_keras_bg.journal.attempts import Attempt
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.run_directory import directory_of
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage.addresses import is_remote
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.storage.records import DamagedRecordError, read_record
from colab_keras_bg.stored_run import DONE, RUN, StoredRun, stored_run

__all__ = ["RunStatus", "as_text", "read_status"]

_SHOWN_STEPS = 6
# For how long a live run that is far away may give no sign of life.
_FRESH_SECS = 90.0
# Less than a save needs besides its tensors.
_SPARE_BYTES = 4 << 20


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        run_dir: The run directory: an absolute path, or a URL.
        state: `running`, `interrupted`, `done` or `failed`.
        step: Training batches consumed, as last told.
        epoch: The epoch, from 0, as last told.
        durable_step: The newest step that is where the run lives, with files
            that look whole; None if there is none. Of a spool: what its
            sidecar has told of the far end.
        unconfirmed_step: Of a run in a mounted folder, which does not tell
            what has arrived: the newest step that was written there.
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
        committed_step: The newest step that the machine has on its disk, as
            last told; None if it has told of none.
        shipped_to: Where the run is shipped to; None if nowhere.
        shipping: Of a run that is shipped: how many checkpoints wait, and
            the requests and bytes so far, in total and per hour.
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
    committed_step: int | None = None
    unconfirmed_step: int | None = None
    shipped_to: str | None = None
    shipping: dict[str, Any] = field(default_factory=dict)

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
    try:
        return _status_of(stored_run(run_dir))
    except StorageUnavailableError as error:
        if not is_remote(run_dir):
            raise
        here = stored_run(directory_of(run_dir))
        if not here.holds_a_run():
            raise
        return replace(_status_of(here), problem=str(error))


def _status_of(stored: StoredRun) -> RunStatus:
    stored.check_holds_a_run()
    damaged: list[str] = []

    def tried(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except DamagedRecordError as error:
            damaged.append(str(error))
            return None

    storage, numbers = stored.storage, stored.attempts.numbers()
    tried(lambda: read_record(storage, RUN))
    signs = tried(lambda: read_record(storage, STATUS)) or {}
    head: Head | None = tried(lambda: Head.read(storage))
    done = tried(lambda: read_record(storage, DONE))
    last: Attempt | None = None
    if numbers:
        last = tried(lambda: stored.attempts.read(numbers[-1]))
    steps = stored.checkpoints.steps()
    durable = _newest_whole(stored.checkpoints, steps, damaged)
    since = durable.created if durable else None
    if head and durable and head.step == durable.step:
        since = head.committed
    state, reason = _state(_is_running(stored, signs), done, last)
    committed = durable.step if durable else None
    step, epoch = _told(signs, committed)
    shipped_to = stored.address if stored.is_remote else spool_target(stored)
    here, confirms = committed, stored.storage.capabilities.confirms
    if stored.is_remote:
        here = _typed(signs.get("committed_step"), int)
    elif shipped_to is not None:
        told = spool_report(stored)
        committed, since = told.durable_step, told.durable_since
        shipped_to, confirms = told.far or shipped_to, told.confirms
    written = None
    if not confirms:
        written, committed, since = committed, None, None
    return RunStatus(
        run_dir=stored.address,
        state=state,
        step=step,
        epoch=epoch,
        durable_step=committed,
        durable_since=since,
        attempts=len(numbers),
        last_heartbeat=_typed(signs.get("heartbeat"), float),
        reason=reason,
        problem=None if state == "done" else _problem(stored, signs),
        checkpoints=steps,
        damaged=damaged,
        saves=_typed(signs.get("saves"), str),
        best=_typed(signs.get("best"), str),
        committed_step=here,
        unconfirmed_step=written,
        shipped_to=shipped_to,
        shipping=_typed(signs.get("shipping"), dict, otherwise={}),
    )


def _is_running(stored: StoredRun, signs: Mapping[str, Any]) -> bool:
    """Whether somebody is at work; of what is far away, by its heartbeat."""
    if not stored.is_remote:
        path = Path(stored.address)
        return DirectoryLock.holder_of(path) is not None
    try:
        hold = Hold.from_bytes(stored.storage.read(HEAD))
    except (ObjectNotFoundError, DamagedRecordError):
        return False
    beat = _typed(signs.get("heartbeat"), float, otherwise=0.0)
    return bool(hold.holder) and (
        time.time() - max(beat, hold.claimed) < _FRESH_SECS
    )


def _problem(stored: StoredRun, signs: Mapping[str, Any]) -> str | None:
    """What is going wrong; a full disk cannot tell of itself."""
    told: str | None = _typed(signs.get("problem"), str)
    free = None if stored.is_remote else stored.storage.free_bytes()
    if told is None and free is not None and free < _SPARE_BYTES:
        return (
            f"the disk of {stored.address} is full ({free / 1e6:.1f} MB free): "
            "nothing can be saved before there is space"
        )
    return told


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
        beat = f"{ago(now - status.last_heartbeat)} ago"
    rows = [
        ("run", status.run_dir),
        ("state", status.state + reason),
        ("step", step),
        ("durable" if status.shipped_to else "committed", _safe(status, now)),
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


def _safe(status: RunStatus, now: float) -> str:
    """Which step is safe, since when, and where."""
    if status.unconfirmed_step is not None:
        return (
            f"not confirmed: step {status.unconfirmed_step} was written to "
            f"{status.shipped_to}, which does not tell what has arrived"
        )
    if status.durable_step is None:
        if status.committed_step is None or status.shipped_to is None:
            return "nothing yet"
        return f"nothing yet; step {status.committed_step} on its way there"
    since = ""
    if status.durable_since is not None:
        since = f", {ago(now - status.durable_since)} ago"
    where = status.shipped_to or "this machine's disk"
    ahead = ""
    if (status.committed_step or 0) > status.durable_step:
        ahead = f"; step {status.committed_step} on its way there"
    return f"step {status.durable_step}{since}, on {where}{ahead}"


def _listed(steps: Sequence[int]) -> str:
    if len(steps) <= _SHOWN_STEPS:
        return ", ".join(map(str, steps)) or "none"
    newest = ", ".join(map(str, steps[-_SHOWN_STEPS:]))
    return f"{len(steps)}, the newest: {newest}"


def _typed(value: Any, kind: type, *, otherwise: Any = None) -> Any:
    """A field of a record that anyone may have written."""
    return value if type(value) is kind else otherwise
