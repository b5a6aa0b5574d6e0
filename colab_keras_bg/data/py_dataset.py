"""A `keras.utils.PyDataset`: its batches are had by their numbers.

Invariant: going back loads no batch that was consumed. The order of the
numbers is drawn in the thread that trains, and kept.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from colab_keras_bg.data.loads import Loads
from colab_keras_bg.data.source import Saved, Source, State
from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state.packed import Arrays, pack, unpack

__all__ = ["EndlessPyDataset", "PyDatasetOrder"]

_ORDER = "data/order"
_OWN = "data/own"


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
        """See `Source.put_back`; in an epoch's middle it was put back."""
        if iterator is None:
            self._put_back_own(saved)

    def pass_by(self, saved: Saved) -> None:
        """See `Source.pass_by`."""
        self._put_back_own(saved)

    def _put_back_own(self, saved: Saved) -> None:
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
        self._loads = Loads(self._dataset, alone=self._adapter.enqueuer is None)

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        if self._goes_on:  # With `steps_per_epoch`, across epochs.
            return
        if saved is not None and _ORDER in saved.tensors:
            self._order = [int(i) for i in saved.tensors[_ORDER]]
            given = self._epoch_iterator.steps_per_epoch
            batch = saved.drawn if given else saved.batch
        else:
            self._order, batch = list(range(self._dataset.num_batches)), 0
            if self._shuffle:
                random.shuffle(self._order)
        goes_on = saved is not None and not saved.between
        if saved is not None and goes_on:
            # Before a worker loads a batch; the epoch has begun already.
            self._put_back_own(saved)
            self.draws_from = self._loads.go_on_from(saved.state.get("draws"))
        self._loads.begin_at(batch)
        self._show(_Rest(self._loads, self._order[batch:], has_begun=goes_on))
        self._adapter.shuffle = False
        if self._adapter.enqueuer is not None:
            self._adapter.enqueuer.shuffle = False

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`."""
        state, arrays = super().state(iterator, drawn=drawn)
        goes_on = self._epoch_iterator.steps_per_epoch and drawn
        if iterator is not None or goes_on:
            arrays[_ORDER] = np.asarray(self._order, dtype=np.int64)
            state["draws"] = self._loads.state_after(drawn)
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

    def __init__(
        self, dataset: Any, order: Sequence[int], *, has_begun: bool
    ) -> None:
        self._dataset = dataset
        self._order = order
        self._has_begun = has_begun

    @property
    def num_batches(self) -> int:
        return len(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[self._order[index]]

    def on_epoch_begin(self) -> None:
        has_begun, self._has_begun = self._has_begun, False
        if not has_begun:
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
