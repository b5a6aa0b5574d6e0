"""Data of which each evaluation makes a new pass, brought to its next one.

Invariant: a state is taken between two passes, and tells how the next begins,
however far ahead of the evaluation the data was read. Keras calls
`data_adapter.on_epoch_end` once more before each pass; a state is put back
after that.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from colab_keras_bg.data.content import batch_hash
from colab_keras_bg.data.source import State
from colab_keras_bg.data.tf_iterator import RestartedIterators
from colab_keras_bg.data.torch_loader import LoaderGenerators
from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state import random_state
from colab_keras_bg.training_state.packed import Arrays, pack, unpack

__all__ = [
    "GeneratorPasses",
    "LoaderPasses",
    "OrderedPasses",
    "OwnStatePasses",
    "Passes",
    "StreamPasses",
    "TFDataPasses",
    "pass_over",
]

_PREFIX = "validation"
_START = f"{_PREFIX}/iterator_start"
_END = object()


class Passes(ABC):
    """The data of a `fit`'s evaluations."""

    def __init__(self, epoch_iterator: Any) -> None:
        """Takes Keras' iterator before its first pass.

        Args:
            epoch_iterator: The `EpochIterator` of the evaluations.
        """
        self._epoch_iterator = epoch_iterator
        self._adapter = epoch_iterator.data_adapter

    @abstractmethod
    def state(self) -> State:
        """How the next pass begins; to be asked between two.

        Returns:
            JSON values, and arrays by key, below `validation/`.
        """

    @abstractmethod
    def go_on_from(
        self,
        state: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """The next pass begins as it would have.

        Args:
            state: What `state` returned.
            arrays: Likewise.
        """

    @property
    def _consumed(self) -> int:
        """Batches that the pass just ended has used."""
        return int(self._epoch_iterator._steps_seen)


class OrderedPasses(Passes):
    """Our own data: the passes are counted."""

    def state(self) -> State:
        """See `Passes.state`."""
        return {"passes": self._adapter.epoch + 1}, {}

    def go_on_from(
        self,
        state: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """See `Passes.go_on_from`."""
        self._adapter.count_from(int(state["passes"]))


class StreamPasses(Passes):
    """An iterator with a state goes on behind what was used of it."""

    def state(self) -> State:
        """See `Passes.state`."""
        own = self._adapter.between
        if self._adapter.goes_on:
            own = self._adapter.state_after(self._consumed)
            self._adapter.start_from(own, 0)
        arrays: Arrays = {}
        return {"own": pack(own, _PREFIX, arrays)}, arrays

    def go_on_from(
        self,
        state: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """See `Passes.go_on_from`."""
        own = unpack(state["own"], arrays)
        if self._adapter.goes_on:
            self._adapter.start_from(own, 0)
        else:
            self._adapter.between = own


class OwnStatePasses(Passes):
    """A `PyDataset` with a state of its own."""

    def state(self) -> State:
        """See `Passes.state`."""
        arrays: Arrays = {}
        own = self._adapter.py_dataset.get_state()
        return {"own": pack(own, _PREFIX, arrays)}, arrays

    def go_on_from(
        self,
        state: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """See `Passes.go_on_from`."""
        self._adapter.py_dataset.set_state(unpack(state["own"], arrays))
        self._epoch_iterator.reset()  # As after the pass before.


class LoaderPasses(Passes):
    """A PyTorch `DataLoader`, with generators of its own or without."""

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Passes.__init__`."""
        super().__init__(epoch_iterator)
        self._generators = LoaderGenerators(self._adapter._dataloader)

    def state(self) -> State:
        """See `Passes.state`."""
        return {"generators": self._generators.states()}, {}

    def go_on_from(
        self,
        state: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """See `Passes.go_on_from`."""
        self._generators.set_states(state["generators"])


class TFDataPasses(Passes):
    """A `tf.data.Dataset` that comes in another order each time.

    Each pass follows the one before it in what the shuffles count, however
    many more orders were drawn ahead of the evaluation.
    """

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Passes.__init__`; from now on, iterators start through here."""
        super().__init__(epoch_iterator)
        held: Any = epoch_iterator
        name = "_distributed_dataset"  # TensorFlow's.
        if not hasattr(epoch_iterator, name):
            held, name = self._adapter, "_dataset"
        self._starts = RestartedIterators(getattr(held, name))
        setattr(held, name, self._starts)

    def state(self) -> State:
        """See `Passes.state`."""
        start = self._starts.last_start
        if start is None:
            return {}, {}
        return {}, {_START: np.frombuffer(start, dtype=np.uint8)}

    def go_on_from(
        self,
        state: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """See `Passes.go_on_from`."""
        if _START in arrays:
            self._starts.last_start = bytes(arrays[_START])


def pass_over(dataset: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Brings what a `tf.data.Dataset` counts to where a `TFDataPasses` was.

    Args:
        dataset: The dataset.
        arrays: What its `state` returned.
    """
    if _START in arrays:
        starts = RestartedIterators(dataset)
        starts.last_start = bytes(arrays[_START])
        starts.count_from_last()


class GeneratorPasses(Passes):
    """A Python generator, of which each pass takes some more batches.

    Keras begins each pass with the batches that it has looked at first. Those
    that were read ahead of an evaluation and not used come in the next one.
    """

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Passes.__init__`; from now on, batches pass through here."""
        super().__init__(epoch_iterator)
        rest = self._adapter.generator()
        self._first = [next(rest) for _ in self._adapter._first_batches]
        self._rest: Iterator[Any] = rest
        self._ahead: deque[tuple[int, Any, str]] = deque()
        self._taken = self._taken_before = 0
        self._hash = ""
        for batch in self._first:
            self._hash = batch_hash(batch, before=self._hash)
        self._start: Mapping[str, Any] = random_state.host_state()
        self._number = 0
        # An iterator of the pass before may still be reading.
        self._reading = threading.Lock()
        self._adapter.generator = self._batches

    def state(self) -> State:
        """See `Passes.state`."""
        with self._reading:
            self._number += 1
            self._drop(self._taken_before + self._consumed - len(self._first))
            taken = self._taken
        self._taken_before = taken
        return {"taken": taken, "hash": self._hash, "start": self._start}, {}

    def go_on_from(
        self,
        state: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """See `Passes.go_on_from`."""
        present = random_state.host_state()
        self._start = state["start"]
        random_state.set_host_state(self._start)
        for taken in range(1, int(state["taken"]) + 1):
            batch = next(self._rest, _END)
            if batch is _END:
                break
            self._hash = batch_hash(batch, before=self._hash)
            self._taken = self._taken_before = taken
        after = random_state.host_state()
        drawn_from = [
            name for name in after if after[name] != self._start[name]
        ]
        random_state.apply(present, but_for=drawn_from)
        if self._hash != state["hash"]:
            say(
                "the generator of the validation data did not yield again "
                "what it had yielded before: evaluations are not exact. Seed "
                "what it draws from with a generator of its own, or pass "
                "bg.data.stream(...) an object with get_state() and "
                "set_state(state)."
            )

    def _batches(self) -> Iterator[Any]:
        """A pass, from where the one before it was left."""
        with self._reading:
            self._number += 1
            mine, index = self._number, self._taken
        yield from self._first
        while True:
            with self._reading:
                if mine != self._number:
                    return
                begun = (
                    self._consumed - self._epoch_iterator.steps_per_execution
                )
                self._drop(self._taken_before + begun - len(self._first))
                found = self._at(index)
            if found is _END:
                return
            index += 1
            yield found

    def _at(self, index: int) -> Any:
        """The batch with this number, after the first ones."""
        for number, batch, _ in self._ahead:
            if number == index:
                return batch
        batch = next(self._rest, _END)
        if batch is not _END:
            before = self._ahead[-1][2] if self._ahead else self._hash
            so_far = batch_hash(batch, before=before)
            self._ahead.append((index, batch, so_far))
        return batch

    def _drop(self, used: int) -> None:
        """Lets go of the batches with numbers below this."""
        while self._ahead and self._ahead[0][0] < used:
            number, _, self._hash = self._ahead.popleft()
            self._taken = number + 1
