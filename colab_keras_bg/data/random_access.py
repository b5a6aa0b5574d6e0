"""Data of which any batch can be had at once.

Invariant: going back loads no batch that was consumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from colab_keras_bg.data.source import Saved, Source, State
from colab_keras_bg.training_state import random_state

__all__ = ["KnownOrder", "NumPyOrder"]


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
