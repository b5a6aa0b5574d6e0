"""The learning rates of an optimizer, under the names that Keras shows.

Invariant: looking changes nothing.
"""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["learning_rates"]


def learning_rates(optimizer: Any) -> dict[str, float]:
    """The present learning rates by name.

    Args:
        optimizer: Keras' own; of another nothing is known.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    several = getattr(optimizer, "optimizers", None)
    if several is not None:
        return {f"learning_rate_{o.name}": _rate(o) for o in several}
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return {"learning_rate": _rate(optimizer)}
    return {}


def _rate(optimizer: Any) -> float:
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
