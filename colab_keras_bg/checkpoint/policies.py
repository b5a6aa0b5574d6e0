"""When to save and what to keep, as values.

Invariant: a policy is frozen; it decides from its arguments alone, prints
and compares. What has happened so far is handed in.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from colab_keras_bg.errors import UsageError

__all__ = [
    "AnyOf",
    "Auto",
    "EveryEpoch",
    "EveryNSecs",
    "EveryNSteps",
    "KeepAnyOf",
    "KeepEvery",
    "KeepLast",
    "KeepPolicy",
    "Progress",
    "SavePolicy",
    "keep_policy",
    "save_policy",
]


@dataclass(frozen=True)
class Progress:
    """What a save policy decides from.

    Attributes:
        steps_since_save: Steps since the last save, restore or start.
        secs_since_save: Seconds since then.
        epoch_ended: Whether an epoch has just ended.
        save_cost_secs: What the last save cost, from its begin to its commit;
            None before the first.
    """

    steps_since_save: int
    secs_since_save: float
    epoch_ended: bool
    save_cost_secs: float | None


class SavePolicy(ABC):
    """Decides when a checkpoint is due."""

    @abstractmethod
    def due(self, progress: Progress) -> bool:
        """Whether to save now. Asked between any two steps."""


@dataclass(frozen=True)
class EveryEpoch(SavePolicy):
    """At the end of each epoch."""

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return progress.epoch_ended


@dataclass(frozen=True)
class EveryNSteps(SavePolicy):
    """Whenever this many steps have passed since the last save."""

    steps: int

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return progress.steps_since_save >= self.steps


@dataclass(frozen=True)
class EveryNSecs(SavePolicy):
    """Whenever this much time has passed since the last save."""

    interval_secs: float

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return progress.secs_since_save >= self.interval_secs


@dataclass(frozen=True)
class Auto(SavePolicy):
    """As often as costs less than it protects.

    The interval is Young's and Daly's, sqrt(2 * MTBF * cost), but at most
    `max_loss_secs`, and never so short that saving takes more than
    `max_overhead` of the time. The first save comes early, to be measured.
    """

    max_overhead: float = 0.01
    max_loss_secs: float = 60.0
    mtbf_secs: float = 4 * 3600.0
    first_secs: float = 5.0

    def interval_secs(self, save_cost_secs: float | None) -> float:
        """The time between two saves.

        Args:
            save_cost_secs: What the last save cost; None before the first.
        """
        if save_cost_secs is None:
            return self.first_secs
        wanted = math.sqrt(2 * self.mtbf_secs * save_cost_secs)
        return max(
            min(wanted, self.max_loss_secs), save_cost_secs / self.max_overhead
        )

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        interval = self.interval_secs(progress.save_cost_secs)
        return progress.secs_since_save >= interval


@dataclass(frozen=True)
class AnyOf(SavePolicy):
    """When any of several policies says so."""

    policies: tuple[SavePolicy, ...]

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return any(policy.due(progress) for policy in self.policies)


_UNITS = {"s": 1, "m": 60, "h": 3600}
_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])")
_NUMBER = re.compile(r"[0-9]{1,18}")


def save_policy(save_freq: str | int | SavePolicy) -> SavePolicy:
    """The policy that a `save_freq` means.

    Args:
        save_freq: `"epoch"`, `"auto"`, a number of batches, a time such as
            `"30s"`, `"10m"` or `"2h"`, or a policy.

    Raises:
        UsageError: If it is none of these. `False` and `True`, which are
            integers to Python, are refused: `False` would save at every
            batch.

    >>> save_policy("10m")
    EveryNSecs(interval_secs=600.0)
    """
    if isinstance(save_freq, SavePolicy):
        return save_freq
    if isinstance(save_freq, str):
        text = save_freq.strip()
        if text == "epoch":
            return EveryEpoch()
        if text == "auto":
            return Auto()
        if _NUMBER.fullmatch(text) and int(text) > 0:
            return EveryNSteps(int(text))
        match = _TIME.fullmatch(text)
        if match and float(match[1]) > 0:
            return EveryNSecs(float(match[1]) * _UNITS[match[2]])
    elif type(save_freq) is int and save_freq > 0:
        return EveryNSteps(save_freq)
    raise UsageError(
        f"save_freq={save_freq!r} cannot be meant: give 'epoch', 'auto', a "
        "number of batches above 0, or a time such as '30s', '10m' or '2h'."
    )


class KeepPolicy(ABC):
    """Decides which checkpoints are kept."""

    @abstractmethod
    def kept(self, steps: Sequence[int]) -> frozenset[int]:
        """The steps to keep of `steps`, which are sorted, oldest first."""


@dataclass(frozen=True)
class KeepLast(KeepPolicy):
    """The newest `count` checkpoints."""

    count: int

    def kept(self, steps: Sequence[int]) -> frozenset[int]:
        """See `KeepPolicy.kept`."""
        return frozenset(steps[max(0, len(steps) - self.count) :])


@dataclass(frozen=True)
class KeepEvery(KeepPolicy):
    """The first checkpoint in each stretch of `steps` steps.

    But for the stretch that begins at step 0: what is kept lies at least
    `steps` steps into the run.
    """

    steps: int

    def kept(self, steps: Sequence[int]) -> frozenset[int]:
        """See `KeepPolicy.kept`."""
        first: dict[int, int] = {}
        for step in steps:
            first.setdefault(step // self.steps, step)
        first.pop(0, None)  # The stretch that begins at step 0.
        return frozenset(first.values())


@dataclass(frozen=True)
class KeepAnyOf(KeepPolicy):
    """What any of several policies keeps."""

    policies: tuple[KeepPolicy, ...]

    def kept(self, steps: Sequence[int]) -> frozenset[int]:
        """See `KeepPolicy.kept`."""
        return frozenset().union(*(p.kept(steps) for p in self.policies))


def keep_policy(
    keep_last: int = 2, keep_every: int | None = None
) -> KeepPolicy:
    """The policy that `keep_last` and `keep_every` mean.

    Args:
        keep_last: How many of the newest checkpoints are kept; at least 2,
            so that there is one to fall back to.
        keep_every: Besides, keep the first checkpoint in each stretch of
            this many steps for good.

    Raises:
        UsageError: If a number is too small.
    """
    if type(keep_last) is not int or keep_last < 2:
        raise UsageError(
            f"keep_last={keep_last!r}: at least 2 checkpoints are kept, so "
            "that there is one to fall back to when the newest is damaged."
        )
    if keep_every is None:
        return KeepLast(keep_last)
    if type(keep_every) is not int or keep_every < 1:
        raise UsageError(
            f"keep_every={keep_every!r}: give a number of steps above 0."
        )
    return KeepAnyOf((KeepLast(keep_last), KeepEvery(keep_every)))
