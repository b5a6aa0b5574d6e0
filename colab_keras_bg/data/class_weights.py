"""Weights of classes, as weights of samples.

Invariant: a sample weighs what it does with `fit(class_weight=...)` on arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from colab_keras_bg.errors import UsageError

__all__ = ["weighted"]


def weighted(
    batch: tuple[Any, ...], class_weight: Mapping[int, float] | None
) -> tuple[Any, ...]:
    """Adds the sample weights that class weights come to.

    Args:
        batch: `(x, y)`; `y` holds classes, of shape `(samples,)` or
            `(samples, 1)`, or is one-hot, of shape `(samples, classes)`.
        class_weight: The weight of each class; of those left out, 1. None
            leaves the batch as it is.

    Returns:
        `(x, y, sample_weight)`.

    Raises:
        UsageError: If there are no classes to weigh, or the samples have
            weights already.
    """
    if class_weight is None:
        return batch
    if len(batch) == 3 and batch[2] is not None:
        raise UsageError(
            "Both class_weight and sample_weight were given: give one of them."
        )
    if len(batch) < 2 or not hasattr(batch[1], "ndim"):
        raise UsageError(
            "class_weight needs one array y of classes; there was "
            f"{type(batch[1]).__name__ if len(batch) > 1 else 'none'}."
        )
    y = batch[1]
    if y.ndim > 1:
        y = np.argmax(y, axis=-1) if y.shape[-1] != 1 else y[..., 0]
    classes, number = np.unique(np.round(y).astype(int), return_inverse=True)
    weights = np.array([class_weight.get(int(c), 1.0) for c in classes])
    from keras import config

    return batch[0], batch[1], weights.astype(config.floatx())[number]
