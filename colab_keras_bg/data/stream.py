"""Batches from an iterator that can say where it is and go back there.

Invariant: the state kept for a position is the one that the iterator had
right after the batch before it, however far ahead of the training it is read.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.trainers.data_adapters.generator_data_adapter import (
    GeneratorDataAdapter,
)

from colab_keras_bg.data.source import Saved, Source, State
from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state.packed import Arrays, pack, unpack

__all__ = ["OwnState", "StreamAdapter", "stream"]

_PREFIX = "data/own"
# Batches that may be read ahead of the training: tf.data's prefetch chooses.
_STATES_KEPT = 2048
_END = object()


def stream(batches: Iterable[Any]) -> StreamAdapter:
    """An iterator of batches that is gone back to by its own state.

    Pass the result to `model.fit` in place of `x`.

    Args:
        batches: An iterator with `get_state()` and `set_state(state)`, or an
            iterable that makes a new one for each epoch. A state is made of
            numbers, text, bytes, arrays, and lists and dicts of them; it
            tells how the iterator goes on after the batches given so far. A
            batch is what `fit` takes from a generator: `(x, y)` or `(x, y,
            sample_weight)`.

    Returns:
        A Keras data adapter, for one `fit`.

    Raises:
        UsageError: If the iterator lacks one of the two methods, or is empty.

    Example:
        ```python
        class Shards:
            def __init__(self):
                self.number = 0

            def __iter__(self):
                return self

            def __next__(self):
                self.number += 1
                return load_shard(self.number - 1)

            def get_state(self):
                return {"number": self.number}

            def set_state(self, state):
                self.number = state["number"]


        model.fit(bg.data.stream(Shards()), steps_per_epoch=100, epochs=5)
        ```
    """
    return StreamAdapter(batches, kind="stream")


class StreamAdapter(GeneratorDataAdapter):
    """What `stream` returns: Keras' adapter of generators, and a position."""

    def __init__(self, batches: Iterable[Any], *, kind: str) -> None:
        """Looks at the first batches, and goes back before them.

        Args:
            batches: See `stream`.
            kind: What it is, for the fingerprint.
        """
        first: Any = iter(batches)
        if not _has_state(first):
            raise UsageError(
                "A stream's iterator needs get_state() and set_state(state); "
                f"{type(first).__name__} lacks them. Pass a generator to "
                "`fit` as it is: it is replayed; and samples in a list to "
                "bg.data.indexed(...)."
            )
        origin = first.get_state()
        looked_at = list(
            itertools.islice(
                first, data_adapter_utils.NUM_BATCHES_FOR_TENSOR_SPEC
            )
        )
        if not looked_at:
            raise UsageError("A stream needs at least one batch; it has none.")
        first.set_state(origin)
        self._iterable: Any = batches
        self._kind = kind
        self._is_one_iterator = first is batches
        # An iterator must not have moved when Keras has looked at a batch
        # before the training.
        self._origin = origin if first is batches else None
        self._go_on_at: tuple[Any, int] | None = None
        self._states: OrderedDict[int, Any] = OrderedDict()
        self._first_batches = [_as_tuple(batch) for batch in looked_at]
        self._output_signature = None
        self.generator = self._batches

    def describe(self) -> dict[str, Any]:
        """What decides the batches, as JSON values."""
        return {"kind": self._kind}

    def start_from(self, state: Any, drawn: int) -> None:
        """The next iterator made goes on from here.

        Args:
            state: What `state_after` returned.
            drawn: Batches of the iterator that are consumed.
        """
        self._go_on_at = (state, drawn)

    def state_after(self, drawn: int) -> Any:
        """The iterator's state after so many batches of it.

        Args:
            drawn: Batches of the iterator in use that are consumed; if there
                were fewer, after the last.

        Raises:
            KeyError: If it is not known (more than 2,048 batches read ahead).
        """
        return self._states[min(drawn, max(self._states))]

    @property
    def goes_on(self) -> bool:
        """Whether it is one iterator, which does not begin anew."""
        return self._is_one_iterator

    @property
    def between(self) -> Any:
        """The state between two epochs of what makes the iterators, if any."""
        if _has_state(self._iterable):
            return self._iterable.get_state()
        return None

    @between.setter
    def between(self, state: Any) -> None:
        if state is not None and _has_state(self._iterable):
            self._iterable.set_state(state)

    def on_epoch_end(self) -> None:
        """Keras calls it after each epoch, and once before the first."""
        self.between, self._origin = self._origin, None

    def _batches(self) -> Iterator[Any]:
        iterator: Any = iter(self._iterable)
        drawn = 0
        if self._go_on_at is not None:
            (state, drawn), self._go_on_at = self._go_on_at, None
            iterator = self._gone_to(iterator, state, drawn)
        states = OrderedDict({drawn: iterator.get_state()})
        self._states = states
        # Not `for`, which asks for an iterator once more: its `__iter__` may
        # begin anew.
        while (batch := next(iterator, _END)) is not _END:
            drawn += 1
            states[drawn] = iterator.get_state()
            if len(states) > _STATES_KEPT:
                states.popitem(last=False)
            yield _as_tuple(batch)

    def _gone_to(self, iterator: Any, state: Any, drawn: int) -> Any:
        """The iterator at a state, or else after so many batches."""
        try:
            iterator.set_state(state)
        except Exception as error:  # noqa: BLE001 - others' code, and said
            say(
                f"the data did not take its state back ({error}): "
                f"{drawn} batches are drawn again and dropped, which is exact "
                "if they come in the same order again"
            )
            iterator = iter(self._iterable)
            for _ in range(drawn):
                next(iterator)
        return iterator


class OwnState(Source):
    """A stream, or a Grain pipeline, by its iterator's own state."""

    guarantee = "at no cost: by the iterator's own state"

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        self._adapter = epoch_iterator.data_adapter

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        described: dict[str, Any] = self._adapter.describe()
        return described

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        if saved is not None and not saved.between:
            self._start(saved)

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`."""
        arrays: Arrays = {}
        state: dict[str, Any] = {"kind": "own state"}
        goes_on = self._epoch_iterator.steps_per_epoch is not None
        if iterator is not None or goes_on:
            own = self._adapter.state_after(drawn)
            state["own"] = pack(own, _PREFIX, arrays)
        else:
            between = self._adapter.between
            state["between"] = pack(between, _PREFIX, arrays)
        return state, arrays

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`; in an epoch's middle it was put back."""
        if iterator is not None:
            return
        if "own" in saved.state:
            self._start(saved)
            keras_iterator = self._epoch_iterator
            keras_iterator._current_iterator = iter(
                keras_iterator._get_iterator()
            )
        else:
            between = saved.state.get("between")
            self._adapter.between = unpack(between, saved.tensors)

    def _start(self, saved: Saved) -> None:
        if "own" in saved.state:
            own = unpack(saved.state["own"], saved.tensors)
            self._adapter.start_from(own, saved.drawn)


def _has_state(value: Any) -> bool:
    return all(
        callable(getattr(value, method, None))
        for method in ("get_state", "set_state")
    )


def _as_tuple(batch: Any) -> Any:
    return tuple(batch) if isinstance(batch, list) else batch
