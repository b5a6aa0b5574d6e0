"""Arrays in memory, in an order that is known for every position.

Invariant: the batch at (epoch, index) is a pure function of the arrays, the
batch size and the seed. Going to any position loads nothing before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from colab_keras_bg.checkpoint.hashing import content_hash
from colab_keras_bg.data.order import epoch_order
from colab_keras_bg.errors import UsageError

__all__ = ["ArraysAdapter", "arrays"]


def arrays(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
) -> ArraysAdapter:
    """Arrays to train on, in a new order every epoch that can be gone back to.

    Pass the result to `model.fit` in place of `x`, without `y`, `batch_size`
    or `shuffle`. The order is the same on every backend, and continuing in
    the middle of an epoch costs nothing.

    Args:
        x: The inputs: an array of shape `(samples, ...)`, or a (nested)
            tuple, list or dict of them.
        y: The targets, likewise; or None.
        sample_weight: A weight for each sample, likewise; or None.
        batch_size: Samples a batch; the last of an epoch may have fewer.
        shuffle: Whether to shuffle anew every epoch.
        seed: The order's seed, from 0 to 2**63 - 1.

    Returns:
        A Keras data adapter, for one `fit`.

    Raises:
        UsageError: If there are no samples, the arrays differ in their
            number, or `batch_size` or `seed` cannot be meant.

    Example:
        ```python
        data = bg.data.arrays(images, labels, batch_size=32, seed=1)
        model.fit(data, epochs=5, callbacks=bg.unattended("runs/a"))
        ```
    """
    return ArraysAdapter(
        (x, y, sample_weight),
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
    )


class ArraysAdapter(DataAdapter):
    """What `arrays` returns."""

    def __init__(
        self, inputs: Any, *, batch_size: int, shuffle: bool, seed: int
    ) -> None:
        """See `arrays`."""
        from keras import tree

        if type(batch_size) is not int or batch_size < 1:
            raise UsageError(f"batch_size={batch_size!r}: give 1 or more.")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise UsageError(f"seed={seed!r}: give 0 to 2**63 - 1.")
        while inputs[-1] is None:
            inputs = inputs[:-1]
        self._inputs = tree.map_structure(np.asarray, inputs)
        sizes = {len(leaf) for leaf in tree.flatten(self._inputs)}
        if len(sizes) != 1 or sizes == {0}:
            raise UsageError(
                "The arrays need one and the same number of samples, above "
                f"0; they have {sorted(sizes)}."
            )
        self._samples = sizes.pop()
        self._batch_size, self._shuffle, self._seed = batch_size, shuffle, seed
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
        """What decides the batches, as JSON values."""
        from keras import tree

        return {
            "kind": "arrays",
            "samples": self._samples,
            "batch_size": self._batch_size,
            "shuffle": self._shuffle,
            "seed": self._seed,
            "arrays": [
                f"{leaf.dtype}{list(leaf.shape)} "
                + content_hash(
                    memoryview(np.ascontiguousarray(leaf).view(np.uint8)).cast(
                        "B"
                    )
                )
                for leaf in tree.flatten(self._inputs)
            ],
        }

    def start_at(self, epoch: int, batch: int) -> None:
        """The next iterator made begins at this position.

        Args:
            epoch: The epoch, from 0.
            batch: Batches of it that are consumed already.
        """
        self._epoch, self._batch, self._pinned = epoch, batch, True

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

    def get_numpy_iterator(self) -> Iterator[Any]:
        """The batches from the present position to the epoch's end."""
        from keras import tree

        for indices in self._batches():
            yield tree.map_structure(
                lambda leaf, indices=indices: leaf[indices], self._inputs
            )

    def get_jax_iterator(self) -> Iterator[Any]:
        """See `get_numpy_iterator`."""
        return self.get_numpy_iterator()

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

    def get_tf_dataset(self) -> Any:
        """The batches as a `tf.data.Dataset`, read anew at each iteration."""
        import tensorflow as tf
        from keras import tree

        inputs = tree.map_structure(tf.convert_to_tensor, self._inputs)

        def epoch(_: Any) -> Any:
            # Python is asked once an epoch, when its iterator starts.
            order = tf.numpy_function(
                self._rest_of_epoch, [], tf.int64, stateful=True
            )
            order.set_shape([None])
            return tf.data.Dataset.from_tensor_slices(order)

        dataset = tf.data.Dataset.range(1).flat_map(epoch)
        dataset = dataset.batch(self._batch_size)
        dataset = dataset.map(
            lambda indices: tree.map_structure(
                lambda leaf: tf.gather(leaf, indices), inputs
            ),
            num_parallel_calls=2,
            deterministic=True,
        )
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return dataset.with_options(options).prefetch(2)

    def _rest_of_epoch(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        if self._shuffle:
            order = epoch_order(
                self._samples, seed=self._seed, epoch=max(self._epoch, 0)
            )
        else:
            order = np.arange(self._samples, dtype=np.int64)
        return order[self._batch * self._batch_size :]

    def _batches(self) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
        order = self._rest_of_epoch()
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]
