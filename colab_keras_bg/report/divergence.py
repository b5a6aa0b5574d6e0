"""Which metrics are no numbers any more, and since when: NaN, or infinite.

Invariant: a metric that is a number again is not told of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from colab_keras_bg.report.numbers import any_number, as_count, whole

__all__ = ["Divergence", "Divergences", "diverged", "divergence_text"]

_MOST_NAMES = 400
_TOLD = 3


@dataclass(frozen=True)
class Divergence:
    """A metric that is no number any more.

    Attributes:
        value: What it is instead, newest.
        step: The first step at which it was none, of those that were read.
        is_first: Whether it was a number before that step.
    """

    value: float
    step: int
    is_first: bool


class Divergences:
    """Finds them, report by report."""

    def __init__(self, *, own: frozenset[str]) -> None:
        """Nothing has been seen yet.

        Args:
            own: The fields of a report that are no metrics.
        """
        self._own = own
        self._were_numbers: set[str] = set()
        self.found: dict[str, Divergence] = {}

    def see(self, report: Mapping[str, Any]) -> None:
        """Takes what was reported next.

        Args:
            report: A line of `metrics.jsonl`.
        """
        step = whole(report.get("step"))
        if step is None:
            return
        for name, field in report.items():
            value = any_number(field)
            if name in self._own or value is None:
                continue
            if math.isfinite(value):
                self.found.pop(name, None)
                if len(self._were_numbers) < _MOST_NAMES:
                    self._were_numbers.add(name)
            elif known := self.found.get(name):
                self.found[name] = replace(known, value=value)
            elif len(self.found) < _MOST_NAMES:
                is_first = name in self._were_numbers
                self.found[name] = Divergence(value, step, is_first)


def diverged(
    reports: Iterable[Mapping[str, Any]], *, own: frozenset[str]
) -> dict[str, Divergence]:
    """The metrics that are no numbers any more, by name.

    Args:
        reports: Lines of `metrics.jsonl`, oldest first; their beginning may
            be missing.
        own: The fields that are no metrics.
    """
    seen = Divergences(own=own)
    for report in reports:
        seen.see(report)
    return seen.found


def divergence_text(metrics: Mapping[str, Divergence]) -> str:
    """What is to be said of it; empty if there is nothing.

    Args:
        metrics: What has become no number.

    >>> divergence_text({"loss": Divergence(math.nan, 1200, is_first=True)})
    'loss is nan since step 1,200'
    """
    told = [
        f"{name[:60]} is {one.value} since step {as_count(one.step)}"
        + ("" if one.is_first else " or before")
        for name, one in list(metrics.items())[:_TOLD]
    ]
    more = len(metrics) - len(told)
    return ", ".join(told) + (f", and {more} more" if more else "")
