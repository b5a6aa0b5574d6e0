"""Looks at the clock around each turn of an epoch.

Invariant: the turns are those of the training, in their order; an iterator is
only ever replaced by one that gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

from colab_keras_bg.callbacks.fit_loop import FitLoop, Turns
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.step_times import StepTimes, TimedIterator
from colab_keras_bg.training_state.surroundings import device_memory

__all__ = ["wrap_timed"]


def wrap_timed(
    turns: Callable[[Callable[[], Turns]], Turns],
    loop: FitLoop,
    times: StepTimes,
    *,
    most: int,
) -> None:
    """Puts a generator around the turns of each epoch, and times them.

    Where the data is drawn by Python, waiting for it is told apart: on JAX in
    the step, on PyTorch before it. On TensorFlow it is drawn inside the
    compiled step.

    Args:
        turns: See `FitLoop.wrap_turns`.
        loop: The loop.
        times: Told how long the turns take.
        most: `steps_per_execution`.
    """
    backend = keras.backend.backend()

    def timed(original: Callable[[], Turns]) -> Turns:
        for turn in turns(_read(original, backend, times)):
            if backend == "jax":
                turn = *turn[:-1], TimedIterator(turn[-1], times)
            begun = times.clock()
            yield turn
            secs = times.clock() - begun
            times.step(secs, loop.batches_of_turn(turn, most=most))

    times.beside = _DeviceMemory()
    loop.wrap_turns(timed)


def _read(
    original: Callable[[], Turns], backend: str, times: StepTimes
) -> Callable[[], Iterator[Any]]:
    if backend != "torch":
        return original
    return lambda: TimedIterator(original(), times)


class _DeviceMemory:
    """What accelerators have in use; not asked again once that fails."""

    def __init__(self) -> None:
        self._fails = False

    def __call__(self) -> dict[str, Any]:
        if self._fails:
            return {}
        try:
            return {"device_memory": device_memory() or None}
        except Exception as error:  # noqa: BLE001 - a driver's; it is said
            self._fails = True
            say(f"the accelerators' memory cannot be told: {error}")
            return {}
