"""Samples that are loaded by their numbers, in an order that is known.

Invariant: the batch at (epoch, index) is what the user's function returns for
its numbers; it is called for no batch that was consumed before, and what it
returns reaches `fit` in the order, however many threads call it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from colab_keras_bg.data.class_weights import weighted
from colab_keras_bg.data.content import described_arrays
from colab_keras_bg.data.ordered import Indices, OrderedAdapter, whole
from colab_keras_bg.errors import UsageError

__all__ = ["IndexedAdapter", "indexed"]


def indexed(
    source: Callable[[Indices], Any] | Sequence[Any],
    *,
    samples: int | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
    workers: int = 2,
    class_weight: Mapping[int, float] | None = None,
) -> IndexedAdapter:
    """Samples by number, too many for memory, in an order to go back to.

    Pass the result to `model.fit` in place of `x`. The order is new in every
    epoch, the same on every backend, and continuing in the middle of an epoch
    loads nothing that was consumed.

    Args:
        source: A function that is given the numbers of a batch's samples, an
            int64 array of shape `(batch_size,)`, and returns the batch: what
            `fit` takes, `(x, y)` or `(x, y, sample_weight)`, each an array
            whose first axis is the batch, or a nested dict, list or tuple of
            such arrays. Or a sequence of samples, `source[i]`, each the same
            without the first axis; they are stacked. It is called in several
            threads at once.
        samples: How many there are; `len(source)` if None.
        batch_size: Samples a batch; the last of an epoch may have fewer.
        shuffle: Whether to shuffle anew every epoch.
        seed: The order's seed, from 0 to 2**63 - 1.
        workers: Threads that load, each one batch ahead; 0 to load in the
            thread that trains.
        class_weight: The weight of each class in `y`, where the batches are
            `(x, y)`, as in `fit`.

    Returns:
        A Keras data adapter, for one `fit`.

    Raises:
        UsageError: If an argument cannot be meant, or the first batch is not
            made of arrays of its samples.

    Example:
        ```python
        def load(indices):
            return np.stack([read_image(files[i]) for i in indices]), y[indices]


        data = bg.data.indexed(load, samples=len(files), batch_size=32, seed=1)
        model.fit(data, epochs=5, callbacks=bg.unattended("runs/a"))
        ```
    """
    return IndexedAdapter(
        source,
        samples=samples,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        workers=workers,
        class_weight=class_weight,
    )


class IndexedAdapter(OrderedAdapter):
    """What `indexed` returns."""

    def __init__(
        self,
        source: Any,
        *,
        samples: int | None,
        batch_size: int,
        shuffle: bool,
        seed: int,
        workers: int,
        class_weight: Mapping[int, float] | None,
    ) -> None:
        """See `indexed`."""
        self._class_weight = class_weight
        self._load = source if callable(source) else _stacking(source)
        if samples is None:
            samples = _length_of(source)
        for name, value, least in (
            ("samples", samples, 1),
            ("workers", workers, 0),
        ):
            if not whole(value) or value < least:
                raise UsageError(
                    f"{name}={value!r}: give a whole number, {least} or more."
                )
        super().__init__(
            int(samples), batch_size=batch_size, shuffle=shuffle, seed=seed
        )
        self._workers = int(workers)
        count = min(self._batch_size, samples)
        self._first = self._loaded(np.arange(count, dtype=np.int64))

    def describe(self) -> dict[str, Any]:
        """What decides the batches, as far as the first samples tell."""
        return {
            "kind": "indexed",
            **super().describe(),
            "first_samples": described_arrays(self._first),
        }

    def get_numpy_iterator(self) -> Iterator[Any]:
        """The batches from the present position to the epoch's end."""
        if not self._workers:
            yield from map(self._loaded, self._batches())
            return
        with ThreadPoolExecutor(self._workers, "indexed") as pool:
            ahead: deque[Future[Any]] = deque()
            try:
                for indices in self._batches():
                    ahead.append(pool.submit(self._loaded, indices))
                    if len(ahead) > self._workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def get_tf_dataset(self) -> Any:
        """The batches as a `tf.data.Dataset`, read anew at each iteration."""
        import tensorflow as tf
        from keras import tree

        leaves = tree.flatten(self._first)

        def load(indices: Any) -> Any:
            values = tf.numpy_function(
                lambda numbers: tree.flatten(self._loaded(numbers)),
                [indices],
                [leaf.dtype for leaf in leaves],
                stateful=False,
            )
            for value, leaf in zip(values, leaves, strict=True):
                value.set_shape([None, *leaf.shape[1:]])
            return tree.pack_sequence_as(self._first, values)

        dataset = self._tf_batches().map(
            load,
            num_parallel_calls=max(1, self._workers),
            deterministic=True,
        )
        return dataset.prefetch(2)

    def _loaded(self, indices: Indices) -> Any:
        """A batch, checked: a tuple of arrays of as many samples."""
        from keras import tree

        batch = self._load(indices)
        batch = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        while len(batch) > 1 and batch[-1] is None:
            batch = batch[:-1]
        batch = tree.map_structure(np.asarray, batch)
        for leaf in tree.flatten(batch):
            if leaf.ndim < 1 or len(leaf) != len(indices):
                raise UsageError(
                    f"For {len(indices)} samples, bg.data.indexed needs "
                    "arrays with a first axis of that length; there was one "
                    f"of shape {leaf.shape}."
                )
        return weighted(batch, self._class_weight)


def _stacking(source: Any) -> Callable[[Indices], Any]:
    """Makes of a sequence of samples a function that returns batches."""

    def load(indices: Indices) -> Any:
        from keras import tree

        samples = [source[int(index)] for index in indices]
        return tree.map_structure(lambda *leaves: np.stack(leaves), *samples)

    return load


def _length_of(source: Any) -> Any:
    try:
        return len(source)
    except TypeError:
        raise UsageError(
            "bg.data.indexed needs samples=..., as len(source) is not known."
        ) from None
