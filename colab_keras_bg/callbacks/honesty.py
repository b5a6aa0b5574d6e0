"""Saying what an interruption would change, as soon as it is known.

Invariant: one sentence each, with the cure; looking stops no training.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state.train_step import not_exact
from colab_keras_bg.training_state.variables import layers_by_path

__all__ = ["StepHonesty", "say_not_exact"]


def say_not_exact(reasons: Iterable[str | None]) -> None:
    """Says why a training is not exact.

    Args:
        reasons: One for each thing that was looked at; None if it is exact.
    """
    for reason in filter(None, reasons):
        say(f"not exact after an interruption: {reason}")


class StepHonesty:
    """What the steps of a model do that a checkpoint cannot hold."""

    def __init__(self, model: Any) -> None:
        """Takes the model; it is looked at when it has done a step."""
        self._model = model
        self._before: dict[str, Any] | None = None

    def first_is_done(self) -> None:
        """Says what the first step has shown."""
        try:
            reasons = list(not_exact(self._model))
        except Exception as error:  # noqa: BLE001 - looking stops no training
            reasons = [f"could not be told ({type(error).__name__}: {error})"]
        say_not_exact(reasons)
        # A step that is traced runs its Python once in a while, not each time.
        eager = keras.backend.backend() == "torch" or self._model.run_eagerly
        self._before = _own_values(self._model) if eager else None

    def epoch_is_done(self) -> None:
        """Says whether steps change what no variable holds."""
        before, self._before = self._before, None
        if before is None:
            return
        now = _own_values(self._model)
        changed = sorted(n for n in now if before.get(n, now[n]) != now[n])
        if changed:
            names = ", ".join(changed[:3])
            say_not_exact(
                [
                    f"{names} changes while the model trains, and is not "
                    "saved: keep it in a variable of a layer, or in a "
                    "callback with get_state() and set_state(state)"
                ]
            )


def _own_values(model: Any) -> dict[str, Any]:
    """Numbers and texts that classes of the user's keep, by path."""
    return {
        f"{path}.{name}": value
        for path, layer in layers_by_path(model).items()
        if not type(layer).__module__.startswith("keras.")
        for name, value in vars(layer).items()
        if type(value) in (bool, int, float, str)
        and not name.startswith("_")
        and name != "training"  # PyTorch's own.
    }
