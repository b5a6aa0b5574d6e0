"""Arrays in memory, in an order that is known for every position.

Invariant: the batch at (epoch, index) is a pure function of the arrays, the
batch size and the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from colab_keras_bg.data.class_weights import weighted
from colab_keras_bg.data.content import described_arrays
from colab_keras_bg.data.ordered import OrderedAdapter
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
    class_weight: Mapping[int, float] | None = None,
) -> ArraysAdapter:
    """Arrays to train on, in a new order every epoch that can be gone back to.

    Pass the result to `model.fit` in place of `x`, without `y`, `batch_size`
    or `shuffle`. The order is the same on every backend, and continuing in
    the middle of an epoch slices nothing that was consumed.

    Args:
        x: The inputs: an array of shape `(samples, ...)`, or a (nested)
            tuple, list or dict of them.
        y: The targets, likewise; or None.
        sample_weight: A weight for each sample, likewise; or None.
        batch_size: Samples a batch; the last of an epoch may have fewer.
        shuffle: Whether to shuffle anew every epoch.
        seed: The order's seed, from 0 to 2**63 - 1.
        class_weight: The weight of each class in `y`, in place of
            `sample_weight`, as in `fit`.

    Returns:
        A Keras data adapter, for one `fit`.

    Raises:
        UsageError: If there are no samples, the arrays differ in their
            number, or `batch_size`, `seed` or `class_weight` cannot be meant.

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
        class_weight=class_weight,
    )


class ArraysAdapter(OrderedAdapter):
    """What `arrays` returns."""

    def __init__(
        self,
        inputs: Any,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        class_weight: Mapping[int, float] | None,
    ) -> None:
        """See `arrays`."""
        from keras import tree

        while len(inputs) > 1 and inputs[-1] is None:
            inputs = inputs[:-1]
        self._inputs = tree.map_structure(np.asarray, inputs)
        for leaf in tree.flatten(self._inputs):
            if leaf.ndim == 0:
                raise UsageError(
                    "bg.data.arrays takes arrays; there was "
                    f"{leaf.item()!r:.60} where one belongs. Wrap lists of "
                    "numbers in np.array, and leave out what is None."
                )
        sizes = {len(leaf) for leaf in tree.flatten(self._inputs)}
        if len(sizes) != 1 or sizes == {0}:
            raise UsageError(
                "The arrays need one and the same number of samples, above "
                f"0; they have {sorted(sizes)}."
            )
        self._inputs = weighted(self._inputs, class_weight)
        super().__init__(
            sizes.pop(), batch_size=batch_size, shuffle=shuffle, seed=seed
        )

    def describe(self) -> dict[str, Any]:
        """What decides the batches, as JSON values."""
        return {
            "kind": "arrays",
            **super().describe(),
            "arrays": described_arrays(self._inputs),
        }

    def get_numpy_iterator(self) -> Iterator[Any]:
        """The batches from the present position to the epoch's end."""
        from keras import tree

        for indices in self._batches():
            yield tree.map_structure(
                lambda leaf, indices=indices: leaf[indices], self._inputs
            )

    def get_tf_dataset(self) -> Any:
        """The batches as a `tf.data.Dataset`, read anew at each iteration."""
        import tensorflow as tf
        from keras import tree

        inputs = tree.map_structure(tf.convert_to_tensor, self._inputs)
        dataset = self._tf_batches().map(
            lambda indices: tree.map_structure(
                lambda leaf: tf.gather(leaf, indices), inputs
            ),
            num_parallel_calls=2,
            deterministic=True,
        )
        return dataset.prefetch(2)
