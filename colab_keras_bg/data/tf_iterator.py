"""A `tf.data` pipeline, by its iterator's state.

Invariant: a state is saved only if TensorFlow vouches that it is whole;
otherwise the pipeline is replayed, and that is said once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from colab_keras_bg.data.replay import ArraysReplay, Replay
from colab_keras_bg.data.source import Saved, State
from colab_keras_bg.journal.announce import say

__all__ = [
    "ITERATOR",
    "START",
    "RestartedIterators",
    "TFDataElsewhere",
    "TFIterator",
]

ITERATOR = "data/iterator"
START = "data/iterator_start"
# The state at the start of the pass that filled a cache.
_FILLED = "data/iterator_of_cache"
# In a state: what a cache in memory holds follows.
_CACHE = b"cache_completed"
_LARGE_BYTES = 50 << 20


class TFIterator(Replay):
    """Arrays or a `tf.data.Dataset` on TensorFlow.

    Between two epochs the state is that of the iterator which Keras made
    ahead, if it did.
    """

    exact = True
    guarantee = "by the state of the tf.data iterator"
    _counts_iterators = True

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        # Keras shuffles within batches by a random operation, whose state
        # is not part of the iterator's; a new iterator repeats it.
        adapter = epoch_iterator.data_adapter
        self._refused = getattr(adapter, "_shuffle", None) == "batch"
        if self._refused:
            self.guarantee = ArraysReplay.guarantee
        self._said_large = False
        self._first_state: bytes | None = None
        self._seen: Any = None
        # A cache in memory may hold an order that only its first pass had.
        self._caches = _caches_an_order(getattr(adapter, "_dataset", None))
        self._filled_from: bytes | None = None

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        super().epoch_begins(epoch, saved)
        if saved is not None and _FILLED in saved.tensors:
            self._filled_from = bytes(saved.tensors[_FILLED])

    def pass_by(self, saved: Saved) -> None:
        """See `Source.pass_by`; a shuffle's count is shared by all."""
        self.put_back(None, saved)

    def epoch_starts(self, iterator: Any) -> None:
        """Keeps the state of an iterator from which nothing was drawn yet."""
        if iterator is not self._seen:
            self._seen = iterator
            self._first_state = self._bytes_of(iterator)
            if self._caches and self._filled_from is None:
                self._filled_from = self._first_state

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`.

        Once a shuffle has come to the end of its input, TensorFlow leaves it
        out of the state, and with it how many orders it has given out. Then
        the start is kept, too; or alone, if more orders may have been given
        out since: going back then draws again from there. Likewise if what a
        cache holds was left out, since the cache has been read to its end.
        """
        ahead = self._epoch_iterator._current_iterator
        subject = iterator or ahead
        state = self._bytes_of(subject)
        if self._refused:
            return super().state(iterator, drawn=drawn)
        start, use = self._first_state, "iterator"
        if start is not None and _shuffles(state) < _shuffles(start):
            drawn_from = subject is not None
            anew = self._repeats(start) or (
                self._caches and iterator is not None
            )
            use = "draw" if drawn_from and anew else "both"
        elif self._caches and iterator is not None:
            lost = state and start and _CACHE in start and _CACHE not in state
            use = "draw" if lost else use
        # The start goes along in any case: the next attempt may need it.
        found = {
            ITERATOR: state if use != "draw" else None,
            START: start,
            _FILLED: self._filled_from,
        }
        return (
            {"kind": "tf.data iterator", "use": use},
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
        state, start = saved.tensors.get(ITERATOR), saved.tensors.get(START)
        use = saved.state["use"]
        if iterator is None and _FILLED in saved.tensors:
            self._set_count(start, use)  # Now: later it would empty the cache.
            first = iter(self._make_iterable())
            _fill_cache(first, bytes(saved.tensors[_FILLED]))
            use = use.replace("both", "iterator")
        subject = iterator or iter(keras_iterator._get_iterator())
        if state is not None:
            adapter.set_iterator_bytes(subject, bytes(state))
        if start is not None:
            self._first_state, self._seen = bytes(start), subject
        self._set_count(start, use)
        if use == "draw" and self._first_state is not None:
            adapter.set_iterator_bytes(subject, self._first_state)
            self._draw_again(subject, saved.drawn)
        if iterator is None and (state is not None or use == "draw"):
            keras_iterator._current_iterator = subject

    def _set_count(self, start: Any, use: str) -> None:
        """Puts back how many orders were given out, where that is needed.

        All iterators share it. It is set on one that nobody draws from.
        """
        from colab_keras_bg.training_state import tensorflow as adapter

        if use == "both" and start is not None:
            other = iter(self._make_iterable())
            adapter.set_iterator_bytes(other, bytes(start))

    def _repeats(self, start: bytes) -> bool:
        """Whether a shuffle may begin anew in the life of one iterator."""
        given = self._epoch_iterator.steps_per_epoch
        return given is not None or b"Repeat" in start

    def _bytes_of(self, iterator: Any) -> bytes | None:
        if iterator is None or self._refused:
            return None
        state = _state_of(iterator)
        self._refused = state is None
        if state and len(state) > _LARGE_BYTES and not self._said_large:
            self._said_large = True
            say(
                f"the state of this tf.data pipeline takes "
                f"{len(state) >> 20} MB in each checkpoint, most of it its "
                "shuffle buffer: shuffle numbers or file names instead, or "
                "use bg.data.indexed(...)"
            )
        return state


class TFDataElsewhere(Replay):
    """A `tf.data.Dataset` on a backend other than TensorFlow.

    Batches are read ahead there, so it is the state at the iterator's start
    that is kept, and batches are drawn again from it.
    """

    exact = True
    guarantee = (
        "by the state of the tf.data iterator at its start, from which "
        "the batches of the interrupted epoch are drawn again and dropped"
    )

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`; from now on, iterators start through here."""
        super().__init__(epoch_iterator)
        adapter = epoch_iterator.data_adapter
        self._starts = _Starts(adapter._dataset)
        adapter._dataset = self._starts  # The adapter is this one `fit`'s.

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        super().epoch_begins(epoch, saved)
        if saved is not None and not saved.between:
            self._starts.fill_cache(saved)
            self._starts.next_start = _start_in(saved)
            if self._starts.next_start is None:
                self._starts.count_up_to(int(saved.state["started"]) - 1)

    def pass_by(self, saved: Saved) -> None:
        """See `Source.pass_by`; a shuffle's count is shared by all."""
        self.put_back(None, saved)

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`."""
        state, arrays = super().state(iterator, drawn=drawn)
        if self._starts.last_start is not None:
            start = np.frombuffer(self._starts.last_start, dtype=np.uint8)
            arrays[START] = start
        if self._starts.filled_from is not None:
            filled = np.frombuffer(self._starts.filled_from, dtype=np.uint8)
            arrays[_FILLED] = filled
        started = {"kind": "tf.data start", "started": self._starts.made}
        return {**state, **started}, arrays

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        if iterator is None:
            self._starts.fill_cache(saved)
            start, filled = _start_in(saved), self._starts.filled_from
            if start is None:
                self._starts.count_up_to(int(saved.state["started"]))
            elif start != filled:  # Else it was drawn from to its end.
                self._starts.next_start = start
                goes_on = self._epoch_iterator.steps_per_epoch
                if not (saved.drawn and goes_on):
                    # What a shuffle counts goes on from that start's.
                    next(iter(self._starts), None)
        super().put_back(iterator, saved)


class _Starts:
    """A dataset whose iterators' states are kept as they start."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._refused = False
        self.next_start: bytes | None = None
        self.last_start: bytes | None = None
        self._caches = _caches_an_order(dataset)
        self.filled_from: bytes | None = None
        self.made = 0

    def count_up_to(self, made: int) -> None:
        while self.made < made:
            self.made += 1
            iter(self._dataset)

    def fill_cache(self, saved: Saved) -> None:
        if _FILLED not in saved.tensors:
            return
        self.filled_from = bytes(saved.tensors[_FILLED])
        if saved.between or _start_in(saved) != self.filled_from:
            _fill_cache(iter(self._dataset), self.filled_from)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __iter__(self) -> Any:
        from colab_keras_bg.training_state import tensorflow as adapter

        iterator = iter(self._dataset)
        self.made += 1
        start, self.next_start = self.next_start, None
        if start is not None:
            adapter.set_iterator_bytes(iterator, start)
            self.last_start = start
        elif not self._refused:
            self.last_start = _state_of(iterator)
            self._refused = self.last_start is None
        if self._caches and self.filled_from is None:
            self.filled_from = self.last_start
        return iterator


class RestartedIterators:
    """A dataset each of whose iterators follows the one made before it.

    How many orders a shuffle has given out, which all iterators share, is
    what it was when the last one started: nothing that was read of it, or
    ahead of it, counts.

    Attributes:
        last_start: The state at its start of the iterator made last; None if
            there was none, or it has no state to save.
    """

    def __init__(self, dataset: Any) -> None:
        """Takes the dataset."""
        self._dataset = dataset
        self.last_start: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        """Anything else is the dataset's."""
        return getattr(self._dataset, name)

    def __iter__(self) -> Any:
        """A new iterator."""
        from colab_keras_bg.training_state import tensorflow as adapter

        self.count_from_last()
        iterator = iter(self._dataset)
        try:
            self.last_start = adapter.iterator_bytes(iterator)
        except ValueError:
            self.last_start = None
        return iterator

    def count_from_last(self) -> None:
        """Sets what the shuffles count to what it was at the last start."""
        from colab_keras_bg.training_state import tensorflow as adapter

        if self.last_start is not None:
            before = iter(self._dataset)
            adapter.set_iterator_bytes(before, self.last_start)


def _caches_an_order(dataset: Any) -> bool:
    """Whether a cache in memory may hold what only its first pass had."""
    from colab_keras_bg.training_state import tensorflow as adapter

    if not hasattr(dataset, "_variant_tensor"):
        return False
    graph = adapter.graph_bytes(dataset)
    return b"CacheDataset" in graph and (
        b"Shuffle" in graph or b"Random" in graph
    )


def _fill_cache(iterator: Any, start: bytes) -> None:
    """Fills the cache of a pipeline as its first pass did.

    Args:
        iterator: A new iterator, of which all is drawn.
        start: The state of that pass' iterator at its start.
    """
    from colab_keras_bg.training_state import tensorflow as adapter

    say("filling the cache of the tf.data pipeline as it was filled before")
    adapter.set_iterator_bytes(iterator, start)
    for _ in iterator:
        pass


def _start_in(saved: Saved) -> bytes | None:
    return bytes(saved.tensors[START]) if START in saved.tensors else None


def _state_of(iterator: Any) -> bytes | None:
    """The state of an iterator; None, and said, if there is none to have."""
    from colab_keras_bg.training_state import tensorflow as adapter

    try:
        return adapter.iterator_bytes(iterator)
    except ValueError as error:
        say(
            f"the state of this tf.data pipeline cannot be saved ({error}); "
            "to continue, its batches will be drawn again and dropped, "
            "which is exact only if they come in the same order again. "
            "bg.data.arrays(...) and bg.data.indexed(...) are exact at no "
            "cost."
        )
        return None


def _shuffles(state: bytes | None) -> int:
    """How many shuffles tell in a state how many orders they gave out."""
    return 0 if state is None else state.count(b"epoch_num_random_samples")
