"""When to save and what to keep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.checkpoint.policies import (
    AnyOf,
    Auto,
    EveryEpoch,
    EveryNSecs,
    EveryNSteps,
    KeepAnyOf,
    KeepEvery,
    KeepLast,
    KeepPolicy,
    Progress,
    SavePolicy,
    keep_policy,
    save_policy,
)
from colab_keras_bg.errors import UsageError

STEPS = st.lists(st.integers(0, 10**6), unique=True).map(sorted)


def progress(
    *,
    steps: int = 1,
    secs: float = 1.0,
    epoch_ended: bool = False,
    cost: float | None = None,
) -> Progress:
    """What has happened since the last save."""
    return Progress(steps, secs, epoch_ended, cost)


# Values of save_freq.


@pytest.mark.parametrize(
    ("save_freq", "expected"),
    [
        ("epoch", EveryEpoch()),
        ("auto", Auto()),
        (1, EveryNSteps(1)),
        (10**9, EveryNSteps(10**9)),
        ("1", EveryNSteps(1)),
        ("250", EveryNSteps(250)),
        ("007", EveryNSteps(7)),
        ("30s", EveryNSecs(30.0)),
        ("10m", EveryNSecs(600.0)),
        ("2h", EveryNSecs(7200.0)),
        ("0.5s", EveryNSecs(0.5)),
        ("1.5h", EveryNSecs(5400.0)),
        (" epoch ", EveryEpoch()),
        (" 10m\n", EveryNSecs(600.0)),
        (EveryNSteps(3), EveryNSteps(3)),
        (AnyOf((EveryEpoch(), Auto())), AnyOf((EveryEpoch(), Auto()))),
    ],
    ids=repr,
)
def test_save_freq(save_freq: Any, expected: SavePolicy) -> None:
    """Keras' values, times and policies mean what they say."""
    assert save_policy(save_freq) == expected


NOT_MEANT = (
    *(True, False, 0, -1, 1.5, 1.0, None, math.nan, math.inf, [], (), {}),
    *("never", "", " ", "0", "-1", "+1", "1.5", "1e3", "0x10", "1_000"),
    *("0s", "0.0m", "-10m", "10 m", "10M", "10S", "10min", "1d", "m", "s"),
    *("nan", "inf", "nans", "infs", ".5s", "5.s", "1e3s", "1,5s", "10m30s"),
    *("Epoch", "epochs", "AUTO", "True", "False", "None", "9" * 19, b"10m"),
    *("9" * 10 + "s", "\u0661\u0660m", "\u0661", "1\u00b2", "10m\0"),
)


@pytest.mark.parametrize("save_freq", NOT_MEANT, ids=ascii)
def test_save_freq_that_cannot_be_meant(save_freq: Any) -> None:
    """
    Anything else is refused with what can be given: `False`, an integer to
    Python, would otherwise save at every batch.
    """
    with pytest.raises(UsageError) as caught:
        save_policy(save_freq)
    assert str(caught.value) == (
        f"save_freq={save_freq!r} cannot be meant: give 'epoch', 'auto', a "
        "number of batches above 0, or a time such as '30s', '10m' or '2h'."
    )


@given(text=st.text(max_size=8))
def test_any_text(text: str) -> None:
    """Any text is a policy that can be carried out, or refused."""
    try:
        policy = save_policy(text)
    except UsageError:
        return
    if isinstance(policy, EveryNSteps):
        assert policy.steps > 0
    elif isinstance(policy, EveryNSecs):
        assert 0 < policy.interval_secs < math.inf


# When a save is due.


@pytest.mark.parametrize(
    ("policy", "happened", "expected"),
    [
        (EveryEpoch(), progress(epoch_ended=True), True),
        (EveryEpoch(), progress(steps=10**9, secs=1e9), False),
        (EveryNSteps(5), progress(steps=4, secs=1e9), False),
        (EveryNSteps(5), progress(steps=5, secs=0), True),
        (EveryNSteps(5), progress(steps=9), True),
        (EveryNSecs(5.0), progress(steps=10**9, secs=4.9), False),
        (EveryNSecs(5.0), progress(secs=5.0), True),
        (AnyOf(()), progress(epoch_ended=True), False),
        (AnyOf((EveryNSteps(5), EveryEpoch())), progress(steps=4), False),
        (AnyOf((EveryNSteps(5), EveryEpoch())), progress(steps=5), True),
        (
            AnyOf((EveryNSteps(5), EveryEpoch())),
            progress(epoch_ended=True),
            True,
        ),
        (Auto(first_secs=5), progress(secs=4.9), False),
        (Auto(first_secs=5), progress(secs=5), True),
        (Auto(), progress(secs=59.9, cost=0.5), False),
        (Auto(), progress(secs=60, cost=0.5), True),
        (Auto(), progress(secs=99, cost=1.0), False),
        (Auto(), progress(secs=100, cost=1.0), True),
    ],
    ids=repr,
)
def test_due(policy: SavePolicy, happened: Progress, expected: bool) -> None:
    """A save is due when the policy's measure is full, and not before."""
    assert policy.due(happened) == expected


@given(cost=st.floats(1e-6, 1e6))
def test_the_bounds_of_auto(cost: float) -> None:
    """
    Saving never costs more than 1 % of the time; as far as that allows, no
    more than a minute is lost; and a dearer save never comes more often.
    """
    found = Auto().interval_secs(cost)
    assert cost / found <= 0.01 * (1 + 1e-9)
    assert found <= max(60, cost * 100 * (1 + 1e-9))
    assert found <= Auto().interval_secs(cost * 1.1)


def test_the_interval_of_auto() -> None:
    """Between its bounds the interval is that of Young and Daly."""
    assert Auto(mtbf_secs=7_200).interval_secs(0.01) == 12.0
    assert Auto().interval_secs(None) == 5.0
    assert Auto(max_overhead=0.5).interval_secs(1.0) == 60.0
    assert Auto(max_loss_secs=10).interval_secs(0.02) == 10.0
    assert Auto(max_loss_secs=10).interval_secs(1.0) == 100.0


# What is kept.


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
    assert policy.kept(steps) == frozenset(expected)


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
    assert last.kept(steps) == frozenset(sorted(steps)[::-1][:count])
    kept = both.kept(steps)
    assert kept == last.kept(steps) | each.kept(steps)
    assert kept <= set(steps)
    assert each.kept(sorted(kept)) == each.kept(steps)
    stretches = [step // every for step in each.kept(steps)]
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
    ],
    ids=repr,
)
def test_keep_policy(arguments: dict[str, int], expected: KeepPolicy) -> None:
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
    "keep_every", [True, False, 0, -1, 1.5, "10", math.nan], ids=repr
)
def test_keep_every_that_cannot_be_meant(keep_every: Any) -> None:
    """What is no number of steps is refused."""
    with pytest.raises(UsageError) as caught:
        keep_policy(2, keep_every)
    assert str(caught.value) == (
        f"keep_every={keep_every!r}: give a number of steps above 0."
    )


def test_policies_are_values() -> None:
    """Policies print, compare, hash, and cannot be changed."""
    policy = AnyOf((EveryNSteps(1_000), EveryNSecs(600.0)))
    assert repr(policy) == (
        "AnyOf(policies=(EveryNSteps(steps=1000), "
        "EveryNSecs(interval_secs=600.0)))"
    )
    assert policy == AnyOf((EveryNSteps(1_000), EveryNSecs(600.0)))
    assert len({policy, AnyOf((EveryNSteps(1_000), EveryNSecs(600.0)))}) == 1
    assert policy != AnyOf((EveryNSteps(1_001), EveryNSecs(600.0)))
    for value, field in [
        (EveryNSteps(1), "steps"),
        (KeepLast(1), "count"),
        (Auto(), "max_overhead"),
    ]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, 2)
