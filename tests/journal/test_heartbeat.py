"""`status.json`: a sign of life that disturbs nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import until

from colab_keras_bg.errors import NoSpaceError, StorageUnavailableError
from colab_keras_bg.journal.heartbeat import STATUS, Heartbeat
from colab_keras_bg.storage.interface import ObjectInfo
from colab_keras_bg.storage.memory import MemoryStorage
from colab_keras_bg.storage.records import read_record

NEVER_SECS = 3600.0  # A beat that comes by itself comes after the test.


class Failing(MemoryStorage):
    """Fails while it is told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error
        self.tries = 0

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        self.tries += 1
        if self.error is not None:
            raise self.error
        return super().replace(name, content)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Each test stops what it has started."""
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert "heartbeat" not in names


def signs(storage: MemoryStorage) -> dict[str, Any] | None:
    """The signs of life that were written last."""
    return read_record(storage, STATUS)


def test_first_and_last_beat() -> None:
    """It beats when it starts, and once more, with the last signs, at stop."""
    storage, step, moments = MemoryStorage(), [1], iter([100.0, 200.0])
    heartbeat = Heartbeat(
        storage,
        lambda: {"step": step[0]},
        interval_secs=NEVER_SECS,
        clock=lambda: next(moments),
    )
    heartbeat.start()
    until(lambda: signs(storage) is not None, what="the first beat")
    assert signs(storage) == {"step": 1, "heartbeat": 100.0}
    step[0] = 2
    heartbeat.stop()
    assert signs(storage) == {"step": 2, "heartbeat": 200.0}


def test_beats_when_asked() -> None:
    """`beat` asks for one now, long before the next is due."""
    storage, step = MemoryStorage(), [1]
    heartbeat = Heartbeat(
        storage, lambda: {"step": step[0]}, interval_secs=NEVER_SECS
    )
    heartbeat.start()
    until(lambda: signs(storage) is not None, what="the first beat")
    step[0] = 2
    heartbeat.beat()
    until(
        lambda: (signs(storage) or {}).get("step") == 2,
        what="the beat that was asked for",
    )
    heartbeat.stop()


def test_beats_by_itself() -> None:
    """It beats again and again without being asked."""
    beats: list[int] = []
    heartbeat = Heartbeat(
        MemoryStorage(),
        lambda: beats.append(1) or {},  # type: ignore[func-returns-value]
        interval_secs=0.001,
    )
    heartbeat.start()
    until(lambda: len(beats) > 3, what="several beats")
    heartbeat.stop()


@pytest.mark.parametrize(
    "error",
    [
        NoSpaceError(STATUS, where="here"),
        StorageUnavailableError(5, "Input/output error"),
    ],
)
def test_storage_fails(error: Exception) -> None:
    """
    A beat that cannot be written is left out: the old record stays, nobody is
    disturbed, and the next one is tried again.
    """
    storage = Failing(error)
    storage.error = None
    heartbeat = Heartbeat(
        storage, lambda: {"tries": storage.tries}, interval_secs=NEVER_SECS
    )
    heartbeat.start()
    until(lambda: signs(storage) is not None, what="the first beat")
    first = signs(storage)
    storage.error = error
    heartbeat.beat()
    until(lambda: storage.tries == 2, what="the beat that fails")
    assert signs(storage) == first
    storage.error = None
    heartbeat.stop()
    assert (signs(storage) or {})["tries"] == 2


def test_storage_never_works() -> None:
    """Stopping returns, and raises nothing, when no beat was ever written."""
    storage = Failing(NoSpaceError(STATUS, where="here"))
    heartbeat = Heartbeat(storage, dict, interval_secs=NEVER_SECS)
    heartbeat.start()
    heartbeat.stop()
    assert storage.tries in (1, 2)
    assert signs(storage) is None


def test_stop_without_start() -> None:
    """Stopping what never started, or twice, does nothing."""
    storage = MemoryStorage()
    heartbeat = Heartbeat(storage, dict, interval_secs=NEVER_SECS)
    heartbeat.stop()
    assert signs(storage) is None
    heartbeat.start()
    heartbeat.stop()
    heartbeat.stop()


def test_start_again() -> None:
    """What was stopped can be started again, and goes on until stopped."""
    storage = MemoryStorage()
    heartbeat = Heartbeat(storage, dict, interval_secs=NEVER_SECS)
    for _ in range(2):
        heartbeat.start()
        for _ in range(2):
            until(lambda: signs(storage) is not None, what="a beat")
            storage.delete(STATUS)
            heartbeat.beat()
        heartbeat.stop()
        storage.delete(STATUS)


def test_stopped_while_beating() -> None:
    """
    When it is stopped in the middle of a beat, another one follows: the last
    tells how things stood at the end.
    """
    step, stopping = [1], threading.Event()

    class Stopping(MemoryStorage):
        def replace(self, name: str, content: bytes) -> ObjectInfo:
            if step[0] == 1:
                step[0] = 2
                stopper.start()
                stopping.set()
                until(lambda: heartbeat._ending, what="it is to stop")
            return super().replace(name, content)

    storage = Stopping()
    heartbeat = Heartbeat(
        storage, lambda: {"step": step[0]}, interval_secs=NEVER_SECS
    )
    stopper = threading.Thread(target=heartbeat.stop)
    heartbeat.start()
    assert stopping.wait(30)
    stopper.join(30)
    assert (signs(storage) or {})["step"] == 2
