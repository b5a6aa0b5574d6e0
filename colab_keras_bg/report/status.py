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
from typing import Any, TypeVar

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.durability import spool_report, spool_target
from colab_keras_bg.errors import (
    CheckpointError,
    ObjectNotFoundError,
    StorageUnavailableError,
)
from colab_keras_bg.journal.attempts import Attempt
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.journal.masking import masked
from colab_keras_bg.report.numbers import moment, number, whole
from colab_keras_bg.run_directory import directory_of
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage.addresses import is_remote
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.storage.records import DamagedRecordError, read_record
from colab_keras_bg.stored_run import DONE, RUN, StoredRun, stored_run

__all__ = ["RunStatus", "read_status", "status_of", "wherever"]

_T = TypeVar("_T")
# For how long a live run that is far away may give no sign of life.
_FRESH_SECS = 90.0
_PAUSED = "its cell has ended before the training did: run the cell again"
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
        expected_steps: How far it is to come, as last told; None if nobody
            knows.
        step_secs: How long a step took, as last told.
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
    expected_steps: int | None = None
    step_secs: float | None = None

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
    status, trouble = wherever(run_dir, status_of)
    return replace(status, problem=trouble) if trouble else status


def wherever(
    run_dir: str | os.PathLike[str], read: Callable[[StoredRun], _T]
) -> tuple[_T, str | None]:
    """Reads a run; if it cannot be reached, what is on this machine of it.

    Args:
        run_dir: The run directory.
        read: Reads it.

    Returns:
        What was read; and why it was not read where it lives, if so.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If the directory cannot be read.
    """
    try:
        return read(stored_run(run_dir)), None
    except StorageUnavailableError as error:
        if not is_remote(run_dir):
            raise
        here = stored_run(directory_of(run_dir))
        if not here.holds_a_run():
            raise
        return read(here), masked(str(error))


def status_of(stored: StoredRun, *, ending: bool = False) -> RunStatus:
    """Where a run stands, by its records.

    Args:
        stored: The run.
        ending: Whether an attempt that has told its end counts as ended,
            though its process still sees to what is left to do.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If it cannot be read.
    """
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
    running = _is_running(stored, signs)
    paused = running and signs.get("state") == "paused"
    if ending and last is not None and last.ended is not None:
        running = False
    state, reason = _state(running, done, last)
    if paused:
        state, reason = "interrupted", _PAUSED
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
        last_heartbeat=moment(signs.get("heartbeat")),
        reason=masked(reason),
        problem=None if state == "done" else _problem(stored, signs),
        checkpoints=steps,
        damaged=damaged,
        saves=_typed(signs.get("saves"), str),
        best=_typed(signs.get("best"), str),
        committed_step=here,
        unconfirmed_step=written,
        shipped_to=shipped_to,
        shipping=_typed(signs.get("shipping"), dict, otherwise={}),
        expected_steps=whole(signs.get("expected_steps")),
        step_secs=number(signs.get("step_secs")),
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
    told = told and masked(told)
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


def _typed(value: Any, kind: type, *, otherwise: Any = None) -> Any:
    """A field of a record that anyone may have written."""
    return value if type(value) is kind else otherwise
