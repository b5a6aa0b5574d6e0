"""What may succeed the next time is tried again, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from colab_keras_bg.errors import (
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage import MemoryStorage, Storage
from colab_keras_bg.storage.retrying import Backoff, RetryingStorage
from colab_keras_bg.testing.faulty_storage import FaultyStorage


class Time:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, secs: float) -> None:
        """Moves on."""
        self.slept.append(secs)
        self.now += secs


def retrying(storage: Storage, time: Time, **settings: float) -> Storage:
    """A storage that tries again, in no time."""
    return RetryingStorage(
        storage,
        backoff=Backoff(**settings),
        clock=time,
        sleep=time.sleep,
        seed=1,
    )


CALLS: dict[str, Callable[[Storage], object]] = {
    "create": lambda s: s.create("new", [b"123"]),
    "replace": lambda s: s.replace("old", b"456"),
    "swap": lambda s: s.swap("old", b"456", expected=b"old"),
    "swap from nothing": lambda s: s.swap("new", b"456", expected=None),
    "append": lambda s: s.append("old", b"456", at=3),
    "append to nothing": lambda s: s.append("new", b"456", at=0),
    "upload": lambda s: s.upload("new", Path(__file__)),
    "read": lambda s: s.read("old"),
    "read_range": lambda s: s.read_range("old", 1, 1),
    "map": lambda s: bytes(s.map("old")),
    "info": lambda s: s.info("old"),
    "exists": lambda s: s.exists("old"),
    "list": lambda s: list(s.list()),
    "delete": lambda s: s.delete("old"),
    "sweep": lambda s: s.sweep(),
}


def with_old() -> MemoryStorage:
    """A storage with one object."""
    storage = MemoryStorage()
    storage.create("old", [b"old"])
    return storage


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_is_made_again(call: str, fault: str) -> None:
    """
    Three times in a row, before or after it had its effect: it ends as if
    nothing had been.
    """
    expected = with_old()
    answer = CALLS[call](expected)
    storage, time = with_old(), Time()
    faulty = FaultyStorage(
        storage, fails=lambda number, _: fault if number < 3 else None
    )
    found = CALLS[call](retrying(faulty, time))
    if call != "list":
        assert found == answer
    assert {i.name: storage.read(i.name) for i in storage.list()} == {
        i.name: expected.read(i.name) for i in expected.list()
    }
    assert 1 <= len(time.slept) <= 3


@pytest.mark.parametrize("call", CALLS)
def test_a_deadline(call: str) -> None:
    """What goes on failing is raised when the time is up, not later."""
    time = Time()
    faulty = FaultyStorage(with_old(), fails=lambda number, _: "before")
    with pytest.raises(StorageUnavailableError):
        CALLS[call](retrying(faulty, time, deadline_secs=60.0))
    assert 30.0 < time.now <= 60.0
    assert len(faulty.calls) > 5


@pytest.mark.parametrize("call", CALLS)
def test_what_waits_for_a_person_is_raised_at_once(call: str) -> None:
    """No access today is no access in a second."""
    time = Time()
    faulty = FaultyStorage(
        with_old(),
        fails=lambda number, _: "before",
        error=lambda: StorageRefusedError("here", cause="no", advice="Ask."),
    )
    with pytest.raises(StorageRefusedError, match=r"here .* no\. Ask\."):
        CALLS[call](retrying(faulty, time))
    assert time.slept == []


def test_answers_are_not_failures() -> None:
    """That something is there, or is not, is an answer."""
    time = Time()
    storage = retrying(with_old(), time)
    with pytest.raises(ObjectExistsError):
        storage.create("old", [b"x"])
    with pytest.raises(ObjectExistsError):
        storage.create("old", [b"old"])  # Not our doing, though the same.
    with pytest.raises(ObjectNotFoundError):
        storage.delete("nothing")
    with pytest.raises(ConflictError):
        storage.swap("old", b"x", expected=b"y")
    assert time.slept == []


@pytest.mark.parametrize("content", [b"other", b"ol", b"olds"])
def test_anothers_object_is_not_taken_for_ours(content: bytes) -> None:
    """If the name is taken at the second try, the content decides."""
    storage = MemoryStorage()

    def fails(number: int, call: str) -> str | None:
        if number == 0:
            storage.create("x", [content])
            return "before"
        return None

    with pytest.raises(ObjectExistsError):
        retrying(FaultyStorage(storage, fails=fails), Time()).create(
            "x", [b"old"]
        )
    assert storage.read("x") == content


def test_what_can_be_read_only_once_is_tried_once() -> None:
    """A generator that is used up would make an empty object."""
    storage = MemoryStorage()
    faulty = FaultyStorage(
        storage, fails=lambda number, _: "before" if number == 0 else None
    )
    with pytest.raises(StorageUnavailableError):
        retrying(faulty, Time()).create("x", (b"1" for _ in range(3)))
    assert len(faulty.calls) == 1


def test_a_listing_that_breaks() -> None:
    """It is begun anew, and each object comes once."""

    class Breaking(MemoryStorage):
        broken = 0

        def list(self, prefix: str = "") -> object:  # type: ignore[override]
            for number, info in enumerate(super().list(prefix)):
                if number == 2 and self.broken < 2:
                    self.broken += 1
                    raise StorageUnavailableError("the second page is gone")
                yield info

    storage = Breaking()
    for number in range(5):
        storage.create(f"{number}", [b"1"])
    found = [info.name for info in retrying(storage, Time()).list()]
    assert sorted(found) == ["0", "1", "2", "3", "4"]


def test_waits_grow_and_are_drawn() -> None:
    """Many that were cut off at once do not come back at once."""
    waits = Backoff(first_secs=1.0, most_secs=8.0).waits(random.Random(0))
    found = [next(waits) for _ in range(2000)]
    assert max(found[:1]) <= 1.0
    assert max(found) <= 8.0
    tail = found[5:]
    assert min(tail) < 0.5
    assert max(tail) > 7.5
    assert 3.5 < sum(tail) / len(tail) < 4.5
