"""What a `fit` validates on, from one evaluation to the next.

Invariant: an evaluation sees the batches that it would have seen without an
interruption. Keras makes a new iterator for each, so only what lies outside of
the iterators has to be put back; data that comes the same at each evaluation
needs nothing. What cannot be put back is said.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from colab_keras_bg.data.ordered import OrderedAdapter
from colab_keras_bg.data.passes import (
    GeneratorPasses,
    LoaderPasses,
    OrderedPasses,
    OwnStatePasses,
    Passes,
    StreamPasses,
    TFDataPasses,
    pass_over,
)
from colab_keras_bg.data.source import State
from colab_keras_bg.data.stream import StreamAdapter
from colab_keras_bg.journal.announce import say

__all__ = ["Validation"]


class Validation:
    """The `validation_data` of one `fit`."""

    def __init__(self, data: Any) -> None:
        """Takes what `fit` was given.

        Args:
            data: Its `validation_data`; None if there is none.
        """
        self._data = data
        self._passes: Passes | None = None
        self._state: State = ({}, {})
        self._go_on_from: State | None = None

    def go_on_from(
        self,
        state: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """The next evaluation is the one after this state.

        Args:
            state: What `state` returned.
            arrays: Likewise; more in it does no harm.
        """
        kept = {k: v for k, v in arrays.items() if k.startswith("validation/")}
        self._go_on_from = dict(state), kept
        self._state = dict(state), {k: np.array(v) for k, v in kept.items()}

    def begins(self, epoch_iterator: Any) -> None:
        """Before the first batch of an evaluation.

        Args:
            epoch_iterator: Keras' own of this evaluation.
        """
        if self._passes is None:
            self._passes = _passes(epoch_iterator)
        state, arrays = self._go_on_from or ({}, {})
        if state:  # There was an evaluation.
            if state["kind"] != type(self._passes).__name__:
                say(
                    "the data to validate on is of another kind than it was: "
                    "it is begun anew, and what is measured on it may differ. "
                    "Give fit the same validation_data to be exact"
                )
            elif self._passes is not None:
                self._passes.go_on_from(state, arrays)
        self._go_on_from = None

    def ends(self) -> None:
        """After the last batch of an evaluation."""
        none: State = ({}, {})
        state, arrays = none if self._passes is None else self._passes.state()
        self._state = {**state, "kind": type(self._passes).__name__}, arrays

    def pass_by(self) -> None:
        """If the `fit` had ended before: the next may validate on the same."""
        if self._go_on_from is not None and _moves(self._data):
            pass_over(self._data, self._go_on_from[1])

    def state(self) -> State:
        """What the next evaluation goes on from."""
        return self._state

    @property
    def not_exact(self) -> str | None:
        """Why an evaluation may come out otherwise; None if it does not."""
        if not _moves(self._data):
            return None
        from colab_keras_bg.training_state import tensorflow as adapter

        reason = adapter.graph_refusal(self._data)
        if reason is None:
            return None
        return (
            f"the state of the validation data cannot be saved ({reason}), "
            "and it comes in another order in each epoch: what is measured "
            "on it, and callbacks that go by it, may differ. Validate on "
            "arrays, on bg.data, or on data that comes the same each time"
        )

    @property
    def depends(self) -> str | None:
        """What an exact evaluation hangs on; None if on nothing."""
        if not inspect.isgenerator(self._data):
            return None
        return (
            "if the generator yields the same again: all its batches up to "
            "the last evaluation are drawn again and dropped"
        )


def _passes(epoch_iterator: Any) -> Passes | None:
    """How the data is brought to its next pass; None if all are the same."""
    adapter = epoch_iterator.data_adapter
    kind = type(adapter).__name__
    if isinstance(adapter, OrderedAdapter):
        return OrderedPasses(epoch_iterator)
    if isinstance(adapter, StreamAdapter):
        return StreamPasses(epoch_iterator)
    if kind == "GeneratorDataAdapter":
        return GeneratorPasses(epoch_iterator)
    if kind == "TFDatasetAdapter" and _moves(adapter._dataset):
        return TFDataPasses(epoch_iterator)
    if kind == "TorchDataLoaderAdapter":
        return LoaderPasses(epoch_iterator)
    if kind == "PyDatasetAdapter" and hasattr(adapter.py_dataset, "get_state"):
        return OwnStatePasses(epoch_iterator)
    return None


def _moves(dataset: Any) -> bool:
    """Whether a `tf.data.Dataset` may come in another order each time."""
    if not hasattr(dataset, "_variant_tensor"):
        return False
    from colab_keras_bg.training_state import tensorflow as adapter

    graph = adapter.graph_bytes(dataset)
    return b"Shuffle" in graph or b"Random" in graph
