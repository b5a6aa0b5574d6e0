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
from collections.abc import Mapping
from typing import Any

import numpy as np

from colab_keras_bg.journal.announce import say

__all__ = ["Source", "source_of"]

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

    def epoch_begins(self, epoch: int, *, batch: int) -> None:
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
        self._refused = False

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
    return Replay(epoch_iterator)
