"""What a `fit` validates on, as far as it moves from one epoch to the next.

Invariant: data that comes the same at each validation needs nothing; our own
goes on at the order it would have had; of all else that moves it is said.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from colab_keras_bg.data.ordered import OrderedAdapter
from colab_keras_bg.data.stream import StreamAdapter

__all__ = ["Validation"]


class Validation:
    """The `validation_data` of one `fit`."""

    def __init__(self, data: Any) -> None:
        """Takes what `fit` was given.

        Args:
            data: Its `validation_data`; None if there is none.
        """
        self._data = data

    def go_on_after(self, history: Mapping[str, Sequence[Any]]) -> None:
        """Brings our own data to where it was.

        Args:
            history: The values of the epochs before, by name: those of a
                validation tell how many there were.
        """
        done = [len(v) for name, v in history.items() if name[:4] == "val_"]
        if isinstance(self._data, OrderedAdapter) and done:
            self._data.count_from(max(done))

    @property
    def not_exact(self) -> str | None:
        """Why a validation may come out otherwise; None if it does not."""
        moves = None
        if inspect.isgenerator(self._data) or isinstance(
            self._data, StreamAdapter
        ):
            moves = "goes on from one epoch to the next"
        elif _shuffles(self._data):
            moves = "is shuffled anew in each epoch"
        if moves is None:
            return None
        return (
            f"the validation data {moves}, and begins anew in an interruption: "
            "what is measured on it, and callbacks that go by it, may differ. "
            "Validate on arrays, or on data that comes the same each time"
        )


def _shuffles(data: Any) -> bool:
    if not hasattr(data, "_variant_tensor"):
        return False
    from colab_keras_bg.training_state import tensorflow as adapter

    return b"Shuffle" in adapter.graph_bytes(data)
