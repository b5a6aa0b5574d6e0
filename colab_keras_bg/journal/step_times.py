"""Where a training's time goes: steps, waiting for data, waiting for saves.

Invariant: two looks at the clock a step, and nothing else, on the training
thread. What is told is of the time since it was told last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["StepTimes", "TimedIterator"]


class StepTimes:
    """Adds up what one training waits for.

    Attributes:
        input_secs: Seconds waited for data so far; None where the data is
            drawn inside the compiled step, and nobody can tell.
        beside: Tells more of the training, as JSON values.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Starts at nothing.

        Args:
            clock: Seconds that only grow.
        """
        self.clock = clock
        self.input_secs: float | None = None
        self.beside: Callable[[], dict[str, Any]] = dict
        self._expected: int | None = None
        self._step_secs = self._save_secs = 0.0
        self._batches = 0
        self._told = (clock(), 0.0, 0.0, 0, 0.0)

    def expect(self, batches: int | None, begun_at: int) -> None:
        """Tells how far the training is to come.

        Args:
            batches: How many batches it trains on; None if nobody knows.
            begun_at: The step at which the first of them was due.
        """
        self._expected = None if batches is None else begun_at + batches

    def step(self, secs: float, batches: int) -> None:
        """A turn of the training loop has ended.

        Args:
            secs: How long it took, callbacks and all.
            batches: How many batches it has trained on.
        """
        self._step_secs += secs
        self._batches += batches

    def saved(self, secs: float) -> None:
        """The training was held up by a save.

        Args:
            secs: For how long.
        """
        self._save_secs += secs

    def told(self) -> dict[str, Any]:
        """What has come since it was told last, as JSON values.

        `step_secs` is the mean time of a batch; `input_wait` and `save_wait`
        are parts of the time that has passed, from 0 to 1. What is not known
        is left out.
        """
        now = self.clock()
        present = (
            now,
            self._step_secs,
            self._save_secs,
            self._batches,
            self.input_secs or 0.0,
        )
        before, self._told = self._told, present
        passed, steps, saves, batches, inputs = (
            new - old for new, old in zip(present, before, strict=True)
        )
        told = {"expected_steps": self._expected, **self.beside()}
        if batches <= 0 or passed <= 0:
            return told
        told |= {
            "step_secs": float(f"{steps / batches:.4g}"),
            "save_wait": round(min(1.0, saves / passed), 4),
        }
        if self.input_secs is not None:
            told["input_wait"] = round(min(1.0, inputs / passed), 4)
        return told


class TimedIterator:
    """An iterator that adds up for how long it is waited for."""

    def __init__(self, iterator: Iterator[Any], times: StepTimes) -> None:
        """Takes the iterator.

        Args:
            iterator: What is waited for.
            times: Told for how long.
        """
        self._iterator, self._times = iterator, times

    def __iter__(self) -> TimedIterator:
        """Itself."""
        return self

    def __next__(self) -> Any:
        """The next, in its own time."""
        begun = self._times.clock()
        try:
            return next(self._iterator)
        finally:
            waited = self._times.clock() - begun
            self._times.input_secs = (self._times.input_secs or 0.0) + waited
