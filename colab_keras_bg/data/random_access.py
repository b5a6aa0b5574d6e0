"""Data of which any batch can be had at once.

Invariant: going back loads no batch that was consumed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from colab_keras_bg.data.source import Saved, Source, State
from colab_keras_bg.training_state import random_state

__all__ = ["ORDER", "KnownOrder", "NumPyOrder", "PyDatasetOrder"]

ORDER = "data/order"


class KnownOrder(Source):
    """An adapter of ours: the order is known for every position."""

    guarantee = "exact, at no cost: the order is known for every position"

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        described: dict[str, Any] = self._epoch_iterator.data_adapter.describe()
        return described

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        batch = saved.batch if saved else 0
        self._epoch_iterator.data_adapter.start_at(epoch, batch)

    def state(self, iterator: Any) -> State:
        """The position says it all."""
        return {"kind": "known order"}, {}

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """The iterator was made at the right place."""


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

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`; the iterator is not started yet."""
        if not saved.drawn:
            return
        self._start_state = saved.state["start"]
        self._to_leave_out = saved.drawn
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


class PyDatasetOrder(Source):
    """A `keras.utils.PyDataset` of known length, with workers or without.

    Keras shuffles the batches' numbers by Python's global state, in whatever
    thread produces them. Here the same draw is made in the training thread,
    and Keras is given what is left of that order.
    """

    guarantee = "exact, at no cost: the order of the batches is kept"

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`; from now on, Keras sees what is left."""
        super().__init__(epoch_iterator)
        self._adapter = epoch_iterator.data_adapter
        self._dataset = self._adapter.py_dataset
        self._shuffle = bool(self._adapter.shuffle)
        self._order: list[int] = []

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        if saved is not None and ORDER in saved.tensors:
            self._order = [int(i) for i in saved.tensors[ORDER]]
            batch = saved.batch
        else:
            self._order, batch = list(range(self._dataset.num_batches)), 0
            if self._shuffle:
                random.shuffle(self._order)
        rest = _Rest(self._dataset, self._order[batch:])
        self._adapter.py_dataset = rest
        self._adapter.shuffle = False
        enqueuer = self._adapter.enqueuer
        if enqueuer is not None:
            enqueuer.py_dataset = rest
            enqueuer.shuffle = False
            while not enqueuer.ready_queue.empty():
                enqueuer.ready_queue.get()  # Of a look before the training.

    def state(self, iterator: Any) -> State:
        """See `Source.state`; a dataset may have a state of its own."""
        state: dict[str, Any] = {"kind": "PyDataset order"}
        if hasattr(self._dataset, "get_state"):
            state["own"] = self._dataset.get_state()
        if iterator is None:
            return state, {}
        return state, {ORDER: np.asarray(self._order, dtype=np.int64)}

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`; the order was put back before."""
        if "own" in saved.state and hasattr(self._dataset, "set_state"):
            self._dataset.set_state(saved.state["own"])


class _Rest:
    """What is left of an epoch of a `PyDataset`, as one."""

    def __init__(self, dataset: Any, order: Sequence[int]) -> None:
        self._dataset = dataset
        self._order = order

    @property
    def num_batches(self) -> int:
        return len(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[self._order[index]]

    def on_epoch_begin(self) -> None:
        self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._dataset.on_epoch_end()
