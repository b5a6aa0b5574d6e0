"""When to save, as values.

Invariant: a policy is frozen; it decides from its arguments alone, prints
and compares. What has happened so far is handed in.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from colab_keras_bg.errors import UsageError

__all__ = [
    "AnyOf",
    "Auto",
    "EveryEpoch",
    "EveryNSecs",
    "EveryNSteps",
    "Progress",
    "SavePolicy",
    "save_policy",
    "secs_of",
]


@dataclass(frozen=True)
class Progress:
    """What a save policy decides from.

    Attributes:
        steps_since_save: Steps since the last save, restore or start.
        secs_since_save: Seconds since then.
        epoch_ended: Whether an epoch has just ended.
        save_cost_secs: What the last save cost the training: the time that it
            was held up, and by which its steps took longer; None before the
            first.
        save_secs: How long that save took, from its begin to its commit.
        step_secs: How long a step takes while nothing is saved; None if that
            is not known yet.
    """

    steps_since_save: int
    secs_since_save: float
    epoch_ended: bool
    save_cost_secs: float | None = None
    save_secs: float | None = None
    step_secs: float | None = None


class SavePolicy(ABC):
    """Decides when a checkpoint is due."""

    @abstractmethod
    def due(self, progress: Progress) -> bool:
        """Whether to save now. Asked between any two steps."""

    @abstractmethod
    def explained(self, progress: Progress) -> str:
        """When it saves, and why then, for people."""


@dataclass(frozen=True)
class EveryEpoch(SavePolicy):
    """At the end of each epoch."""

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return progress.epoch_ended

    def explained(self, progress: Progress) -> str:
        """See `SavePolicy.explained`."""
        return "at the end of each epoch"


@dataclass(frozen=True)
class EveryNSteps(SavePolicy):
    """Whenever this many steps have passed since the last save."""

    steps: int

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return progress.steps_since_save >= self.steps

    def explained(self, progress: Progress) -> str:
        """See `SavePolicy.explained`."""
        return "every step" if self.steps == 1 else f"every {self.steps} steps"


@dataclass(frozen=True)
class EveryNSecs(SavePolicy):
    """Whenever this much time has passed since the last save."""

    interval_secs: float

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return progress.secs_since_save >= self.interval_secs

    def explained(self, progress: Progress) -> str:
        """See `SavePolicy.explained`."""
        return f"every {_secs(self.interval_secs)}"


@dataclass(frozen=True)
class Auto(SavePolicy):
    """As often as costs less than it protects.

    The interval is Young's and Daly's, sqrt(2 * MTBF * cost): J. T. Daly, "A
    higher order estimate of the optimum checkpoint interval", 2006. It is at
    most `max_loss_secs`, but never so short that saving costs the training
    more than `max_overhead` of its time, or keeps the disk busy for more than
    `max_busy` of it, which a save would need that takes longer than half of
    `max_loss_secs`. The first save comes early, to be measured.
    """

    max_overhead: float = 0.01
    max_loss_secs: float = 60.0
    mtbf_secs: float = 4 * 3600.0
    max_busy: float = 0.5
    first_secs: float = 5.0

    def interval_secs(self, progress: Progress) -> float:
        """The time between two saves.

        Args:
            progress: Tells what the last save cost.
        """
        return self._chosen(progress)[0]

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return progress.secs_since_save >= self.interval_secs(progress)

    def explained(self, progress: Progress) -> str:
        """See `SavePolicy.explained`."""
        interval, why = self._chosen(progress)
        text = f"every {_secs(interval)}"
        if progress.step_secs:
            text += f" (about {max(1, round(interval / progress.step_secs))} "
            text += "steps)"
        text += f", chosen because {why}"
        if progress.save_cost_secs is not None:
            share = progress.save_cost_secs / interval
            text += (
                f"; a save takes {_secs(progress.save_secs or 0.0)} and costs "
                f"the training {_secs(progress.save_cost_secs)}, "
                f"{share:.2%} of its time"
            )
        return text

    def _chosen(self, progress: Progress) -> tuple[float, str]:
        """The time between two saves, and what decided."""
        cost = progress.save_cost_secs
        if cost is None:
            return self.first_secs, "nothing is measured yet"
        wanted = (
            math.sqrt(2 * self.mtbf_secs * cost),
            (
                "it loses least if the machine is lost every "
                f"{_secs(self.mtbf_secs)}"
            ),
        )
        most = (
            self.max_loss_secs,
            (f"no more than {_secs(self.max_loss_secs)} may be lost"),
        )
        cheap = (
            cost / self.max_overhead,
            (f"saving may cost {self.max_overhead:.0%} of the time"),
        )
        idle = (
            (progress.save_secs or 0.0) / self.max_busy,
            (f"the disk may be busy for {self.max_busy:.0%} of the time"),
        )
        return max(min(wanted, most), cheap, idle)


@dataclass(frozen=True)
class AnyOf(SavePolicy):
    """When any of several policies says so."""

    policies: tuple[SavePolicy, ...]

    def due(self, progress: Progress) -> bool:
        """See `SavePolicy.due`."""
        return any(policy.due(progress) for policy in self.policies)

    def explained(self, progress: Progress) -> str:
        """See `SavePolicy.explained`."""
        return "; ".join(p.explained(progress) for p in self.policies)


_UNITS = {"s": 1, "m": 60, "h": 3600}
_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])")
_NUMBER = re.compile(r"[0-9]{1,18}")


def save_policy(save_freq: str | int | SavePolicy) -> SavePolicy:
    """The policy that a `save_freq` means.

    Args:
        save_freq: `"epoch"`, `"auto"`, a number of batches, a time such as
            `"30s"`, `"10m"` or `"2h"`, or a policy; several of them with
            `+` between: when any of them says so.

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
        parts = [_named(part.strip()) for part in save_freq.split("+")]
        known = tuple(part for part in parts if part is not None)
        if len(known) == len(parts):
            return known[0] if len(known) == 1 else AnyOf(known)
    elif type(save_freq) is int and save_freq > 0:
        return EveryNSteps(save_freq)
    raise UsageError(
        f"save_freq={save_freq!r} cannot be meant: give 'epoch', 'auto', a "
        "number of batches above 0, or a time such as '30s', '10m' or '2h'; "
        "several with + between."
    )


def _named(text: str) -> SavePolicy | None:
    if text == "epoch":
        return EveryEpoch()
    if text == "auto":
        return Auto()
    if _NUMBER.fullmatch(text) and int(text) > 0:
        return EveryNSteps(int(text))
    secs = secs_of(text)
    return None if secs is None else EveryNSecs(secs)


def secs_of(text: str) -> float | None:
    """The seconds that a time such as `"30s"`, `"10m"` or `"2h"` means.

    Args:
        text: What was given.

    Returns:
        Seconds above 0; None if it is no such time.
    """
    match = _TIME.fullmatch(text.strip())
    secs = float(match[1]) * _UNITS[match[2]] if match else 0.0
    return secs or None


def _secs(secs: float) -> str:
    """A time for people."""
    if secs < 0.1:
        return f"{1000 * secs:.1f} ms"
    if secs < 10:
        return f"{secs:.1f} s"
    if secs < 120:
        return f"{secs:.0f} s"
    if secs < 7200:
        return f"{secs / 60:.0f} min"
    return f"{secs / 3600:.0f} h"
