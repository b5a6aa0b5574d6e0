"""Saving in the background: one at a time, and no outcome lost."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
import threading
import weakref

import pytest

from colab_keras_bg.checkpoint.background import BackgroundSaver, Outcome


class Gate:
    """A save that takes until it is let through."""

    def __init__(self) -> None:
        self.entered, self._open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self._open.wait(30)

    def open(self) -> None:
        self._open.set()


def test_nothing_has_happened_yet() -> None:
    """Without a save there is no outcome, and nothing to wait for."""
    saver = BackgroundSaver()
    assert not saver.busy
    assert saver.take_outcomes() == []
    assert saver.take_outcomes(wait=True) == []


def test_the_caller_is_not_held_up() -> None:
    """
    While a save is in flight the caller goes on; asking does not wait unless
    it is told to; and the outcome comes once.
    """
    saver, gate = BackgroundSaver(), Gate()
    saver.submit(7, gate)
    assert gate.entered.wait(30)
    assert saver.busy
    assert saver.take_outcomes() == []
    assert saver.busy
    gate.open()
    [outcome] = saver.take_outcomes(wait=True)
    assert (outcome.step, outcome.error) == (7, None)
    assert not saver.busy
    assert saver.take_outcomes(wait=True) == []


def test_another_thread_saves() -> None:
    """A save runs in a thread of its own, which the end of Python awaits."""
    saver, threads = BackgroundSaver(), []
    saver.submit(1, lambda: threads.append(threading.current_thread()))
    saver.take_outcomes(wait=True)
    assert threads[0] is not threading.current_thread()
    assert not threads[0].daemon


def test_one_save_at_a_time() -> None:
    """A second one waits for the first, which is not disturbed."""
    saver, gate, done = BackgroundSaver(), Gate(), []
    saver.submit(1, gate)
    assert gate.entered.wait(30)
    saver.submit(2, lambda: done.append(2))
    assert saver.take_outcomes() == []
    assert done == []
    gate.open()
    outcomes = saver.take_outcomes(wait=True)
    assert [outcome.step for outcome in outcomes] == [1, 2]
    assert done == [2]


def test_the_newest_waits() -> None:
    """Only one waits: an older one is given up for it."""
    saver, gate, done = BackgroundSaver(), Gate(), []
    saver.submit(1, gate)
    assert gate.entered.wait(30)
    for step in (2, 3, 4):
        saver.submit(step, functools.partial(done.append, step))
    gate.open()
    outcomes = saver.take_outcomes(wait=True)
    assert [outcome.step for outcome in outcomes] == [1, 4]
    assert done == [4]
    assert not saver.busy


def test_what_was_saved_is_let_go() -> None:
    """A save that has ended holds nothing, also while the next one runs."""
    saver, gate = BackgroundSaver(), Gate()

    class State:
        """What a save holds."""

    state = State()
    gone = weakref.ref(state)
    saver.submit(1, functools.partial(bool, state))
    del state
    saver.submit(2, gate)
    assert gate.entered.wait(30)
    assert gone() is None
    gate.open()
    saver.take_outcomes(wait=True)


def test_an_outcome_is_not_overwritten() -> None:
    """That of a save that has ended is kept for whoever asks later."""
    saver = BackgroundSaver()
    for step in range(20):  # The first may have ended, or may not.
        saver.submit(step, lambda: None)
        while step == 0 and saver._waiting:
            pass
    outcomes = saver.take_outcomes(wait=True)
    assert [outcomes[0].step, outcomes[-1].step] == [0, 19]


class Boom(BaseException):
    """Not an Exception."""


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left"), SystemExit(3), KeyboardInterrupt(), Boom()],
    ids=repr,
)
def test_failures_come_home(error: BaseException) -> None:
    """Whatever a save raises, the caller gets it; then the next may begin."""

    def fails() -> None:
        raise error

    saver = BackgroundSaver()
    saver.submit(5, fails)
    [outcome] = saver.take_outcomes(wait=True)
    assert outcome.step == 5
    assert outcome.error is error
    saver.submit(6, lambda: None)
    [outcome] = saver.take_outcomes(wait=True)
    assert outcome.error is None


def test_how_long_it_took() -> None:
    """The cost of a save is the time between its begin and its end."""
    ticks = itertools.count(10.0, 2.5)
    saver = BackgroundSaver(clock=lambda: next(ticks))
    saver.submit(1, lambda: None)
    assert saver.take_outcomes(wait=True) == [Outcome(1, 2.5, None)]


def test_a_thread_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If no thread can be had the caller hears of it and is not stuck."""

    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    saver = BackgroundSaver()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fails)
        saver.submit(1, lambda: None)
    assert not saver.busy
    (outcome,) = saver.take_outcomes()
    assert outcome.step == 1
    assert "can't start" in str(outcome.error)
    assert saver.take_outcomes(wait=True) == []
    saver.submit(2, lambda: None)
    assert saver.take_outcomes(wait=True)


def test_the_end_of_python_waits() -> None:
    """A process that ends while it saves ends after the save."""
    program = (
        "import sys, threading\n"
        "from colab_keras_bg.checkpoint.background import BackgroundSaver\n"
        "main = threading.main_thread()\n"
        "def save():\n"
        "    main.join()\n"
        "    print('saved', flush=True)\n"
        "BackgroundSaver().submit(1, save)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout == b"saved\n"
