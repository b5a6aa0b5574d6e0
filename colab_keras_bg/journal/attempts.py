"""`attempts/NNNN/attempt.json`: one process's try at the run.

Invariant: numbers only grow and are never used twice; an attempt without an
end is one that is running or was killed. No secret that can be told is written
down: not of what was asked for, nor of what an error said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from colab_keras_bg.journal.masking import masked, masked_command
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.records import (
    DamagedRecordError,
    read_record,
    write_record,
)

__all__ = ["Attempt", "Attempts", "attempt_directory", "record_name"]

_DIRECTORY = re.compile(r"attempts/(\d{4,9})/")


def attempt_directory(number: int) -> str:
    """The folder of an attempt: `attempts/0003`."""
    return f"attempts/{number:04d}"


def record_name(number: int) -> str:
    """The record of an attempt: `attempts/0003/attempt.json`."""
    return f"{attempt_directory(number)}/attempt.json"


@dataclass(frozen=True)
class Attempt:
    """One process's try at the run.

    Attributes:
        number: From 1.
        started: When, in seconds since 1970.
        pid: The process that trains or starts the trainer.
        host: The machine's name.
        command: What was asked for.
        from_step: The step it went on from; None while that is not known.
        ended: When it ended, in seconds since 1970; None if it did not say.
        exit_status: Its exit status; None if it has none.
        reason: Why it ended, in words.
    """

    number: int
    started: float
    pid: int
    host: str
    command: Sequence[str] = ()
    from_step: int | None = None
    ended: float | None = None
    exit_status: int | None = None
    reason: str = ""

    def begun(self, *, from_step: int) -> Attempt:
        """The same attempt, now that it is known where it goes on."""
        return replace(self, from_step=from_step)

    def finish(
        self, *, ended: float, exit_status: int | None, reason: str
    ) -> Attempt:
        """The same attempt, ended."""
        return replace(
            self, ended=ended, exit_status=exit_status, reason=reason
        )


class Attempts:
    """The attempts recorded in a run directory."""

    def __init__(self, storage: Storage) -> None:
        """Takes the run directory's storage."""
        self._storage = storage

    def numbers(self) -> list[int]:
        """The numbers of all attempts, oldest first."""
        found = set()
        for info in self._storage.list("attempts/"):
            match = _DIRECTORY.match(info.name)
            if match:
                found.add(int(match[1]))
        return sorted(found)

    def next_number(self) -> int:
        """A number that no attempt has had."""
        return max(self.numbers(), default=0) + 1

    def write(self, attempt: Attempt) -> None:
        """Records an attempt's present state.

        Raises:
            StorageError: If it cannot be written.
        """
        name = record_name(attempt.number)
        attempt = replace(
            attempt,
            command=masked_command(attempt.command),
            reason=masked(attempt.reason),
        )
        write_record(self._storage, name, asdict(attempt))

    def read(self, number: int) -> Attempt | None:
        """Reads an attempt's record; None if there is none.

        Raises:
            DamagedRecordError: If it is not the record of this attempt.
            StorageUnavailableError: If it cannot be read.
        """
        record = read_record(self._storage, record_name(number))
        return None if record is None else _attempt(record, number)


_NUMBER = (int, float)
_TYPES: dict[str, tuple[type, ...]] = {
    "number": (int,),
    "started": _NUMBER,
    "pid": (int,),
    "host": (str,),
    "command": (list, tuple),
    "from_step": (int, type(None)),
    "ended": (*_NUMBER, type(None)),
    "exit_status": (int, type(None)),
    "reason": (str,),
}


def _attempt(record: Mapping[str, Any], number: int) -> Attempt:
    known = {k: v for k, v in record.items() if k in _TYPES}
    for name, value in known.items():
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            raise DamagedRecordError(
                record_name(number), reason=f"its {name!r} is {value!r:.80}"
            )
    try:
        attempt = Attempt(**known)
    except TypeError:
        raise DamagedRecordError(
            record_name(number), reason="it is no attempt's"
        ) from None
    if attempt.number != number:
        raise DamagedRecordError(
            record_name(number), reason=f"its number is {attempt.number}"
        )
    return attempt
