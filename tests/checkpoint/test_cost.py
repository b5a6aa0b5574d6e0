"""What a save costs the training, as it is measured."""

from __future__ import annotations

import pytest

from colab_keras_bg.checkpoint.cost import SaveCost


class Clock:
    """Seconds that go on when they are told to."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """At some time."""
    return Clock()


def trained(cost: SaveCost, clock: Clock, *, steps: int = 10) -> int:
    """Trains steps of 0.1 s, of which one is slow; returns the step."""
    cost.at_step(0, saving=False, steady=True)
    for step in range(1, steps + 1):
        clock.now += 9.0 if step == 3 else 0.1
        cost.at_step(step, saving=False, steady=True)
    return steps


def test_nothing_is_known_yet(clock: Clock) -> None:
    """Before the first step and the first save there is no figure."""
    cost = SaveCost(clock=clock)
    assert (cost.cost_secs, cost.step_secs, cost.took_secs) == (None,) * 3


def test_how_long_a_step_takes(clock: Clock) -> None:
    """A step is as long as most are; turns of several steps are divided."""
    cost = SaveCost(clock=clock)
    trained(cost, clock)
    assert cost.step_secs == pytest.approx(0.1)
    for step in range(14, 200, 4):
        clock.now += 2.0
        cost.at_step(step, saving=False, steady=True)
    assert cost.step_secs == pytest.approx(0.5)


def test_what_is_not_a_step(clock: Clock) -> None:
    """The end of an epoch, and steps beside a save, are not counted."""
    cost = SaveCost(clock=clock)
    trained(cost, clock)
    for step in range(11, 200):
        clock.now += 7.0
        cost.at_step(step, saving=step % 2 == 0, steady=step % 2 == 0)
    assert cost.step_secs == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("held_up", "during", "took", "expected"),
    [
        (0.0, 1.0, 1.0, 0.0),  # Ten steps in the time of ten.
        (0.004, 1.0, 1.0, 0.004),  # And a snapshot before.
        (0.0, 1.5, 1.5, 0.5),  # They took longer.
        (0.2, 1.5, 1.5, 0.7),
        (0.0, 0.5, 0.5, 0.0),  # Quicker than usual: not less than nothing.
        (0.3, 0.4, 0.4, 0.3),
        (0.0, 60.0, 2.0, 2.0),  # A validation was in between.
    ],
)
def test_cost(
    held_up: float, during: float, took: float, expected: float, clock: Clock
) -> None:
    """
    A save costs what the training was held up for, and the time that the
    steps beside it took longer; never more than it took itself.
    """
    cost = SaveCost(clock=clock)
    step = trained(cost, clock)
    cost.begins(step)
    clock.now += held_up
    cost.goes_on()
    clock.now += during
    cost.ended(step + 10, took_secs=took)
    assert cost.cost_secs == pytest.approx(expected)
    assert cost.took_secs == took


def test_one_that_was_waited_for(clock: Clock) -> None:
    """The whole of it is a cost."""
    cost = SaveCost(clock=clock)
    step = trained(cost, clock)
    cost.begins(step)
    clock.now += 0.5
    cost.goes_on()
    cost.ended(None, took_secs=3.0)
    assert cost.cost_secs == pytest.approx(3.5)


def test_one_slow_save(clock: Clock) -> None:
    """A single save that is slow does not decide."""
    cost = SaveCost(clock=clock)
    for took in (1.0, 1.0, 99.0):
        cost.ended(None, took_secs=took)
    assert cost.cost_secs == 1.0
