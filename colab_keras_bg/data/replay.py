"""Data that can only be drawn again from its beginning.

Invariant: replaying leaves every global random generator as it would be
without: a generator that the data itself draws from goes on from where the
replay has brought it, every other one is as it was before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from colab_keras_bg.data.source import Saved, Source, State
from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state import random_state

__all__ = ["GeneratorReplay", "Replay"]

_LINE_EVERY_BATCHES = 1000


class Replay(Source):
    """Anything that gives an epoch's batches again when asked again."""

    guarantee = (
        "exact if the data comes in the same order again: the batches of the "
        "interrupted epoch are drawn again and dropped"
    )

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        self._start = random_state.host_state()

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`."""
        if saved is None:
            self._start = random_state.host_state()

    def state(self, iterator: Any) -> State:
        """See `Source.state`."""
        return {"kind": "replay", "start": self._start}, {}

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        if iterator is not None and saved.drawn:
            self._replay(iterator, saved.drawn, saved)

    def _replay(
        self, iterator: Iterator[Any], batches: int, saved: Saved
    ) -> None:
        say(f"drawing {batches} batches again to come to where the run was")
        before = random_state.host_state()
        self._start = saved.state.get("start", before)
        random_state.set_host_state(self._start)
        for number in range(1, batches + 1):
            next(iterator)
            if number % _LINE_EVERY_BATCHES == 0:
                say(f"{number} of {batches} batches drawn again")
        after = random_state.host_state()
        self.draws_from = frozenset(
            name for name in after if after[name] != self._start[name]
        )
        random_state.set_host_state(
            {
                name: after[name] if name in self.draws_from else state
                for name, state in before.items()
            }
        )


class GeneratorReplay(Replay):
    """A Python generator: one stream for the whole `fit`."""

    guarantee = (
        "exact if the generator yields the same again: all its batches up to "
        "the interruption are drawn again and dropped"
    )

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """The stream began when `fit` did."""

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        if not saved.total:
            return
        if iterator is None:
            keras_iterator = self._epoch_iterator
            iterator = iter(keras_iterator._get_iterator())
            if keras_iterator.steps_per_epoch:
                keras_iterator._current_iterator = iterator
        self._replay(iterator, saved.total, saved)
