"""Going back to a position in whatever `fit` was given to train on.

Invariant: a source is asked for its state only between two batches, and is
put back before the first new batch is drawn. How well that can be done is the
source's `guarantee`.

From best to worst: random access, whose order is known for every position;
`tf.data`, by its iterator's state; anything else by replay: drawing the
batches again and dropping them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from colab_keras_bg.data.content import described_arrays

__all__ = ["Saved", "Source", "State"]

State = tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]


@dataclass(frozen=True)
class Saved:
    """What a checkpoint tells a source.

    Attributes:
        state: What `Source.state` returned.
        tensors: Likewise; more in it does no harm.
        between: Whether it stands between two epochs.
        batch: Batches of the epoch that were consumed; 0 between two epochs.
        drawn: Batches of the iterator in use that were consumed. It may go
            on across epochs.
        total: Batches of the `fit` that were consumed.
    """

    state: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray[Any, Any]]
    between: bool
    batch: int
    drawn: int
    total: int


class Source(ABC):
    """The data of one `fit`, as something that can be put back.

    Attributes:
        exact: Whether it goes on exactly; None if that depends on the data.
        guarantee: By what, in words.
        draws_from: The global generators that producing the data draws from,
            as far as putting it back has shown; their state is then as it
            should be.
    """

    exact: bool | None = True
    guarantee: str

    def __init__(self, epoch_iterator: Any) -> None:
        """Takes Keras' epoch iterator.

        Args:
            epoch_iterator: The `EpochIterator` of the running `fit`.
        """
        self._epoch_iterator = epoch_iterator
        self.draws_from: frozenset[str] = frozenset()

    def describe(self) -> dict[str, Any]:
        """What decides the batches, as JSON values."""
        adapter = self._epoch_iterator.data_adapter
        described = {
            "kind": type(adapter).__name__,
            "batches": adapter.num_batches,
            "batch_size": adapter.batch_size,
        }
        if described["kind"] == "ArrayDataAdapter":
            described["shuffle"] = adapter._shuffle
            described["arrays"] = described_arrays(adapter._inputs)
        return described

    def epoch_begins(self, epoch: int, saved: Saved | None) -> None:  # noqa: B027
        """Told before each epoch, while no iterator of it is made yet.

        Most sources need not know.

        Args:
            epoch: The epoch, from 0.
            saved: What the checkpoint tells, if the run goes on in this
                epoch or right before it.
        """

    def epoch_starts(self, iterator: Any) -> None:  # noqa: B027
        """Told of each new epoch's iterator before a batch is drawn from it.

        Args:
            iterator: The iterator.
        """

    def pass_by(self, saved: Saved) -> None:  # noqa: B027
        """Told, in place of all else, if this `fit` had ended before.

        What it left behind in data that others share is put back.

        Args:
            saved: What the checkpoint tells.
        """

    @property
    def _goes_on(self) -> bool:
        """Whether the iterator in use goes on in the coming epoch."""
        keras_iterator = self._epoch_iterator
        return (
            keras_iterator.steps_per_epoch is not None
            and keras_iterator._current_iterator is not None
            and keras_iterator._steps_seen > 0
        )

    @abstractmethod
    def state(self, iterator: Any, *, drawn: int) -> State:
        """What is needed to go on from here.

        Args:
            iterator: The iterator in use; None between two epochs.
            drawn: Batches of the iterator that were consumed.

        Returns:
            JSON values, and arrays by key.
        """

    @abstractmethod
    def put_back(self, iterator: Any, saved: Saved) -> None:
        """Puts the data where it was, before the first batch is drawn.

        Args:
            iterator: The new iterator of the epoch that goes on in its
                middle; None between two epochs.
            saved: What the checkpoint tells.
        """
