"""A `History` as JSON values, at a cost that does not grow with its length.

Invariant: what `told` returns is what the history is at that moment, and is
not changed afterwards. What an epoch has reported is past, and converted
once; but for the last entry, which a callback may still correct.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colab_keras_bg.training_state.plain import told

__all__ = ["ToldHistory"]


class ToldHistory:
    """Remembers what of one history it has converted."""

    def __init__(self) -> None:
        """Starts with nothing."""
        self._known: dict[str, tuple[list[Any], list[Any]]] = {}

    def told(self, history: Mapping[str, Any]) -> dict[str, Any]:
        """The history as it is now.

        Args:
            history: What `History.history` is: lists by name.
        """
        return {
            str(name): self._list(name, values)
            if isinstance(values, list)
            else told(values)
            for name, values in history.items()
        }

    def _list(self, name: str, values: list[Any]) -> list[Any]:
        before, known = self._known.get(name, (None, []))
        if before is not values or len(known) > len(values):
            known = []  # Another list, or a shorter one.
        del known[-1:]
        known.extend(map(told, values[len(known) :]))
        self._known[name] = values, known
        return list(known)
