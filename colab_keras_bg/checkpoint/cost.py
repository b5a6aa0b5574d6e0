"""What saving costs the training, measured while it goes on.

Invariant: a cost is never less than the time that the training was held up
for, and never more than that and the save's own time together.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

__all__ = ["SaveCost"]

_STEPS_KEPT = 64
_SAVES_KEPT = 5


class SaveCost:
    """How long steps take with and without a save in flight."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Knows nothing yet.

        Args:
            clock: Seconds that only grow.
        """
        self._clock = clock
        self._before: tuple[int, float] | None = None
        self._begun: tuple[int, float] | None = None
        self._held_up_secs = 0.0
        self._steps: deque[float] = deque(maxlen=_STEPS_KEPT)
        self._costs: deque[float] = deque(maxlen=_SAVES_KEPT)
        self.took_secs: float | None = None

    @property
    def cost_secs(self) -> float | None:
        """What one of the last saves cost; None before the first."""
        return statistics.median(self._costs) if self._costs else None

    @property
    def step_secs(self) -> float | None:
        """How long one of the last steps took while nothing was saved."""
        return statistics.median(self._steps) if self._steps else None

    def at_step(self, step: int, *, saving: bool, steady: bool) -> None:
        """Between two steps.

        Args:
            step: The steps done.
            saving: Whether a save is in flight, or was since the last call.
            steady: Whether nothing but steps was done since.
        """
        now = self._clock()
        if self._before is not None and steady and not saving:
            before, then = self._before
            if step > before:
                self._steps.append((now - then) / (step - before))
        self._before = step, now

    def begins(self, step: int) -> None:
        """The training is held up for a snapshot.

        Args:
            step: The steps done.
        """
        self._begun = step, self._clock()
        self._held_up_secs = 0.0

    def goes_on(self) -> None:
        """The training goes on, and the save with it."""
        now = self._clock()
        if self._begun is not None:
            self._held_up_secs = now - self._begun[1]
        if self._before is not None:
            self._before = self._before[0], now

    def ended(self, step: int | None, *, took_secs: float) -> None:
        """The save has ended.

        Args:
            step: The steps done by now; None if the training waited for it.
            took_secs: How long the save took.
        """
        self.took_secs = took_secs
        most = self._held_up_secs + took_secs
        cost = most
        if self._begun and step is not None and self.step_secs is not None:
            begun, then = self._begun
            usual = (step - begun) * self.step_secs
            cost = min(max(self._clock() - then - usual, 0.0), most)
        self._begun = None
        self._costs.append(max(cost, self._held_up_secs))
