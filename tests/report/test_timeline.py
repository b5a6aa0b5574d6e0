"""What became of the time."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.journal.attempts import Attempt
from colab_keras_bg.report.timeline import (
    Look,
    Split,
    Stretch,
    split_of,
    stretch_of,
)


def tried(number: int, started: float, **more: object) -> Attempt:
    """An attempt's record."""
    return Attempt(
        number=number,
        started=started,
        pid=1,
        host="here",
        **more,  # type: ignore[arg-type]
    )


def looks(begin: float, end: float, step: int, secs: float = 1.0) -> list[Look]:
    """A look every ten seconds at a training of so many seconds a step."""
    count = int((end - begin) // 10)
    return [
        Look(begin + 10 * i, step + int(10 * i / secs), step_secs=secs)
        for i in range(1, count + 1)
    ]


def test_a_run_in_one_go() -> None:
    """
    Of one attempt, all is training but what came before its first step.
    """
    attempt = tried(1, 1000.0, from_step=0, ended=1100.0, exit_status=0)
    stretch = stretch_of(attempt, looks(1020.0, 1100.0, 0))
    assert (stretch.trained, stretch.to_step) == (1020.0, 80)
    _, split = split_of([stretch])
    assert split == Split(productive=80.0, starting=20.0)
    assert split.goodput == 0.8


def test_steps_that_were_trained_again() -> None:
    """
    Steps beyond the one that a later attempt began at are lost, and with them
    their part of the time; what lies between two attempts is waiting.
    """
    first = stretch_of(
        tried(1, 1000.0, from_step=0), looks(1000.0, 1100.0, 0), until=1150.0
    )
    second = stretch_of(
        tried(2, 1150.0, from_step=75, ended=1250.0, exit_status=0),
        looks(1150.0, 1250.0, 75),
    )
    (one, two), split = split_of([first, second])
    assert (one.kept_step, one.kept_share, two.kept_share) == (75, 0.75, 1.0)
    assert split == Split(productive=175.0, lost=25.0, waiting=50.0)
    assert "killed" in one.reason


def test_an_older_checkpoint_loses_more() -> None:
    """
    An attempt that goes on from further back loses steps of all before it.
    """
    stretches = [
        Stretch(1, 0.0, 10.0, trained=0.0, from_step=0, to_step=10),
        Stretch(2, 10.0, 20.0, trained=10.0, from_step=10, to_step=20),
        Stretch(3, 20.0, 30.0, trained=20.0, from_step=5, to_step=15),
    ]
    told, split = split_of(stretches)
    assert [one.kept_share for one in told] == [0.5, 0.0, 1.0]
    assert (split.productive, split.lost) == (15.0, 15.0)


def test_uncommitted_steps_of_a_run_that_ended() -> None:
    """
    Of an interrupted run, only what is committed counts.
    """
    stretch = Stretch(1, 0.0, 10.0, trained=0.0, from_step=0, to_step=10)
    _, split = split_of([stretch], kept_step=4)
    assert (split.productive, split.lost) == (4.0, 6.0)


def test_waits_are_not_productive() -> None:
    """
    Waiting for data and for saves is told apart, of steps that were kept.
    """
    waits = [Look(10.0, 10, 1.0, 0.25, 0.05), Look(100.0, 100, 1.0, 0.25, 0.05)]
    attempt = tried(1, 0.5, from_step=0, ended=100.5, exit_status=0)
    _, split = split_of([stretch_of(attempt, waits)])
    assert split.input_wait == pytest.approx(25.0)
    assert split.save_wait == pytest.approx(5.0)
    assert split.productive == pytest.approx(70.0)


def test_without_a_measured_pace() -> None:
    """
    Where only reports tell of steps, their distance tells the pace.
    """
    reports = [Look(1040.0, 10), Look(1060.0, 20), Look(1080.0, 30)]
    stretch = stretch_of(tried(1, 1000.0, from_step=0), reports)
    assert (stretch.trained, stretch.ended) == (1020.0, 1080.0)


def test_an_attempt_that_came_to_no_step() -> None:
    """
    Without any sign of a step, all of it was starting.
    """
    attempt = tried(1, 1000.0, ended=1030.0, exit_status=1, reason="no GPU")
    stretch = stretch_of(attempt, [])
    _, split = split_of([stretch])
    assert split == Split(starting=30.0)
    assert split.goodput == 0.0
    assert stretch.reason == "no GPU (exit status 1)"


def test_clock_that_jumps_back() -> None:
    """
    A machine whose clock is behind neither makes time negative nor counts
    what it did not see.
    """
    first = stretch_of(
        tried(1, 5000.0, from_step=0, ended=4000.0), looks(5000.0, 5100.0, 0)
    )
    second = stretch_of(
        tried(2, 1000.0, from_step=50, ended=1100.0), looks(1000.0, 1100.0, 50)
    )
    _, split = split_of([first, second])
    assert split.wall_secs == 200.0
    assert split.waiting == 0.0


moments = st.floats(0.001, 1e10, allow_nan=False)
steps = st.integers(0, 10**6)
shares = st.none() | st.floats(-1e6, 1e6)


@given(
    st.lists(
        st.tuples(
            moments,
            st.none() | moments,
            st.none() | steps,
            st.lists(st.builds(Look, moments, steps, shares, shares, shares)),
        ),
        max_size=5,
    ),
    st.none() | steps,
)
def test_the_parts_make_up_the_whole(
    tries: list[tuple[float, float | None, int | None, list[Look]]],
    kept_step: int | None,
) -> None:
    """
    Whatever was written down, no part is negative, and goodput is a part of
    the whole.
    """
    stretches = [
        stretch_of(
            tried(number, started, ended=ended, from_step=step),
            sorted(seen, key=lambda look: look.time),
        )
        for number, (started, ended, step, seen) in enumerate(tries, start=1)
    ]
    told, split = split_of(stretches, kept_step=kept_step)
    assert all(secs >= -1e-3 for secs in asdict(split).values())
    spent = sum(one.secs for one in told) + split.waiting
    assert split.wall_secs == pytest.approx(spent, rel=1e-6, abs=1e-3)
    assert split.goodput is None or -1e-6 <= split.goodput <= 1 + 1e-6
