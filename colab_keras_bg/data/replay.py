"""Data that can only be drawn again from its beginning.

Invariant: replaying leaves every global random generator as it would be
without: a generator that the data itself draws from goes on from where the
replay has brought it, every other one is as it was before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from colab_keras_bg.data.content import batch_hash
from colab_keras_bg.data.source import Saved, Source, State
from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state import random_state

__all__ = ["ArraysReplay", "GeneratorReplay", "Replay"]

_LINE_EVERY_BATCHES = 1000
# Batches that may be read ahead of the training.
_HASHES_KEPT = 2048


class Replay(Source):
    """Anything that gives its batches again when asked again."""

    exact: bool | None = None
    guarantee = (
        "if the data comes in the same order again: the batches of the "
        "interrupted epoch are drawn again and dropped"
    )

    # Whether making an iterator changes those made later.
    _counts_iterators = False

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        self._start: Mapping[str, Any] = random_state.host_state()
        self._made = 0
        self._make_iterable = original = epoch_iterator._get_iterator

        def get_iterator() -> Any:
            self._before_iterator()
            self._made += 1
            return original()

        # On the instance, which belongs to this one `fit`.
        epoch_iterator._get_iterator = get_iterator

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """See `Source.epoch_begins`; making an iterator may draw, too."""
        if saved is not None and not saved.between:
            self._count_up_to(int(saved.state.get("made", 1)) - 1)
            self._go_to_start(saved)

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`."""
        return {"kind": "replay", "start": self._start, "made": self._made}, {}

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        keras_iterator = self._epoch_iterator
        made = int(saved.state.get("made", 0))
        if iterator is None and keras_iterator.steps_per_epoch:
            self._count_up_to(made - 1)
            # Keras makes the next one as soon as one has ended.
            self._go_to_start(saved)
            iterator = iter(keras_iterator._get_iterator())
            keras_iterator._current_iterator = iterator
        elif iterator is None:
            self._count_up_to(made)
        if iterator is not None and saved.drawn:
            self._draw_again(iterator, saved.drawn)

    def _count_up_to(self, made: int) -> None:
        """Makes the iterators that were made before; some data counts them."""
        while self._made < made:
            self._made += 1
            if self._counts_iterators:
                iter(self._make_iterable())

    def _before_iterator(self) -> None:
        """Told before each iterator is made."""
        self._start = random_state.host_state()

    def _go_to_start(self, saved: Saved) -> None:
        if "start" in saved.state:
            self._start = saved.state["start"]
            random_state.set_host_state(self._start)

    def _draw_again(self, iterator: Iterator[Any], batches: int) -> None:
        say(f"drawing {batches} batches again to come to where the run was")
        before = random_state.host_state()
        for number in range(1, batches + 1):
            try:
                next(iterator)
            except StopIteration:
                say(
                    f"the data ended after {number - 1} of the {batches} "
                    "batches that were trained on before: it is not what it "
                    "was, and the run is not continued exactly"
                )
                break
            if number % _LINE_EVERY_BATCHES == 0:
                say(f"{number} of {batches} batches drawn again")
        if random_state.TORCH in before:
            return  # Keras reads nothing ahead there: all is as it was saved.
        after = random_state.host_state()
        self.draws_from = frozenset(
            name for name in after if after[name] != before[name]
        )


class ArraysReplay(Replay):
    """Arrays of which Keras draws the order from the backend's random state."""

    exact = True
    guarantee = (
        "by the random state at the epoch's begin: the batches of the "
        "interrupted epoch are drawn again and dropped"
    )


class GeneratorReplay(Replay):
    """A Python generator: one stream for the whole `fit`."""

    guarantee = (
        "if the generator yields the same again: all its batches up to the "
        "interruption are drawn again and dropped"
    )

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`; from now on, batches pass through here."""
        super().__init__(epoch_iterator)
        self._hashes: dict[int, str] = {}
        adapter = epoch_iterator.data_adapter
        self._make = adapter.generator
        adapter.generator = self._hashed  # The adapter is this one `fit`'s.

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:
        """The stream began when `fit` did."""

    def _before_iterator(self) -> None:
        """Nor does it begin with an iterator."""

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`."""
        state, arrays = super().state(iterator, drawn=drawn)
        return {**state, "hash": self._hashes.get(drawn)}, arrays

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        if not saved.total:
            return
        self._go_to_start(saved)
        if iterator is None:
            keras_iterator = self._epoch_iterator
            iterator = iter(keras_iterator._get_iterator())
            if keras_iterator.steps_per_epoch:
                keras_iterator._current_iterator = iterator
        self._draw_again(iterator, saved.total)
        then, now = saved.state.get("hash"), self._hashes.get(saved.drawn)
        known = saved.drawn == saved.total and then is not None
        if known and now is not None and then != now:
            say(
                "the generator did not yield again what it had yielded "
                "before: the run goes on from the same step, but not exactly. "
                "Seed what it draws from, or pass bg.data.stream(...) an "
                "object with get_state() and set_state(state)."
            )

    def _hashed(self) -> Iterator[Any]:
        """The batches; a hash of all up to each is kept."""
        self._hashes = {}
        so_far = ""
        for drawn, batch in enumerate(self._make(), start=1):
            so_far = batch_hash(batch, before=so_far)
            self._hashes[drawn] = so_far
            self._hashes.pop(drawn - _HASHES_KEPT, None)
            yield batch
