"""Which way of going back fits what `fit` was given.

Invariant: the best one that is exact; where nothing better is known, replay.
"""

from __future__ import annotations

from typing import Any

from colab_keras_bg.data.py_dataset import EndlessPyDataset, PyDatasetOrder
from colab_keras_bg.data.random_access import KnownOrder, NumPyOrder
from colab_keras_bg.data.replay import ArraysReplay, GeneratorReplay, Replay
from colab_keras_bg.data.source import Source
from colab_keras_bg.data.stream import OwnState, StreamAdapter
from colab_keras_bg.data.tf_iterator import TFDataElsewhere, TFIterator
from colab_keras_bg.data.torch_loader import TorchLoader

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
    if kind == "GrainDatasetAdapter":
        _replace(epoch_iterator, StreamAdapter(adapter._dataset, kind=kind))
        return OwnState(epoch_iterator)
    if hasattr(adapter, "start_from"):
        return OwnState(epoch_iterator)
    if kind == "PyDatasetAdapter" and adapter.num_batches is None:
        return EndlessPyDataset(epoch_iterator)
    if kind == "PyDatasetAdapter":
        return PyDatasetOrder(epoch_iterator)
    if kind == "GeneratorDataAdapter":
        return GeneratorReplay(epoch_iterator)
    if kind == "ArrayDataAdapter" and keras.backend.backend() == "jax":
        return NumPyOrder(epoch_iterator)
    if hasattr(epoch_iterator, "_distributed_dataset"):
        return TFIterator(epoch_iterator)
    if kind == "TFDatasetAdapter":
        return TFDataElsewhere(epoch_iterator)
    if kind == "ArrayDataAdapter":
        return ArraysReplay(epoch_iterator)
    if kind == "TorchDataLoaderAdapter":
        return TorchLoader(epoch_iterator)
    return Replay(epoch_iterator)


def _replace(epoch_iterator: Any, adapter: Any) -> None:
    """Gives a `fit` another adapter of the same data, before its first batch.

    Args:
        epoch_iterator: The `EpochIterator` of the running `fit`.
        adapter: The adapter.
    """
    epoch_iterator.data_adapter = adapter
    if hasattr(epoch_iterator, "_distributed_dataset"):  # TensorFlow's.
        strategy = epoch_iterator._distribute_strategy
        epoch_iterator._distributed_dataset = (
            strategy.experimental_distribute_dataset(adapter.get_tf_dataset())
        )
