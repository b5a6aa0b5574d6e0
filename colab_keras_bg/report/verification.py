"""Reading everything of a run back, and listing what is damaged.

Invariant: nothing is changed, and nothing is called whole that was not read.
What a save or a report leaves that was cut off is not damage: no manifest
names those files, and the torn last line of the metrics is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    ObjectNotFoundError,
    StepNotFoundError,
)
from colab_keras_bg.journal.attempts import record_name
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.journal.metrics import (
    METRICS,
    crc32c_of,
    damaged_lines,
)
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.records import DamagedRecordError, read_record
from colab_keras_bg.stored_run import DONE, RUN, StoredRun, stored_run

__all__ = ["Verification", "verify_run"]


@dataclass(frozen=True)
class Verification:
    """What reading a run back has shown.

    Attributes:
        whole: Each checkpoint that is whole, with its size.
        damaged: What is damaged, a sentence each.
    """

    whole: list[str]
    damaged: list[str]


def verify_run(run_dir: str | os.PathLike[str]) -> Verification:
    """Reads all of a run back.

    Args:
        run_dir: The run stored.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If the directory cannot be read.
    """
    stored = stored_run(run_dir)
    stored.check_holds_a_run()
    whole: list[str] = []
    damaged = list(_damaged_records(stored))
    for store, where in (
        (stored.checkpoints, "checkpoint"),
        (stored.finals, "final checkpoint"),
    ):
        for step in store.steps():
            try:
                checkpoint = store.load(step)
            except DamagedCheckpointError as error:
                damaged.append(f"{where} of step {step}: {error.reason}")
            except StepNotFoundError:
                continue  # Deleted meanwhile by the run, which goes on.
            else:
                size = checkpoint.manifest.size_bytes
                whole.append(f"{where} of step {step}: {size:,} bytes")
    damaged.extend(_missing(stored.storage, stored.checkpoints))
    if _left_a_final(stored) and not stored.finals.steps():
        damaged.append("final checkpoint: the run is done, and it is gone")
    return Verification(whole, damaged)


def _damaged_records(stored: StoredRun) -> Iterator[str]:
    storage, attempts = stored.storage, stored.attempts
    for name in (RUN, HEAD, DONE, STATUS):
        try:
            record = read_record(storage, name)
        except DamagedRecordError as error:
            yield str(error)
            continue
        # Both are there before the first checkpoint.
        if (
            record is None
            and name in (RUN, HEAD)
            and stored.checkpoints.steps()
        ):
            yield f"{name}: it is gone"
    for number in attempts.numbers():
        try:
            found = attempts.read(number)
        except DamagedRecordError as error:
            yield str(error)
        else:
            if found is None:
                yield f"{record_name(number)}: it is gone"
    for number in damaged_lines(_reports(stored)):
        yield f"{METRICS} line {number}: it is not a report"
    yield from _lost_reports(stored)


def _left_a_final(stored: StoredRun) -> bool:
    """Whether the run is done, and has kept what it came to."""
    try:
        done = read_record(stored.storage, DONE)
    except DamagedRecordError:
        return False  # Listed already.
    return done is not None and done.get("final") is not False


def _missing(storage: Storage, store: CheckpointStore) -> Iterator[str]:
    """Commits that HEAD names and that are not there."""
    try:
        head = Head.read(storage)
    except DamagedRecordError:
        return  # Listed already.
    gone = _gone(head, store)
    if gone:  # The run may have gone on meanwhile.
        gone &= _gone(Head.read(storage), store)
    for step in sorted(gone):
        yield f"checkpoint of step {step}: it is gone"


def _gone(head: Head | None, store: CheckpointStore) -> set[int]:
    """What HEAD names of steps, and is not there."""
    named = set(head.steps) if head else set()
    if head is not None and head.step is not None:
        named.add(head.step)
    return named - set(store.steps())


def _lost_reports(stored: StoredRun) -> Iterator[str]:
    """Reports that were there at the last commit, and are not as they were."""
    try:
        head = Head.read(stored.storage)
    except DamagedRecordError:
        return  # Listed already.
    size_bytes, crc32c = head.reports if head else (0, "")
    found = crc32c_of(_reports(stored), size_bytes)
    if size_bytes and found != crc32c and Head.read(stored.storage) == head:
        lack = "shorter than" if found is None else "not what"
        yield f"{METRICS}: it is {lack} it was at the last commit"


def _reports(stored: StoredRun) -> bytes:
    """What is in the metrics file; nothing if there is none."""
    try:
        return stored.storage.read(METRICS)
    except ObjectNotFoundError:
        return b""
