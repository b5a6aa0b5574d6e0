"""Saying what an interruption would change, as soon as it is known.

Invariant: one sentence each, with the cure; looking stops no training.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state.train_step import not_exact

__all__ = ["say_not_exact", "say_what_is_not_exact_of"]


def say_not_exact(reasons: Iterable[str | None]) -> None:
    """Says why a training is not exact.

    Args:
        reasons: One for each thing that was looked at; None if it is exact.
    """
    for reason in filter(None, reasons):
        say(f"not exact after an interruption: {reason}")


def say_what_is_not_exact_of(model: Any) -> None:
    """Says what a model's first step has shown of it.

    Args:
        model: A model that has done a step.
    """
    try:
        reasons = list(not_exact(model))
    except Exception as error:  # noqa: BLE001 - looking stops no training
        reasons = [f"could not be told ({type(error).__name__}: {error})"]
    say_not_exact(reasons)
