"""What will run out before long, by how it has gone lately.

Invariant: a warning says how much is left and when it will be gone, while
that still helps; one that is no longer true is no longer given. A single jump
is no trend.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

__all__ = ["Trends"]

_WINDOW_SECS = 600.0
_LEAST_SECS = 60.0
_LEAST_LOOKS = 5
# Warned of when it would be gone within this time, or is nearly gone.
_SOON_SECS = 3600.0
_NEARLY = 0.05
_STEADY = 0.7  # How much of a change a straight line has to explain.
_GOES_ON = 0.3  # How much of its slope each half has to show.


class Trends:
    """Watches what is left of memory and disk."""

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self._memory: deque[tuple[float, float]] = deque()
        self._disk: deque[tuple[float, float]] = deque()

    def warnings(self, look: Mapping[str, Any]) -> tuple[str, ...]:
        """What will run out, in words.

        Args:
            look: The newest line of `resources.jsonl`.
        """
        found = []
        for what, seen, left, total, advice in (
            (
                "memory",
                self._memory,
                _difference(look, "memory_total_bytes", "memory_used_bytes"),
                look.get("memory_total_bytes"),
                "The machine ends the training then. Use a smaller batch or "
                "cache less; what is saved by then is kept.",
            ),
            (
                "disk",
                self._disk,
                look.get("disk_free_bytes"),
                look.get("disk_total_bytes"),
                "Nothing can be saved then. Free some space, or keep fewer "
                "checkpoints.",
            ),
        ):
            if left is None or not total:
                continue
            said = _said(what, _seen(seen, look["time"], left), left, total)
            if said:
                found.append(f"{said}. {advice}")
        return tuple(found)


def _seen(
    seen: deque[tuple[float, float]], now: float, left: float
) -> list[tuple[float, float]]:
    seen.append((now, left))
    while seen and now - seen[0][0] > _WINDOW_SECS:
        seen.popleft()
    return list(seen)


def _said(
    what: str, seen: list[tuple[float, float]], left: float, total: float
) -> str | None:
    secs = _secs_left(seen)
    amount = f"{left / 1e9:.1f} GB of {total / 1e9:.0f} GB left"
    if secs is not None and secs < _SOON_SECS:
        return f"out of {what} in about {_in_words(secs)}: {amount}"
    if left < _NEARLY * total:
        return f"{what} is nearly used up: {amount}"
    return None


def _secs_left(seen: list[tuple[float, float]]) -> float | None:
    """When nothing is left, if it goes on like that; None if it does not."""
    if len(seen) < _LEAST_LOOKS or seen[-1][0] - seen[0][0] < _LEAST_SECS:
        return None
    slope, steadiness = _line(seen)
    if slope >= 0 or steadiness < _STEADY:
        return None
    middle = len(seen) // 2
    if any(
        _line(half)[0] > _GOES_ON * slope
        for half in (seen[: middle + 1], seen[middle:])
    ):
        return None  # It was a jump, or it is over.
    return seen[-1][1] / -slope


def _line(seen: list[tuple[float, float]]) -> tuple[float, float]:
    """The straight line through it: its slope, and how much it explains."""
    count = len(seen)
    mean_time = sum(when for when, _ in seen) / count
    mean_left = sum(left for _, left in seen) / count
    across = sum((when - mean_time) ** 2 for when, _ in seen)
    along = sum((w - mean_time) * (left - mean_left) for w, left in seen)
    spread = sum((left - mean_left) ** 2 for _, left in seen)
    if across <= 0 or spread <= 0:
        return 0.0, 0.0
    return along / across, along * along / (across * spread)


def _in_words(secs: float) -> str:
    if secs < 90:
        return "a minute"
    return f"{secs / 60:.0f} minutes"


def _difference(look: Mapping[str, Any], total: str, used: str) -> Any:
    if total in look and used in look:
        return look[total] - look[used]
    return None
