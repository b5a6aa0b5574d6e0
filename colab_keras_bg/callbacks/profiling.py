"""The profile of some batches, taken by the backend.

Invariant: a profile never stops a training: what cannot be had is said once.
One that others have begun is left alone.
"""

from __future__ import annotations

import sys
from types import ModuleType

import keras

from colab_keras_bg.journal.announce import say

__all__ = ["Profiler"]


class Profiler:
    """Takes one profile, of a range of steps."""

    def __init__(self, first: int, last: int, *, folder: str) -> None:
        """Takes what is to be profiled.

        Args:
            first: The first step, from 1.
            last: The last one; 0 if nothing is to be profiled.
            folder: Where the profile goes.
        """
        self._first, self._last, self._folder = first, last, folder
        self._waits = last > 0
        self._adapter: ModuleType | None = None

    def before(self, first: int, last: int) -> None:
        """Before some steps: begins if one is in the range.

        Args:
            first: The first of these steps.
            last: The last one.
        """
        if not self._waits or last < self._first:
            return
        self._waits = False
        if first > self._last:
            return  # An earlier attempt has come by there.
        adapter, reason = _adapter()
        if adapter is None:
            say(f"no profile is taken: {reason}")
            return
        try:
            adapter.start_profile(self._folder)
        except Exception as error:  # noqa: BLE001 - said; training goes on
            say(f"no profile is taken: {type(error).__name__}: {error}")
        else:
            self._adapter = adapter

    def after(self, step: int | None = None) -> None:
        """After a step: ends if it was the last; whatever it was if None."""
        if self._adapter is None or (step is not None and step < self._last):
            return
        adapter, self._adapter = self._adapter, None
        try:
            adapter.stop_profile()
        except Exception as error:  # noqa: BLE001 - said; training goes on
            say(f"the profile is not written: {type(error).__name__}: {error}")


def _adapter() -> tuple[ModuleType | None, str]:
    """What takes it, or why nothing does."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from colab_keras_bg.training_state import tensorflow as adapter

        return adapter, ""
    if backend == "jax":
        from colab_keras_bg.training_state import jax as jax_adapter

        if sys.version_info >= (3, 12):
            return jax_adapter, ""
        return None, "Keras on JAX needs Python 3.12 for it"
    return None, f"Keras on {backend} cannot"
