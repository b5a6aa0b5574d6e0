"""Which way of going back fits what `fit` was given.

Invariant: the best one that is exact; where nothing better is known, replay.
"""

from __future__ import annotations

from typing import Any

from colab_keras_bg.data.random_access import (
    KnownOrder,
    NumPyOrder,
    PyDatasetOrder,
)
from colab_keras_bg.data.replay import GeneratorReplay, Replay
from colab_keras_bg.data.source import Source
from colab_keras_bg.data.tf_iterator import TFIterator

__all__ = ["source_of"]


def source_of(epoch_iterator: Any) -> Source:
    """The best way to go back in what `fit` was given.

    Args:
        epoch_iterator: The `EpochIterator` of the running `fit`.
    """
    import keras

    adapter = epoch_iterator.data_adapter
    kind = type(adapter).__name__
    if hasattr(adapter, "start_at"):
        return KnownOrder(epoch_iterator)
    if kind == "PyDatasetAdapter" and adapter.num_batches is not None:
        return PyDatasetOrder(epoch_iterator)
    if kind == "GeneratorDataAdapter":
        return GeneratorReplay(epoch_iterator)
    if kind == "ArrayDataAdapter" and keras.backend.backend() == "jax":
        return NumPyOrder(epoch_iterator)
    if hasattr(epoch_iterator, "_distributed_dataset") and (
        kind != "GrainDatasetAdapter"
    ):
        return TFIterator(epoch_iterator)
    return Replay(epoch_iterator)
