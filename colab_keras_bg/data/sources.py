"""Going back to a position in whatever `fit` was given to train on.

Invariant: a source is asked for its state only between two batches, and is
put back before the first batch of the resumed epoch is drawn. How well that
can be done is the source's `guarantee`, said at the start.

From best to worst: random access (`arrays`), whose order is known for every
position; `tf.data`, by its iterator's state; anything else by replay: drawing
the batches again and dropping them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state import random_state

__all__ = [
    "ITERATOR",
    "NumPyOrder",
    "RandomAccess",
    "Replay",
    "Source",
    "State",
    "TFIterator",
    "source_of",
]

ITERATOR = "data/iterator"

State = tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]


class Source(ABC):
    """The data of one `fit`, as something that can be put back.

    Attributes:
        guarantee: How exactly it can be put back, in words.
        last_iterator: The iterator that `fit` last drew from.
    """

    guarantee: str

    def __init__(self, epoch_iterator: Any) -> None:
        """Takes Keras' epoch iterator.

        Args:
            epoch_iterator: The `EpochIterator` of the running `fit`.
        """
        self._epoch_iterator = epoch_iterator
        self.last_iterator: Any = None

    def describe(self) -> dict[str, Any]:
        """What decides the batches, as JSON values."""
        adapter = self._epoch_iterator.data_adapter
        return {
            "kind": type(adapter).__name__,
            "batches": adapter.num_batches,
            "batch_size": adapter.batch_size,
        }

    def epoch_begins(self, epoch: int, *, batch: int) -> None:  # noqa: B027 -
        # most sources need not know.
        """Told before each epoch where it starts.

        Args:
            epoch: The epoch, from 0.
            batch: Batches of it that are not to be trained again.
        """

    @abstractmethod
    def state(self, iterator: Any) -> State:
        """What is needed to go on from here.

        Args:
            iterator: The iterator in use; None between two epochs.

        Returns:
            JSON values, and arrays by key.
        """

    @abstractmethod
    def put_back(
        self,
        iterator: Any,
        state: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray[Any, Any]],
        *,
        batches: int,
    ) -> None:
        """Puts the iterator of the resumed epoch where it was.

        Args:
            iterator: The new iterator; None between two epochs.
            state: What `state` returned.
            tensors: Likewise.
            batches: How many batches of the epoch are consumed.
        """


class RandomAccess(Source):
    """An adapter that can start at any position, at no cost."""

    guarantee = "exact; the order is known for every position"

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        described: dict[str, Any] = self._epoch_iterator.data_adapter.describe()
        return described

    def epoch_begins(self, epoch: int, *, batch: int) -> None:
        """See `Source.epoch_begins`."""
        self._epoch_iterator.data_adapter.start_at(epoch, batch)

    def state(self, iterator: Any) -> State:
        """The position says it all."""
        return {"kind": "random access"}, {}

    def put_back(
        self,
        iterator: Any,
        state: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray[Any, Any]],
        *,
        batches: int,
    ) -> None:
        """The iterator was made at the right place."""


class Replay(Source):
    """Anything that gives the same batches again when asked again."""

    guarantee = (
        "exact if the data comes in the same order again: the batches of the "
        "interrupted epoch are drawn again and dropped"
    )

    def state(self, iterator: Any) -> State:
        """The position says it all."""
        return {"kind": "replay"}, {}

    def put_back(
        self,
        iterator: Any,
        state: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray[Any, Any]],
        *,
        batches: int,
    ) -> None:
        """Draws and drops."""
        if iterator is None or not batches:
            return
        say(f"drawing {batches} batches again to come to where the run was")
        for _ in range(batches):
            next(iterator)


class NumPyOrder(Source):
    """Arrays that Keras shuffles by NumPy's global state, as on JAX.

    The order is drawn when an iterator starts. So that state is kept, and to
    go back an iterator starts from it once more and leaves out what was
    consumed, without slicing a batch of it.
    """

    guarantee = "exact, by the random state at the epoch's begin"

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`; from now on, iterators go through here."""
        super().__init__(epoch_iterator)
        self._adapter = epoch_iterator.data_adapter
        self._start_state: dict[str, Any] | None = None
        self._to_leave_out = 0
        self._leaving_out = False
        # On the instance, which belongs to this one `fit`.
        self._make = self._adapter.get_jax_iterator
        self._adapter.get_jax_iterator = self._iterator
        original = self._adapter._get_iterator
        self._adapter._get_iterator = lambda fetch, inputs: original(
            lambda *args, **kwargs: (
                None if self._leaving_out else fetch(*args, **kwargs)
            ),
            inputs,
        )

    def state(self, iterator: Any) -> State:
        """See `Source.state`."""
        return {"kind": "NumPy order", "start": self._start_state}, {}

    def put_back(
        self,
        iterator: Any,
        state: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray[Any, Any]],
        *,
        batches: int,
    ) -> None:
        """See `Source.put_back`; the iterator is not started yet."""
        if not batches:
            return
        self._start_state, self._to_leave_out = state["start"], batches
        if iterator is None:  # It goes on across epochs.
            keras_iterator = self._epoch_iterator
            keras_iterator._current_iterator = iter(
                keras_iterator._get_iterator()
            )

    def _iterator(self) -> Iterator[Any]:
        leave_out, self._to_leave_out = self._to_leave_out, 0
        if not leave_out:
            self._start_state = random_state.numpy_state()
            yield from self._make()
            return
        present = random_state.numpy_state()
        random_state.set_numpy_state(self._start_state)
        batches = self._make()
        self._leaving_out = True
        for _ in range(leave_out):
            next(batches)
        self._leaving_out = False
        if self._adapter._shuffle != "batch":  # It draws for each batch.
            random_state.set_numpy_state(present)
        yield from batches


class TFIterator(Replay):
    """A `tf.data` pipeline, by its iterator's state.

    Between two epochs the state is that of the iterator which Keras made
    ahead, or else of the one that has just ended: it holds how many orders
    the pipeline's shuffle has given out.
    """

    guarantee = "exact, by the state of the tf.data iterator"

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        # Keras shuffles within batches by a random operation, whose state
        # is not part of the iterator's; a new iterator repeats it.
        adapter = epoch_iterator.data_adapter
        self._refused = getattr(adapter, "_shuffle", None) == "batch"

    def state(self, iterator: Any) -> State:
        """See `Source.state`."""
        from colab_keras_bg.training_state import tensorflow as adapter

        ahead = self._epoch_iterator._current_iterator
        subject = iterator or ahead or self.last_iterator
        if subject is None or self._refused:
            return super().state(iterator)
        try:
            state = adapter.iterator_bytes(subject)
        except ValueError as error:
            self._refused = True
            say(
                f"the state of this tf.data pipeline cannot be saved ({error});"
                " to continue, its batches will be drawn again and dropped, "
                "which is exact only if they come in the same order again. "
                "bg.data.arrays(...) is exact at no cost."
            )
            return super().state(iterator)
        return (
            {"kind": "tf.data iterator", "ahead": ahead is not None},
            {ITERATOR: np.frombuffer(state, dtype=np.uint8)},
        )

    def put_back(
        self,
        iterator: Any,
        state: Mapping[str, Any],
        tensors: Mapping[str, np.ndarray[Any, Any]],
        *,
        batches: int,
    ) -> None:
        """See `Source.put_back`."""
        from colab_keras_bg.training_state import tensorflow as adapter

        if ITERATOR not in tensors:
            super().put_back(iterator, state, tensors, batches=batches)
            return
        keras_iterator = self._epoch_iterator
        subject = iterator or iter(keras_iterator._get_iterator())
        adapter.set_iterator_bytes(subject, bytes(tensors[ITERATOR]))
        if iterator is None:
            self.last_iterator = subject
            if state.get("ahead"):
                keras_iterator._current_iterator = subject


def source_of(epoch_iterator: Any) -> Source:
    """The best way to go back in what `fit` was given."""
    adapter = epoch_iterator.data_adapter
    if hasattr(adapter, "start_at"):
        return RandomAccess(epoch_iterator)
    if hasattr(epoch_iterator, "_distributed_dataset"):
        return TFIterator(epoch_iterator)
    if type(adapter).__name__ == "ArrayDataAdapter" and _backend() == "jax":
        return NumPyOrder(epoch_iterator)
    return Replay(epoch_iterator)


def _backend() -> str:
    import keras

    backend: str = keras.backend.backend()
    return backend
