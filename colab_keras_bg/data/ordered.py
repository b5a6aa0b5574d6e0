"""Samples by number, in an order that is known for every position.

Invariant: which samples the batch at (epoch, index) holds is a pure function
of their number, the batch size and the seed. Going to any position loads
nothing before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from colab_keras_bg.data.order import epoch_order
from colab_keras_bg.errors import UsageError

__all__ = ["Indices", "OrderedAdapter", "whole"]

Indices = np.ndarray[Any, np.dtype[np.int64]]


def whole(value: Any) -> bool:
    """Whether a value is a whole number, NumPy's included."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


class OrderedAdapter(DataAdapter):
    """What our adapters share: the order, and the present position."""

    def __init__(
        self, samples: int, *, batch_size: int, shuffle: bool, seed: int
    ) -> None:
        """Checks the arguments.

        Args:
            samples: How many there are, above 0.
            batch_size: Samples a batch; the last of an epoch may have fewer.
            shuffle: Whether to shuffle anew every epoch.
            seed: The order's seed, from 0 to 2**63 - 1.

        Raises:
            UsageError: If one of them cannot be meant.
        """
        for name, value, least, most in (
            ("batch_size", batch_size, 1, 2**31),
            ("seed", seed, 0, 2**63 - 1),
        ):
            if not whole(value) or not least <= value <= most:
                raise UsageError(
                    f"{name}={value!r}: give a whole number, {least} or more."
                )
        self._samples = samples
        self._batch_size, self._shuffle = int(batch_size), bool(shuffle)
        self._seed = int(seed)
        self._epoch, self._batch = -1, 0
        self._pinned, self._is_reset = False, False

    @property
    def num_batches(self) -> int:
        """Batches an epoch."""
        return math.ceil(self._samples / self._batch_size)

    @property
    def batch_size(self) -> int:
        """Samples a batch."""
        return self._batch_size

    @property
    def has_partial_batch(self) -> bool:
        """Whether an epoch's last batch has fewer samples."""
        return self.partial_batch_size > 0

    @property
    def partial_batch_size(self) -> int:
        """Samples in that batch; 0 if there is none."""
        return self._samples % self._batch_size

    def describe(self) -> dict[str, Any]:
        """What decides the order of the samples, as JSON values."""
        return {
            "samples": self._samples,
            "batch_size": self._batch_size,
            "shuffle": self._shuffle,
            "seed": self._seed,
        }

    @property
    def epoch(self) -> int:
        """The epoch begun last, from 0; -1 before the first."""
        return self._epoch

    def start_at(self, epoch: int, batch: int) -> None:
        """The next iterator made begins at this position.

        Args:
            epoch: The epoch, from 0.
            batch: Batches of it that are consumed already.
        """
        self._epoch, self._batch, self._pinned = epoch, batch, True

    def count_from(self, epoch: int) -> None:
        """The next epoch that is begun, without being told which, is this one.

        Args:
            epoch: The epoch, from 0.
        """
        self._epoch, self._batch, self._is_reset = epoch - 1, 0, True

    def on_epoch_begin(self) -> None:
        """Keras calls it before each epoch: count, unless we were told."""
        if not self._pinned:
            self._epoch, self._batch = self._epoch + 1, 0

    def on_epoch_end(self) -> None:
        """Keras calls it after each epoch, and once before the first.

        Before that one it may have begun an epoch to look at a batch.
        """
        self._pinned = False
        if not self._is_reset:
            self._epoch, self._is_reset = -1, True

    def get_jax_iterator(self) -> Iterator[Any]:
        """See `get_numpy_iterator`."""
        batches: Iterator[Any] = self.get_numpy_iterator()
        return batches

    def get_torch_dataloader(self) -> Any:
        """See `get_numpy_iterator`; made anew at each iteration."""
        import torch
        from keras import tree

        adapter = self

        class Batches(torch.utils.data.IterableDataset):
            def __iter__(self) -> Iterator[Any]:
                for batch in adapter.get_numpy_iterator():
                    yield tree.map_structure(torch.as_tensor, batch)

        return torch.utils.data.DataLoader(Batches(), batch_size=None)

    def _batches(self) -> Iterator[Indices]:
        """The samples' numbers in each batch that is left of the epoch."""
        order = self._rest_of_epoch()
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def _tf_batches(self) -> Any:
        """The same as a `tf.data.Dataset`, read anew at each iteration."""
        import tensorflow as tf

        def epoch(_: Any) -> Any:
            # Python is asked once an epoch, when its iterator starts.
            order = tf.numpy_function(
                self._rest_of_epoch, [], tf.int64, stateful=True
            )
            order.set_shape([None])
            return tf.data.Dataset.from_tensor_slices(order)

        dataset = tf.data.Dataset.range(1).flat_map(epoch)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return dataset.batch(self._batch_size).with_options(options)

    def _rest_of_epoch(self) -> Indices:
        if self._shuffle:
            order = epoch_order(
                self._samples, seed=self._seed, epoch=max(self._epoch, 0)
            )
        else:
            order = np.arange(self._samples, dtype=np.int64)
        return order[self._batch * self._batch_size :]
