"""A `tf.data` pipeline, by its iterator's state.

Invariant: a state is saved only if TensorFlow vouches that it is whole;
otherwise the pipeline is replayed, and that is said once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from colab_keras_bg.data.replay import Replay
from colab_keras_bg.data.source import Saved, State
from colab_keras_bg.journal.announce import say

__all__ = ["EPOCH_START", "ITERATOR", "TFIterator"]

ITERATOR = "data/iterator"
EPOCH_START = "data/epoch_start"
_LARGE_BYTES = 50 << 20


class TFIterator(Replay):
    """Arrays or a `tf.data.Dataset` on TensorFlow.

    Between two epochs the state is that of the iterator which Keras made
    ahead, if it did. How many orders the pipeline's shuffle has given out is
    kept from the epoch's start.
    """

    guarantee = "exact, by the state of the tf.data iterator"

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        # Keras shuffles within batches by a random operation, whose state
        # is not part of the iterator's; a new iterator repeats it.
        adapter = epoch_iterator.data_adapter
        self._refused = getattr(adapter, "_shuffle", None) == "batch"
        self._said_large = False
        self._epoch_start: bytes | None = None

    def epoch_starts(self, iterator: Any) -> None:
        """Keeps how many orders were given out, while that can be seen.

        Once a shuffle has come to the end of its input, TensorFlow leaves it
        out of the state.
        """
        self._epoch_start = None
        if self._epoch_iterator.steps_per_epoch is None:
            self._epoch_start = self._bytes_of(iterator)

    def state(self, iterator: Any) -> State:
        """See `Source.state`."""
        ahead = self._epoch_iterator._current_iterator
        state = self._bytes_of(iterator or ahead)
        if self._refused:
            return super().state(iterator)
        found = {ITERATOR: state, EPOCH_START: self._epoch_start}
        return (
            {"kind": "tf.data iterator"},
            {
                key: np.frombuffer(value, dtype=np.uint8)
                for key, value in found.items()
                if value is not None
            },
        )

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        from colab_keras_bg.training_state import tensorflow as adapter

        if saved.state.get("kind") != "tf.data iterator":
            super().put_back(iterator, saved)
            return
        keras_iterator = self._epoch_iterator
        if ITERATOR in saved.tensors:
            subject = iterator or iter(keras_iterator._get_iterator())
            adapter.set_iterator_bytes(subject, bytes(saved.tensors[ITERATOR]))
            if iterator is None:  # It was made ahead, and tells it all.
                keras_iterator._current_iterator = subject
                return
        if EPOCH_START in saved.tensors:
            # On an iterator that nobody draws from: it puts back how many
            # orders were given out, which all iterators share.
            self._epoch_start = bytes(saved.tensors[EPOCH_START])
            other = iter(keras_iterator._get_iterator())
            adapter.set_iterator_bytes(other, self._epoch_start)

    def _bytes_of(self, iterator: Any) -> bytes | None:
        from colab_keras_bg.training_state import tensorflow as adapter

        if iterator is None or self._refused:
            return None
        try:
            state = adapter.iterator_bytes(iterator)
        except ValueError as error:
            self._refused = True
            say(
                f"the state of this tf.data pipeline cannot be saved ({error});"
                " to continue, its batches will be drawn again and dropped, "
                "which is exact only if they come in the same order again. "
                "bg.data.arrays(...) is exact at no cost."
            )
            return None
        if len(state) > _LARGE_BYTES and not self._said_large:
            self._said_large = True
            say(
                f"the state of this tf.data pipeline takes "
                f"{len(state) >> 20} MB in each checkpoint, most of it its "
                "shuffle buffer: shuffle indices or file names instead"
            )
        return state
