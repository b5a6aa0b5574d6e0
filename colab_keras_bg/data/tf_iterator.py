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

__all__ = ["ITERATOR", "TFIterator"]

ITERATOR = "data/iterator"
_LARGE_BYTES = 50 << 20


class TFIterator(Replay):
    """Arrays or a `tf.data.Dataset` on TensorFlow.

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
        self._said_large = False

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
        if len(state) > _LARGE_BYTES and not self._said_large:
            self._said_large = True
            say(
                f"the state of this tf.data pipeline takes "
                f"{len(state) >> 20} MB in each checkpoint, most of it its "
                "shuffle buffer: shuffle indices or file names instead"
            )
        return (
            {"kind": "tf.data iterator", "ahead": ahead is not None},
            {ITERATOR: np.frombuffer(state, dtype=np.uint8)},
        )

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        from colab_keras_bg.training_state import tensorflow as adapter

        if ITERATOR not in saved.tensors:
            super().put_back(iterator, saved)
            return
        keras_iterator = self._epoch_iterator
        subject = iterator or iter(keras_iterator._get_iterator())
        adapter.set_iterator_bytes(subject, bytes(saved.tensors[ITERATOR]))
        if iterator is None:
            self.last_iterator = subject
            if saved.state.get("ahead"):
                keras_iterator._current_iterator = subject
