"""`HEAD`: the newest commit and the attempt that may write.

Invariant: written after the manifest it names, so that a run whose HEAD names
a step had that step committed. A HEAD that lags behind is not damage; one
that names a step which is gone means that a checkpoint was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.records import (
    DamagedRecordError,
    read_record,
    write_record,
)

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
        steps: The committed steps that are kept. Written before what is given
            up is deleted: whichever is gone was lost.
        reports: How many bytes of reports there were at that commit, and
            their crc32c as 8 hexadecimal digits.
    """

    run_id: str
    attempt: int
    step: int | None = None
    committed: float | None = None
    steps: Sequence[int] = ()
    reports: tuple[int, str] = (0, "00000000")

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
        return None if record is None else cls.from_json(record)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Head:
        """What a record says; what else it holds is passed over.

        Raises:
            DamagedRecordError: If it is not that of a HEAD.
        """
        match record:
            case {"run_id": str(run_id), "attempt": int(attempt)}:
                step, committed = record.get("step"), record.get("committed")
            case _:
                raise DamagedRecordError(HEAD, reason="it names no attempt")
        if not (step is None or (type(step) is int and step >= 0)):
            raise DamagedRecordError(HEAD, reason=f"its step is {step!r:.80}")
        match record.get("reports"):
            case [int(size_bytes), str(crc32c)]:
                reports = size_bytes, crc32c
            case _:
                reports = 0, "00000000"
        return cls(
            run_id=run_id,
            attempt=attempt,
            step=step,
            committed=committed if isinstance(committed, float) else None,
            steps=tuple(
                one for one in record.get("steps") or () if type(one) is int
            ),
            reports=reports,
        )
