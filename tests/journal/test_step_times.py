"""Where a training's time goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from colab_keras_bg.journal.step_times import StepTimes, TimedIterator


class Clock:
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_since_it_was_told() -> None:
    """
    What is told is of the time since the last telling, as parts of it.
    """
    clock = Clock()
    times = StepTimes(clock=clock)
    times.expect(90, begun_at=10)
    for _ in range(4):
        clock.now += 2.0
        times.step(1.6, 2)
        times.saved(0.4)
    assert times.told() == {
        "expected_steps": 100,
        "step_secs": 0.8,
        "save_wait": 0.2,
    }
    assert times.told() == {"expected_steps": 100}
    clock.now += 1.0
    times.step(1.0, 1)
    assert (1.0, 0.0) == (
        (told := times.told())["step_secs"],
        told["save_wait"],
    )


def test_waiting_for_data() -> None:
    """
    An iterator that is waited for gives the same, and is told of.
    """
    clock = Clock()
    times = StepTimes(clock=clock)

    def slow() -> Iterator[int]:
        for number in range(3):
            clock.now += 0.5
            yield number

    timed = TimedIterator(slow(), times)
    assert [0, 1, 2] == list(iter(timed))
    with pytest.raises(StopIteration):
        next(timed)
    clock.now += 0.5
    times.step(2.0, 1)
    assert 0.75 == times.told()["input_wait"]


def test_what_is_beside() -> None:
    """
    What else is known of the training is told with it.
    """
    times = StepTimes()
    times.beside = lambda: {"device_memory": [{"used_bytes": 1}]}
    assert times.told() == {
        "expected_steps": None,
        "device_memory": [{"used_bytes": 1}],
    }
