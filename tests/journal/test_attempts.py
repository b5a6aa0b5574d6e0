"""`attempts/NNNN/attempt.json`: one process's try at the run."""

from __future__ import annotations

from typing import Any

import pytest

from colab_keras_bg.journal.attempts import (
    Attempt,
    Attempts,
    attempt_directory,
    record_name,
)
from colab_keras_bg.storage.memory import MemoryStorage
from colab_keras_bg.storage.records import DamagedRecordError, encode


def tried(number: int, **fields: Any) -> Attempt:
    """An attempt that has just begun."""
    return Attempt(number=number, started=1.5, pid=7, host="vm", **fields)


def test_comes_back() -> None:
    """A record comes back as it was written."""
    attempts = Attempts(MemoryStorage())
    begun = tried(1, command=["train.py", "--a=3"])
    attempts.write(begun)
    assert attempts.read(1) == begun
    going = begun.begun(from_step=12)
    attempts.write(going)
    assert attempts.read(1) == going
    ended = going.finish(ended=2.5, exit_status=75, reason="interrupted")
    attempts.write(ended)
    assert attempts.read(1) == ended
    assert (ended.from_step, ended.exit_status) == (12, 75)


def test_numbers() -> None:
    """Numbers begin at 1, only grow, and are never used twice."""
    attempts = Attempts(MemoryStorage())
    assert attempts.numbers() == []
    for number in (1, 2, 3):
        assert attempts.next_number() == number
        attempts.write(tried(number))
    assert attempts.numbers() == [1, 2, 3]


def test_numbers_with_a_gap() -> None:
    """A number that is missing in between is not used again."""
    storage = MemoryStorage()
    attempts = Attempts(storage)
    for number in (1, 2, 3):
        attempts.write(tried(number))
    storage.delete(record_name(2))
    assert attempts.numbers() == [1, 3]
    assert attempts.next_number() == 4


def test_number_of_a_damaged_record() -> None:
    """A damaged record still takes its number; so does a console alone."""
    storage = MemoryStorage()
    attempts = Attempts(storage)
    attempts.write(tried(1))
    storage.replace(record_name(2), b"")
    assert attempts.next_number() == 3
    storage.replace(f"{attempt_directory(3)}/console.log", b"")
    assert attempts.next_number() == 4


def test_more_than_four_digits() -> None:
    """Counting goes on beyond 9999."""
    attempts = Attempts(MemoryStorage())
    attempts.write(tried(9999))
    assert attempts.next_number() == 10000
    attempts.write(tried(10000))
    assert attempts.numbers() == [9999, 10000]
    assert attempts.next_number() == 10001


def test_other_files() -> None:
    """Files that no attempt left are not taken for one."""
    storage = MemoryStorage()
    for name in ("notes.txt", "7/attempt.json", "00x1/attempt.json"):
        storage.replace(f"attempts/{name}", b"{}")
    assert Attempts(storage).numbers() == []


def test_none() -> None:
    """An attempt that was never made has no record."""
    assert Attempts(MemoryStorage()).read(1) is None


WHOLE = {"number": 1, "started": 1, "pid": 7, "host": "vm"}
DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff",
    *(
        encode(record_name(1), record)
        for record in (
            {},
            {**WHOLE, "number": 2},
            {**WHOLE, "number": "1"},
            {**WHOLE, "pid": True},
            {**WHOLE, "host": None},
            {**WHOLE, "ended": "noon"},
            {**WHOLE, "exit_status": 1.5},
            {**WHOLE, "from_step": [3]},
            {**WHOLE, "reason": 7},
            {**WHOLE, "command": "train.py"},
            {name: WHOLE[name] for name in ("number", "started", "pid")},
        )
    ),
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_record(content: bytes) -> None:
    """A record that is not one of this attempt is damage, and named."""
    storage = MemoryStorage()
    storage.replace(record_name(1), content)
    with pytest.raises(DamagedRecordError) as raised:
        Attempts(storage).read(1)
    assert raised.value.name == "attempts/0001/attempt.json"


def test_record_of_a_later_version() -> None:
    """A field that this version does not know is no damage."""
    storage = MemoryStorage()
    record = {**WHOLE, "deadline": "soon"}
    storage.replace(record_name(1), encode(record_name(1), record))
    assert Attempts(storage).read(1) == Attempt(1, started=1, pid=7, host="vm")
