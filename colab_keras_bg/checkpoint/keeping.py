"""What to keep of the checkpoints, as values.

Invariant: a policy is frozen; it decides from its arguments alone, prints
and compares. What it keeps of what it has kept is the same again, so that
asking it after each save loses nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from colab_keras_bg.checkpoint.policies import secs_of
from colab_keras_bg.errors import UsageError

__all__ = [
    "Commit",
    "KeepAnyOf",
    "KeepBest",
    "KeepEvery",
    "KeepEverySecs",
    "KeepLast",
    "KeepPolicy",
    "keep_policy",
]


@dataclass(frozen=True)
class Commit:
    """What a keep policy knows of a checkpoint.

    Attributes:
        step: Training batches consumed since the run began.
        created: When it was saved, in seconds since 1970.
        metrics: What was measured at this very step; finite numbers by name.
    """

    step: int
    created: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


class KeepPolicy(ABC):
    """Decides which checkpoints are kept."""

    @property
    def metrics(self) -> frozenset[str]:
        """The names of the metrics that it goes by."""
        return frozenset()

    @abstractmethod
    def kept(self, commits: Sequence[Commit]) -> frozenset[int]:
        """The steps to keep of `commits`, which are sorted, oldest first."""

    def best(self, commits: Sequence[Commit]) -> str | None:
        """The best of them, for people; None if it keeps none as such."""
        return None

    def prefers(self, coming: Commit, waiting: Commit) -> bool:
        """Which of two to save if only one can be.

        Args:
            coming: What could be saved now.
            waiting: What was to be saved.

        Returns:
            Whether `coming` is to be.
        """
        return True

    def wants(self, coming: Commit, commits: Sequence[Commit]) -> bool:
        """Whether a save is due for what it measured, whatever the time.

        Args:
            coming: What could be saved now.
            commits: What is there.
        """
        return False


@dataclass(frozen=True)
class KeepLast(KeepPolicy):
    """The newest `count` checkpoints."""

    count: int

    def kept(self, commits: Sequence[Commit]) -> frozenset[int]:
        """See `KeepPolicy.kept`."""
        newest = commits[max(0, len(commits) - self.count) :]
        return frozenset(commit.step for commit in newest)


@dataclass(frozen=True)
class KeepEvery(KeepPolicy):
    """The first checkpoint in each stretch of `steps` steps.

    But for the stretch that begins at step 0: what is kept lies at least
    `steps` steps into the run.
    """

    steps: int

    def kept(self, commits: Sequence[Commit]) -> frozenset[int]:
        """See `KeepPolicy.kept`."""
        first: dict[int, int] = {}
        for commit in commits:
            first.setdefault(commit.step // self.steps, commit.step)
        first.pop(0, None)  # The stretch that begins at step 0.
        return frozenset(first.values())


@dataclass(frozen=True)
class KeepEverySecs(KeepPolicy):
    """The first checkpoint in each stretch of so many seconds.

    The stretches are those of the calendar: with 3600 seconds, the first of
    each hour.
    """

    interval_secs: float

    def kept(self, commits: Sequence[Commit]) -> frozenset[int]:
        """See `KeepPolicy.kept`."""
        first: dict[int, int] = {}
        for commit in commits:
            stretch = int(commit.created // self.interval_secs)
            first.setdefault(stretch, commit.step)
        return frozenset(first.values())


@dataclass(frozen=True)
class KeepBest(KeepPolicy):
    """The `count` best by a metric; of equals, the older.

    Attributes:
        metric: Its name in the logs of an epoch, such as `"val_loss"`.
        count: How many.
        mode: `"min"` if less is better, `"max"` if more is.
    """

    metric: str
    count: int = 1
    mode: str = "min"

    @property
    def metrics(self) -> frozenset[str]:
        """See `KeepPolicy.metrics`."""
        return frozenset({self.metric})

    def kept(self, commits: Sequence[Commit]) -> frozenset[int]:
        """See `KeepPolicy.kept`."""
        return frozenset(commit.step for commit in self.ranked(commits))

    def wants(self, coming: Commit, commits: Sequence[Commit]) -> bool:
        """See `KeepPolicy.wants`."""
        older = [commit for commit in commits if commit.step != coming.step]
        return coming.step in self.kept([*older, coming])

    def prefers(self, coming: Commit, waiting: Commit) -> bool:
        """See `KeepPolicy.prefers`: the better one."""
        return replace(self, count=1).wants(coming, [waiting])

    def best(self, commits: Sequence[Commit]) -> str | None:
        """See `KeepPolicy.best`."""
        for best in self.ranked(commits):
            value = best.metrics[self.metric]
            return f"step {best.step} ({self.metric} {value:.6g})"
        return None

    def ranked(self, commits: Sequence[Commit]) -> list[Commit]:
        """The best of them, the very best first."""
        measured = [
            commit
            for commit in commits
            if math.isfinite(commit.metrics.get(self.metric, math.nan))
        ]
        sign = -1 if self.mode == "max" else 1
        measured.sort(key=lambda commit: sign * commit.metrics[self.metric])
        return measured[: self.count]


@dataclass(frozen=True)
class KeepAnyOf(KeepPolicy):
    """What any of several policies keeps."""

    policies: tuple[KeepPolicy, ...]

    @property
    def metrics(self) -> frozenset[str]:
        """See `KeepPolicy.metrics`."""
        return frozenset().union(*(p.metrics for p in self.policies))

    def kept(self, commits: Sequence[Commit]) -> frozenset[int]:
        """See `KeepPolicy.kept`."""
        return frozenset().union(*(p.kept(commits) for p in self.policies))

    def best(self, commits: Sequence[Commit]) -> str | None:
        """See `KeepPolicy.best`."""
        told = [policy.best(commits) for policy in self.policies]
        return ", ".join(text for text in told if text) or None

    def prefers(self, coming: Commit, waiting: Commit) -> bool:
        """See `KeepPolicy.prefers`."""
        return all(policy.prefers(coming, waiting) for policy in self.policies)

    def wants(self, coming: Commit, commits: Sequence[Commit]) -> bool:
        """See `KeepPolicy.wants`."""
        return any(policy.wants(coming, commits) for policy in self.policies)


_MODES = ("auto", "min", "max")


def keep_policy(
    keep_last: int = 2,
    keep_every: int | str | None = None,
    *,
    keep_best: int = 0,
    monitor: str = "val_loss",
    mode: str = "auto",
) -> KeepPolicy:
    """The policy that these numbers mean.

    Args:
        keep_last: How many of the newest checkpoints are kept; at least 2,
            so that there is one to fall back to.
        keep_every: Besides, keep the first checkpoint in each stretch of
            this many steps for good, or of a time such as `"2h"`; both, with
            `+` between.
        keep_best: Besides, keep so many of the best by `monitor`.
        monitor: The metric's name in the logs of an epoch.
        mode: `"min"`, `"max"`, or `"auto"`: `"max"` if the name holds
            `acc`, `auc`, `precision`, `recall`, `f1`, `iou` or `r2`.

    Raises:
        UsageError: If a number is too small, or a value cannot be meant.
    """
    if type(keep_last) is not int or keep_last < 2:
        raise UsageError(
            f"keep_last={keep_last!r}: at least 2 checkpoints are kept, so "
            "that there is one to fall back to when the newest is damaged."
        )
    policies: list[KeepPolicy] = [KeepLast(keep_last)]
    given = keep_every.split("+") if isinstance(keep_every, str) else keep_every
    for stretch in given if isinstance(given, list) else [given]:
        if stretch is not None:
            policies.append(_every(stretch))
    if type(keep_best) is not int or keep_best < 0:
        raise UsageError(f"keep_best={keep_best!r}: give a number, 0 or more.")
    if mode not in _MODES:
        raise UsageError(f"mode={mode!r}: give one of {', '.join(_MODES)}.")
    if not isinstance(monitor, str) or not monitor:
        raise UsageError(
            f"monitor={monitor!r}: give a metric's name, such as 'val_loss'."
        )
    if keep_best:
        if mode == "auto":
            mode = "max" if _more_is_better(monitor) else "min"
        policies.append(KeepBest(monitor, keep_best, mode))
    return policies[0] if len(policies) == 1 else KeepAnyOf(tuple(policies))


def _every(stretch: int | str) -> KeepPolicy:
    text = str(stretch).strip()
    if type(stretch) is int or text.isdecimal():
        steps = int(stretch)
        if steps > 0:
            return KeepEvery(steps)
    elif isinstance(stretch, str) and (secs := secs_of(text)) is not None:
        return KeepEverySecs(secs)
    raise UsageError(
        f"keep_every={stretch!r}: give a number of steps above 0, or a time "
        "such as '2h'."
    )


def _more_is_better(metric: str) -> bool:
    names = ("acc", "auc", "precision", "recall", "f1", "iou", "r2")
    return any(name in metric.lower() for name in names)
