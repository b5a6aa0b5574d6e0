"""When to save."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.checkpoint.keeping import KeepLast
from colab_keras_bg.checkpoint.policies import (
    AnyOf,
    Auto,
    EveryEpoch,
    EveryNSecs,
    EveryNSteps,
    Progress,
    SavePolicy,
    save_policy,
)
from colab_keras_bg.errors import UsageError


def progress(
    *,
    steps: int = 1,
    secs: float = 1.0,
    epoch_ended: bool = False,
    cost: float | None = None,
    took: float | None = None,
    step_secs: float | None = None,
) -> Progress:
    """What has happened since the last save."""
    return Progress(steps, secs, epoch_ended, cost, took, step_secs)


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
        ("epoch+10m", AnyOf((EveryEpoch(), EveryNSecs(600.0)))),
        (" 5 + auto", AnyOf((EveryNSteps(5), Auto()))),
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
        "number of batches above 0, or a time such as '30s', '10m' or '2h'; "
        "several with + between."
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
        (Auto(), progress(secs=19, cost=0.0, took=10.0), False),
        (Auto(), progress(secs=20, cost=0.0, took=10.0), True),
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
    found = Auto().interval_secs(progress(cost=cost))
    assert cost / found <= 0.01 * (1 + 1e-9)
    assert found <= max(60, cost * 100 * (1 + 1e-9))
    assert found <= Auto().interval_secs(progress(cost=cost * 1.1))


def test_the_interval_of_auto() -> None:
    """Between its bounds the interval is that of Young and Daly."""
    assert Auto(mtbf_secs=7_200).interval_secs(progress(cost=0.01)) == 12.0
    assert Auto().interval_secs(progress(cost=None)) == 5.0
    assert Auto(max_overhead=0.5).interval_secs(progress(cost=1.0)) == 60.0
    assert Auto(max_loss_secs=10).interval_secs(progress(cost=0.02)) == 10.0
    assert Auto(max_loss_secs=10).interval_secs(progress(cost=1.0)) == 100.0


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


@pytest.mark.parametrize(
    ("policy", "happened", "expected"),
    [
        (EveryEpoch(), progress(), "at the end of each epoch"),
        (EveryNSteps(1), progress(), "every step"),
        (EveryNSteps(7), progress(), "every 7 steps"),
        (EveryNSecs(90), progress(), "every 90 s"),
        (EveryNSecs(7200), progress(), "every 2 h"),
        (
            AnyOf((EveryEpoch(), EveryNSecs(600))),
            progress(),
            "at the end of each epoch; every 10 min",
        ),
        (
            Auto(),
            progress(),
            "every 5.0 s, chosen because nothing is measured yet",
        ),
        (
            Auto(),
            progress(cost=0.002, took=0.05, step_secs=0.1),
            "every 7.6 s (about 76 steps), chosen because it loses least if "
            "the machine is lost every 4 h; a save takes 50.0 ms and costs "
            "the training 2.0 ms, 0.03% of its time",
        ),
        (
            Auto(),
            progress(cost=0.5, took=0.9),
            "every 60 s, chosen because no more than 60 s may be lost; a save "
            "takes 0.9 s and costs the training 0.5 s, 0.83% of its time",
        ),
        (
            Auto(),
            progress(cost=2.0, took=3.0, step_secs=500.0),
            "every 3 min (about 1 steps), chosen because saving may cost 1% "
            "of the time; a save takes 3.0 s and costs the training 2.0 s, "
            "1.00% of its time",
        ),
        (
            Auto(),
            progress(cost=0.004, took=90.0),
            "every 3 min, chosen because the disk may be busy for 50% of the "
            "time; a save takes 90 s and costs the training 4.0 ms, 0.00% "
            "of its time",
        ),
    ],
    ids=repr,
)
def test_explained(
    policy: SavePolicy, happened: Progress, expected: str
) -> None:
    """A policy says when it saves, and `auto` what decided."""
    assert policy.explained(happened) == expected
