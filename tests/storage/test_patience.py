"""Calls that may hang are waited for, but not for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from waiting import until

from colab_keras_bg.storage.patience import HangsError, Patience


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """What time it is."""
    return Clock()


def alive() -> int:
    """How many calls have not come back."""
    return sum(
        thread.name == "a call that may hang"
        for thread in threading.enumerate()
    )


def test_what_a_call_returns_and_raises() -> None:
    """It is as if there were nothing between."""
    patience = Patience(5.0)
    assert patience.call(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        patience.call(lambda: 1 // 0)
    patience.beat()
    with patience.elsewhere():
        pass


def test_progress_is_no_hanging(clock: Clock) -> None:
    """However long it takes: as long as it gets on, it is waited for."""
    patience = Patience(5.0, clock=clock)

    def slow() -> str:
        for _ in range(100):
            clock.now += 4.0
            patience.beat()
        return "done"

    assert patience.call(slow) == "done"


def test_nothing_is_begun_until_it_is_back(clock: Clock) -> None:
    """And then all goes on; threads do not pile up."""
    patience = Patience(5.0, clock=clock)
    released = threading.Event()

    def stuck() -> None:
        clock.now += 100.0
        released.wait(30)

    with pytest.raises(HangsError):
        patience.call(stuck)
    begun: list[int] = []
    for number in range(5):
        with pytest.raises(HangsError):
            patience.call(lambda number=number: begun.append(number))
    assert (begun, alive()) == ([], 1)
    released.set()
    until(lambda: not alive(), what="it is back")
    assert patience.call(lambda: 3) == 3


def test_the_progress_of_one_is_not_that_of_another(clock: Clock) -> None:
    """One that hangs is seen, whatever another one gets done meanwhile."""
    patience = Patience(5.0, clock=clock)
    released, hangs = threading.Event(), threading.Event()
    told: list[BaseException] = []

    def waits() -> None:
        try:
            patience.call(lambda: released.wait(30))
        except HangsError as error:
            told.append(error)
            hangs.set()

    other = threading.Thread(target=waits)

    def busy() -> None:
        other.start()
        while not hangs.wait(0.01) and clock.now < 1000:
            clock.now += 1.0
            patience.beat()

    try:
        patience.call(busy)
        assert len(told) == 1
    finally:
        released.set()
        other.join()


def test_who_was_given_up_gets_no_further(clock: Clock) -> None:
    """To its next beat, that is: what it works with may have changed."""
    patience = Patience(5.0, clock=clock)
    released = threading.Event()
    past: list[str] = []

    def stuck() -> None:
        clock.now += 100.0
        released.wait(30)
        with patience.elsewhere():
            past.append("elsewhere")
        patience.beat()
        past.append("beaten")

    with pytest.raises(HangsError):
        patience.call(stuck)
    released.set()
    until(lambda: not alive(), what="it is back")
    assert past == ["elsewhere"]


def test_waiting_for_something_else_is_no_hanging(clock: Clock) -> None:
    """But afterwards it is expected to get on again."""
    patience = Patience(5.0, clock=clock)
    released = threading.Event()

    def waits(then: Callable[[], object]) -> None:
        with patience.elsewhere():
            clock.now += 100.0
            threading.Event().wait(0.05)
        then()

    patience.call(lambda: waits(lambda: None))

    def stuck() -> None:
        clock.now += 6.0
        released.wait(30)

    with pytest.raises(HangsError):
        patience.call(lambda: waits(stuck))
    released.set()


class Interrupted(BaseException):
    """What a signal raises."""


def test_one_that_was_interrupted_is_waited_for(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call begins after it has ended, and not before."""
    patience = Patience(5.0, clock=clock)
    begun, released = threading.Event(), threading.Event()
    order: list[str] = []
    real = threading.Thread.join

    def work() -> None:
        begun.set()
        released.wait(30)
        order.append("first")

    def interrupts(thread: threading.Thread, secs: float | None = None) -> None:
        begun.wait(30)
        raise Interrupted

    def releases(thread: threading.Thread, secs: float | None = None) -> None:
        released.set()
        real(thread, secs)

    monkeypatch.setattr(threading.Thread, "join", interrupts)
    with pytest.raises(Interrupted):
        patience.call(work)
    monkeypatch.setattr(threading.Thread, "join", releases)
    patience.call(lambda: order.append("second"))
    assert order == ["first", "second"]
