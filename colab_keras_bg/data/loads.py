"""Batches that draw from the global generators while they are loaded.

Invariant: where one thread loads the batches one after the other, the state
kept for a position is that after the batch before it, however far ahead of
the training it is read. Where several do, nobody knows who draws first: that
is said.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state import random_state

__all__ = ["Loads"]

_LOOKED_AT = 3  # Loads that draw nothing, after which none is thought to.
_STATES_KEPT = 2048


class Loads:
    """A `PyDataset` whose loads are looked at."""

    def __init__(self, dataset: Any, *, alone: bool) -> None:
        """Takes the dataset.

        Args:
            dataset: The `PyDataset`.
            alone: Whether one thread loads all its batches.
        """
        self._dataset = dataset
        self._alone = alone
        self._left = _LOOKED_AT
        self._draws_from: frozenset[str] = frozenset()
        self._states: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._loaded = 0

    def begin_at(self, batch: int) -> None:
        """The next load is that of this batch of the iterator.

        Args:
            batch: Its number, from 0.
        """
        self._loaded = batch
        kept = self._states.get(batch)
        self._states = OrderedDict({} if kept is None else {batch: kept})

    def state_after(self, drawn: int) -> dict[str, Any] | None:
        """What the generators that loads draw from were after so many.

        Args:
            drawn: Batches of the iterator that are consumed.

        Returns:
            Their states by name; None if no load draws from them.
        """
        return self._states.get(drawn)

    def go_on_from(self, state: Mapping[str, Any] | None) -> frozenset[str]:
        """Puts back what `state_after` returned.

        Returns:
            The generators that are now as they should be.
        """
        if state is None:
            return frozenset()
        random_state.set_host_state(state)
        self._draws_from = frozenset(state)
        return self._draws_from

    def __getattr__(self, name: str) -> Any:
        """Anything else is the dataset's."""
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        """See `PyDataset`."""
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        """See `PyDataset`; a load that draws is noticed."""
        if not self._draws_from and not self._left:
            return self._dataset[index]
        before = random_state.host_state()
        batch = self._dataset[index]
        now = random_state.host_state()
        drawn_from = {name for name in now if now[name] != before[name]}
        self._left = max(0, self._left - 1)
        if drawn_from and not self._alone:
            self._left = 0
            say(
                "not exact after an interruption: the PyDataset "
                f"{type(self._dataset).__name__} draws from the global random "
                "state in several threads, in no certain order. Draw from "
                "np.random.default_rng([seed, index]) for each batch"
            )
            return batch
        self._loaded += 1
        self._draws_from |= drawn_from
        if self._draws_from:
            self._states[self._loaded] = {n: now[n] for n in self._draws_from}
            if len(self._states) > _STATES_KEPT:
                self._states.popitem(last=False)
        return batch
