"""How fast may be sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.storage.pace import Pace


class Clock:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, secs: float) -> None:
        """Moves on."""
        assert secs > 0
        self.now += secs


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_no_more_than_the_limit(sizes: list[int]) -> None:
    """All but the last is paid for before that goes; and not more."""
    clock = Clock()
    pace = Pace(1000.0, clock=clock, sleep=clock.sleep)
    for size in sizes:
        pace.take(size)
    paid = sum(sizes[:-1]) / 1000.0
    assert abs(clock.now - 50.0 - paid) < 1e-6


def test_what_was_not_sent_is_not_saved_up() -> None:
    """After an idle hour there is no more at once than ever."""
    clock = Clock()
    pace = Pace(1000.0, clock=clock, sleep=clock.sleep)
    clock.now += 3600.0
    begun = clock.now
    for _ in range(3):
        pace.take(1000)
    assert abs(clock.now - begun - 2.0) < 1e-6


def test_without_a_limit_nothing_waits() -> None:
    """Then it does not even look at the clock."""

    def never(*_: float) -> float:
        raise AssertionError

    Pace(None, clock=never, sleep=never).take(10**12)
