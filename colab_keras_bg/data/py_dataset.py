"""A `keras.utils.PyDataset`: its batches are had by their numbers.

Invariant: going back loads no batch that was consumed. The order of the
numbers is drawn in the thread that trains, and kept.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
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
        self._see(dataset)
        enqueuer = self._adapter.enqueuer
        if enqueuer is not None:
            for waiting in (enqueuer.ready_queue, enqueuer.future_queue):
                while not waiting.empty():
                    waiting.get()

    def _see(self, dataset: Any) -> None:
        self._adapter.py_dataset = dataset
        if self._adapter.enqueuer is not None:
            self._adapter.enqueuer.py_dataset = dataset

    def _make_iterator(self) -> None:
        """Makes the iterator that goes on across epochs anew."""
        keras_iterator = self._epoch_iterator
        keras_iterator._current_iterator = iter(keras_iterator._get_iterator())

    @property
    def _own_hooks(self) -> list[str]:
        return [
            name
            for name in ("on_epoch_begin", "on_epoch_end")
            if _is_overridden(type(self._dataset), name)
        ]

    def _say_if_it_changes(self) -> None:
        hooks = self._own_hooks
        if hooks and not hasattr(self._dataset, "get_state"):
            name = type(self._dataset).__name__
            say(
                f"the PyDataset {name} has its own {hooks[0]}(): "
                "what it changes there is lost in an interruption, and the "
                "data may then be other than it was. Give it get_state() and "
                "set_state(state)."
            )


class PyDatasetOrder(_PyDatasetSource):
    """A `keras.utils.PyDataset` of known length, with workers or without.

    Keras shuffles the batches' numbers by Python's global state, in whatever
    thread produces them. Here the same draw is made in the training thread,
    and Keras is given what is left of that order.

    Where a pass over the data goes on across epochs of `steps_per_epoch`,
    Keras' workers begin the order anew in each epoch, behind whatever they
    had read ahead. Here they go on where they stopped: each batch comes once.
    """

    guarantee = "at no cost: the order of the batches is kept"

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`; from now on, Keras sees what is left."""
        super().__init__(epoch_iterator)
        self._shuffle = bool(self._adapter.shuffle)
        self._order: list[int] = []
        self._enqueuer = self._adapter.enqueuer
        self._loads = Loads(self._dataset, alone=self._enqueuer is None)
        self._taken = 0  # Batches of the order that workers have handed over.
        if self._enqueuer is not None:
            # On the instance, which belongs to this one `fit`.
            self._hand_over = self._enqueuer.get
            self._enqueuer.get = self._counted

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        if self._goes_on:  # With `steps_per_epoch`, across epochs.
            if self._own_hooks:  # What was read ahead may be other now.
                self._begin_at(self._epoch_iterator._steps_seen)
                self._make_iterator()
            elif self._enqueuer is not None:
                rest = self._order[self._taken + self._waiting :]
                self._see(_Rest(self._loads, rest))
            return
        if saved is not None and _ORDER in saved.tensors:
            self._order = [int(i) for i in saved.tensors[_ORDER]]
            given = self._epoch_iterator.steps_per_epoch
            batch = saved.drawn if given else saved.batch
        else:
            if saved is not None:  # It decides how many batches there are.
                self._put_back_own(saved)
            self._order, batch = list(range(self._dataset.num_batches)), 0
            if self._shuffle:
                random.shuffle(self._order)
        goes_on = saved is not None and not saved.between
        if saved is not None and goes_on:
            # Before a worker loads a batch; the epoch has begun already.
            self._put_back_own(saved)
            self.draws_from = self._loads.go_on_from(saved.state.get("draws"))
        self._begin_at(batch, has_begun=goes_on)
        self._adapter.shuffle = False
        if self._enqueuer is not None:
            self._enqueuer.shuffle = False

    def _begin_at(self, batch: int, *, has_begun: bool = False) -> None:
        self._loads.begin_at(batch)
        self._taken = batch
        rest = self._order[batch:]
        self._show(_Rest(self._loads, rest, has_begun=has_begun))

    @property
    def _waiting(self) -> int:
        """Batches that the workers, which rest now, have read ahead."""
        queues = (self._enqueuer.ready_queue, self._enqueuer.future_queue)
        return sum(queue.qsize() for queue in queues)

    def _counted(self) -> Iterator[Any]:
        for batch in self._hand_over():
            self._taken += 1
            yield batch

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
        if iterator is None and self._epoch_iterator.steps_per_epoch:
            self._make_iterator()


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
        if iterator is None and self._epoch_iterator.steps_per_epoch:
            self._begin_at(saved.drawn)
            self._make_iterator()

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
        self,
        dataset: Any,
        order: Sequence[int],
        *,
        has_begun: bool = False,
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
