"""`HEAD`: the newest commit and the attempt that may write.

Invariant: written after the manifest it names, so that a run whose HEAD names
a step had that step committed. A HEAD that lags behind is not damage; one
that names a step which is gone means that a checkpoint was lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from colab_keras_bg.storage.records import read_record, write_record
from colab_keras_bg.storage.interface import Storage

__all__ = ["HEAD", "Head"]

HEAD = "HEAD"


@dataclass(frozen=True)
class Head:
    """The newest commit of a run.

    Attributes:
        run_id: The run.
        attempt: The attempt that may write.
        step: The newest committed step; None before the first commit.
        committed: When that was, in seconds since 1970.
    """

    run_id: str
    attempt: int
    step: int | None = None
    committed: float | None = None

    def write(self, storage: Storage) -> None:
        """Publishes it.

        Raises:
            StorageError: If it cannot be written.
        """
        write_record(storage, HEAD, vars(self))

    @classmethod
    def read(cls, storage: Storage) -> Head | None:
        """Reads it; None if nothing was ever published.

        Raises:
            DamagedRecordError: If it is not whole.
            StorageUnavailableError: If the storage cannot be read.
        """
        record = read_record(storage, HEAD)
        if record is None:
            return None
        step, committed = record.get("step"), record.get("committed")
        return cls(
            run_id=str(record.get("run_id", "")),
            attempt=int(record.get("attempt", 0)),
            step=step if type(step) is int else None,
            committed=committed if isinstance(committed, float) else None,
        )
