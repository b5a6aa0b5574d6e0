"""`HEAD`, the newest commit and who may write."""

from __future__ import annotations

from typing import Any

import pytest

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.storage import MemoryStorage
from colab_keras_bg.storage.records import DamagedRecordError, write_record

RECORD = {"run_id": "a", "attempt": 3, "step": 7, "committed": 1.5}


def read(**changes: Any) -> Head | None:
    """A HEAD with something else in it."""
    storage = MemoryStorage()
    record = {k: v for k, v in (RECORD | changes).items() if v is not ...}
    write_record(storage, HEAD, record)
    return Head.read(storage)


@pytest.mark.parametrize(
    "head",
    [Head("a", 0), Head("a", 3, 0, 1.5), Head("", 10**6, 10**12, 1.7e9)],
    ids=repr,
)
def test_what_is_written_is_read(head: Head) -> None:
    """HEAD comes back as it was, and the newest replaces the older."""
    storage = MemoryStorage()
    assert Head.read(storage) is None
    Head("older", 1, 1, 1.0).write(storage)
    head.write(storage)
    assert Head.read(storage) == head
    assert [info.name for info in storage.list()] == ["HEAD"]


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": ...},
        {"run_id": 7},
        {"run_id": None},
        {"attempt": ...},
        {"attempt": None},
        {"attempt": "3"},
        {"attempt": []},
        {"attempt": 1.5},
        {"attempt": float("inf")},
        {"step": "7"},
        {"step": -1},
        {"step": 7.0},
        {"step": True},
        {"step": float("nan")},
        {"step": [7]},
        {"step": "x" * 10_000},
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_damaged_head(changes: dict[str, Any]) -> None:
    """A HEAD that does not say who may write, or what step, is damaged."""
    with pytest.raises(DamagedRecordError) as caught:
        read(**changes)
    assert caught.value.name == "HEAD"
    assert len(str(caught.value)) < 200


def test_a_head_of_a_later_version() -> None:
    """What is not needed may be missing; what is not known is passed over."""
    assert read(committed=..., more=[1]) == Head("a", 3, 7, None)
    assert read(step=..., committed=...) == Head("a", 3, None, None)
    assert read(committed="yesterday") == Head("a", 3, 7, None)
