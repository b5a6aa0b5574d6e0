"""Data of which any batch can be had at once.

Invariant: going back loads no batch that was consumed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from colab_keras_bg.data.source import Saved, Source, State
from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state import random_state
from colab_keras_bg.training_state.packed import Arrays, pack, unpack

__all__ = [
    "ORDER",
    "EndlessPyDataset",
    "KnownOrder",
    "NumPyOrder",
    "PyDatasetOrder",
]

ORDER = "data/order"
_OWN = "data/own"


class KnownOrder(Source):
    """An adapter of ours: the order is known for every position."""

    guarantee = "at no cost: the order is known for every position"
    _pass = 0

    def describe(self) -> dict[str, Any]:
        """See `Source.describe`."""
        described: dict[str, Any] = self._epoch_iterator.data_adapter.describe()
        return described

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        keras_iterator = self._epoch_iterator
        if self._goes_on:
            return
        self._pass, batch = epoch, 0
        if saved is not None and keras_iterator.steps_per_epoch is None:
            batch = saved.batch
        elif saved is not None and saved.drawn:
            self._pass, batch = int(saved.state["pass"]), saved.drawn
        keras_iterator.data_adapter.start_at(self._pass, batch)

    def state(self, iterator: Any, *, drawn: int) -> State:
        """With `steps_per_epoch`, a pass over the data goes across epochs."""
        return {"kind": "known order", "pass": self._pass}, {}

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """In an epoch's middle, the iterator was made at the right place."""
        keras_iterator = self._epoch_iterator
        if iterator is None and keras_iterator.steps_per_epoch:
            keras_iterator._current_iterator = iter(
                keras_iterator._get_iterator()
            )


class NumPyOrder(Source):
    """Arrays that Keras shuffles by NumPy's global state, as on JAX.

    The order is drawn when an iterator starts. So that state is kept, and to
    go back an iterator starts from it once more and leaves out what was
    consumed, without slicing a batch of it.
    """

    guarantee = (
        "by the random state at the epoch's begin; no batch is sliced again"
    )

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

    def state(self, iterator: Any, *, drawn: int) -> State:
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


class _PyDatasetSource(Source):
    """A `keras.utils.PyDataset`, and the state of its own that it may have."""

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        self._adapter = epoch_iterator.data_adapter
        self._dataset = self._adapter.py_dataset
        self._say_if_it_changes()

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`; a dataset may have a state of its own."""
        state: dict[str, Any] = {"kind": "PyDataset"}
        arrays: Arrays = {}
        if hasattr(self._dataset, "get_state"):
            state["own"] = pack(self._dataset.get_state(), _OWN, arrays)
        return state, arrays

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`; the order was put back before."""
        if "own" in saved.state and hasattr(self._dataset, "set_state"):
            self._dataset.set_state(unpack(saved.state["own"], saved.tensors))

    def _show(self, dataset: Any) -> None:
        """Shows Keras this dataset, and forgets what it has looked at."""
        self._adapter.py_dataset = dataset
        enqueuer = self._adapter.enqueuer
        if enqueuer is not None:
            enqueuer.py_dataset = dataset
            while not enqueuer.ready_queue.empty():
                enqueuer.ready_queue.get()  # Of a look before the training.

    def _say_if_it_changes(self) -> None:
        kind = type(self._dataset)
        hooks = [
            name
            for name in ("on_epoch_begin", "on_epoch_end")
            if _is_overridden(kind, name)
        ]
        if hooks and not hasattr(self._dataset, "get_state"):
            say(
                f"the PyDataset {kind.__name__} has its own {hooks[0]}(): "
                "what it changes there is lost in an interruption, and the "
                "data may then be other than it was. Give it get_state() and "
                "set_state(state)."
            )


class PyDatasetOrder(_PyDatasetSource):
    """A `keras.utils.PyDataset` of known length, with workers or without.

    Keras shuffles the batches' numbers by Python's global state, in whatever
    thread produces them. Here the same draw is made in the training thread,
    and Keras is given what is left of that order.
    """

    guarantee = "at no cost: the order of the batches is kept"

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`; from now on, Keras sees what is left."""
        super().__init__(epoch_iterator)
        self._shuffle = bool(self._adapter.shuffle)
        if self._adapter.enqueuer and epoch_iterator.steps_per_epoch:
            self.exact = False
            self.guarantee = (
                "Keras gives the batches of a PyDataset with workers in no "
                "certain order across epochs of steps_per_epoch: leave that "
                "out, or the workers"
            )
            say(f"not exact after an interruption: {self.guarantee}")
        self._order: list[int] = []

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        if self._goes_on:  # With `steps_per_epoch`, across epochs.
            return
        if saved is not None and ORDER in saved.tensors:
            self._order = [int(i) for i in saved.tensors[ORDER]]
            given = self._epoch_iterator.steps_per_epoch
            batch = saved.drawn if given else saved.batch
        else:
            self._order, batch = list(range(self._dataset.num_batches)), 0
            if self._shuffle:
                random.shuffle(self._order)
        self._show(_Rest(self._dataset, self._order[batch:]))
        self._adapter.shuffle = False
        if self._adapter.enqueuer is not None:
            self._adapter.enqueuer.shuffle = False

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`."""
        state, arrays = super().state(iterator, drawn=drawn)
        goes_on = self._epoch_iterator.steps_per_epoch and drawn
        if iterator is not None or goes_on:
            arrays[ORDER] = np.asarray(self._order, dtype=np.int64)
        return state, arrays

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`; an iterator may go on across epochs."""
        super().put_back(iterator, saved)
        keras_iterator = self._epoch_iterator
        if iterator is None and keras_iterator.steps_per_epoch:
            keras_iterator._current_iterator = iter(
                keras_iterator._get_iterator()
            )


class EndlessPyDataset(_PyDatasetSource):
    """A `keras.utils.PyDataset` of unknown length: batch n is its item n.

    Keras goes on counting from one epoch to the next.
    """

    guarantee = "at no cost: batches are had by their number"

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        self._has_begun = False

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        if not self._has_begun or saved is not None:
            self._begin_at(saved.drawn if saved else 0)

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        super().put_back(iterator, saved)
        keras_iterator = self._epoch_iterator
        if iterator is None and keras_iterator.steps_per_epoch:
            self._begin_at(saved.drawn)
            keras_iterator._current_iterator = iter(
                keras_iterator._get_iterator()
            )

    def _begin_at(self, drawn: int) -> None:
        self._has_begun = True
        enqueuer = self._adapter.enqueuer
        if enqueuer is None:
            self._show(_From(self._dataset, drawn))
        else:  # It counts by itself, and goes on where it stopped.
            self._show(self._dataset)
            enqueuer.indices = itertools.count(drawn)


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


class _From:
    """What is left of an endless `PyDataset`, as one."""

    num_batches = None

    def __init__(self, dataset: Any, begin: int) -> None:
        self._dataset = dataset
        self._begin = begin

    def __getitem__(self, index: int) -> Any:
        return self._dataset[self._begin + index]

    def on_epoch_begin(self) -> None:
        self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._dataset.on_epoch_end()


def _is_overridden(kind: type, name: str) -> bool:
    owner = next(base for base in kind.__mro__ if name in vars(base))
    return not owner.__module__.startswith("keras.")
