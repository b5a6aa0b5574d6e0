"""What to keep of the checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.checkpoint.keeping import (
    Commit,
    KeepAnyOf,
    KeepBest,
    KeepEvery,
    KeepEverySecs,
    KeepLast,
    KeepPolicy,
    keep_policy,
)
from colab_keras_bg.errors import UsageError

STEPS = st.lists(st.integers(0, 10**6), unique=True).map(sorted)


def commits(steps: Sequence[int]) -> list[Commit]:
    """Checkpoints of which only the step is known."""
    return [Commit(step) for step in steps]


def measured(*losses: float | None) -> list[Commit]:
    """Checkpoints of steps 1, 2, ..., each with a loss, if any."""
    return [
        Commit(step, metrics={} if loss is None else {"loss": loss})
        for step, loss in enumerate(losses, start=1)
    ]


def test_which_of_two_is_saved_if_only_one_can_be() -> None:
    """The better one, for who keeps the best, and the newer one otherwise."""
    better, worse = measured(0.1, 0.5)
    best = KeepBest("loss", 2)
    for policy in (best, KeepAnyOf((KeepLast(2), best))):
        assert policy.prefers(better, worse)
        assert not policy.prefers(worse, better)
    assert KeepLast(2).prefers(worse, better)


@pytest.mark.parametrize(
    ("policy", "steps", "expected"),
    [
        (KeepLast(2), [], []),
        (KeepLast(2), [1], [1]),
        (KeepLast(2), [1, 5, 9], [5, 9]),
        (KeepLast(9), [1, 5], [1, 5]),
        (KeepLast(0), [1, 5], []),
        (KeepEvery(10), [], []),
        (KeepEvery(10), [0, 5, 9], []),
        (KeepEvery(10), [5, 10, 15, 19, 20, 45, 49], [10, 20, 45]),
        (KeepEvery(1), [0, 1, 2], [1, 2]),
        (KeepAnyOf(()), [1, 2], []),
        (
            KeepAnyOf((KeepLast(1), KeepEvery(10))),
            [5, 11, 12, 23, 24],
            [11, 23, 24],
        ),
    ],
    ids=repr,
)
def test_kept(
    policy: KeepPolicy, steps: Sequence[int], expected: Sequence[int]
) -> None:
    """Each policy keeps what it says of the steps that there are."""
    assert policy.kept(commits(steps)) == frozenset(expected)


@given(steps=STEPS, count=st.integers(0, 9), every=st.integers(1, 1_000))
def test_what_is_kept_was_there(
    steps: list[int], count: int, every: int
) -> None:
    """
    A policy keeps only what there is, the newest ones among it, and of what
    it kept it keeps the same again: nothing is given up later.
    """
    last, each = KeepLast(count), KeepEvery(every)
    both = KeepAnyOf((last, each))
    there = commits(steps)
    assert last.kept(there) == frozenset(sorted(steps)[::-1][:count])
    kept = both.kept(there)
    assert kept == last.kept(there) | each.kept(there)
    assert kept <= set(steps)
    assert each.kept(commits(sorted(kept))) == each.kept(there)
    stretches = [step // every for step in each.kept(there)]
    assert len(set(stretches)) == len(stretches)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, KeepLast(2)),
        ({"keep_last": 5}, KeepLast(5)),
        (
            {"keep_last": 3, "keep_every": 100},
            KeepAnyOf((KeepLast(3), KeepEvery(100))),
        ),
        ({"keep_every": 1}, KeepAnyOf((KeepLast(2), KeepEvery(1)))),
        ({"keep_every": "10"}, KeepAnyOf((KeepLast(2), KeepEvery(10)))),
        ({"keep_every": "2h"}, KeepAnyOf((KeepLast(2), KeepEverySecs(7200)))),
        (
            {"keep_every": "500 + 30m", "keep_best": 3},
            KeepAnyOf(
                (
                    KeepLast(2),
                    KeepEvery(500),
                    KeepEverySecs(1800),
                    KeepBest("val_loss", 3, "min"),
                )
            ),
        ),
        (
            {"keep_best": 1, "monitor": "val_accuracy"},
            KeepAnyOf((KeepLast(2), KeepBest("val_accuracy", 1, "max"))),
        ),
        (
            {"keep_best": 1, "monitor": "val_AUC_1"},
            KeepAnyOf((KeepLast(2), KeepBest("val_AUC_1", 1, "max"))),
        ),
        (
            {"keep_best": 1, "monitor": "accuracy_gap", "mode": "min"},
            KeepAnyOf((KeepLast(2), KeepBest("accuracy_gap", 1, "min"))),
        ),
    ],
    ids=repr,
)
def test_keep_policy(arguments: dict[str, Any], expected: KeepPolicy) -> None:
    """`keep_last` and `keep_every` mean a policy."""
    assert keep_policy(**arguments) == expected


@pytest.mark.parametrize(
    "keep_last", [True, False, 1, 0, -1, 2.0, "2", None, math.inf], ids=repr
)
def test_keep_last_that_cannot_be_meant(keep_last: Any) -> None:
    """Fewer than two leave nothing to fall back to."""
    with pytest.raises(UsageError) as caught:
        keep_policy(keep_last)
    assert str(caught.value) == (
        f"keep_last={keep_last!r}: at least 2 checkpoints are kept, so that "
        "there is one to fall back to when the newest is damaged."
    )


@pytest.mark.parametrize(
    "keep_every",
    [True, False, 0, -1, 1.5, "0", "x", "", "1.5", "0s", "5,5s", math.nan],
    ids=repr,
)
def test_keep_every_that_cannot_be_meant(keep_every: Any) -> None:
    """What is no number of steps is refused."""
    with pytest.raises(UsageError) as caught:
        keep_policy(2, keep_every)
    assert str(caught.value) == (
        f"keep_every={keep_every!r}: give a number of steps above 0, or a "
        "time such as '2h'."
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"keep_best": -1},
        {"keep_best": True},
        {"keep_best": 1.0},
        {"mode": "least"},
        {"monitor": ""},
        {"monitor": None},
    ],
    ids=repr,
)
def test_keep_best_that_cannot_be_meant(arguments: dict[str, Any]) -> None:
    """What is no number, mode or name is refused, by its name."""
    with pytest.raises(UsageError, match=next(iter(arguments))):
        keep_policy(**arguments)


@pytest.mark.parametrize(
    ("policy", "there", "expected"),
    [
        (KeepBest("loss"), measured(), []),
        (KeepBest("loss"), measured(3, 1, 2), [2]),
        (KeepBest("loss", 2), measured(3, 1, 2), [2, 3]),
        (KeepBest("loss", 2, "max"), measured(3, 1, 2), [1, 3]),
        (KeepBest("loss", 9), measured(3, None, 2), [1, 3]),
        (KeepBest("loss"), measured(1, 1, 1), [1]),
        (KeepBest("loss"), measured(math.nan, math.inf, 5), [3]),
        (KeepBest("acc"), measured(3, 1, 2), []),
    ],
    ids=repr,
)
def test_best(
    policy: KeepPolicy, there: list[Commit], expected: list[int]
) -> None:
    """The best by a metric, of equals the older; others are not ranked."""
    assert policy.kept(there) == frozenset(expected)


@given(
    losses=st.lists(st.floats(-9, 9), max_size=12),
    count=st.integers(1, 4),
    mode=st.sampled_from(["min", "max"]),
)
def test_the_best_survive(losses: list[float], count: int, mode: str) -> None:
    """
    Saved one after the other, with what is not kept deleted each time, the
    best of all are left; a save is wanted exactly if it is kept then.
    """
    policy = KeepBest("loss", count, mode)
    left: list[Commit] = []
    for coming in measured(*losses):
        wanted = policy.wants(coming, left)
        kept = policy.kept([*left, coming])
        left = [c for c in [*left, coming] if c.step in kept]
        assert wanted == (coming in left)
    order = sorted(losses, reverse=mode == "max")
    assert sorted(c.metrics["loss"] for c in left) == sorted(order[:count])


def test_first_of_each_hour() -> None:
    """By the time, the first of each stretch of the calendar is kept."""
    there = [
        Commit(step, created=3600.0 * hours)
        for step, hours in enumerate([9.1, 9.2, 10.0, 10.9, 13.5])
    ]
    assert KeepEverySecs(3600).kept(there) == {0, 2, 4}
    left = [commit for commit in there if commit.step in {0, 2, 4}]
    assert KeepEverySecs(3600).kept(left) == {0, 2, 4}


def test_only_the_best_are_wanted() -> None:
    """Other policies want no save of their own."""
    assert not KeepLast(2).wants(Commit(1), [])
    both = KeepAnyOf((KeepLast(2), KeepBest("loss")))
    assert both.metrics == {"loss"}
    assert both.wants(measured(1)[0], [])
    assert not both.wants(Commit(2, metrics={"loss": 2.0}), measured(1))
    assert not both.wants(Commit(2), measured(1))
