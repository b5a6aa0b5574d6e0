"""A `torch.utils.data.DataLoader`, with generators of its own or without.

Invariant: its generators are where they were when the interrupted epoch began
before its batches are drawn again, and nowhere else between two epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from colab_keras_bg.data.replay import Replay
from colab_keras_bg.data.source import Saved, State

__all__ = ["LoaderGenerators", "TorchLoader"]


class LoaderGenerators:
    """The generators of a `DataLoader` and of its sampler, if they have any."""

    def __init__(self, loader: Any) -> None:
        """Finds them.

        Args:
            loader: The `DataLoader`.
        """
        held = [
            getattr(owner, "generator", None)
            for owner in (loader, getattr(loader, "sampler", None))
        ]
        found = {id(g): g for g in held if g is not None}
        self._generators = list(found.values())

    def states(self) -> list[str]:
        """Their states, as JSON values."""
        from colab_keras_bg.training_state import torch as adapter

        return [adapter.generator_state(g) for g in self._generators]

    def set_states(self, states: Sequence[str]) -> None:
        """Puts back what `states` returned."""
        from colab_keras_bg.training_state import torch as adapter

        for generator, state in zip(self._generators, states, strict=True):
            adapter.set_generator_state(generator, state)


class TorchLoader(Replay):
    """Replay, and the state of the loader's and its sampler's generators."""

    def __init__(self, epoch_iterator: Any) -> None:
        """See `Source.__init__`."""
        super().__init__(epoch_iterator)
        loader = epoch_iterator.data_adapter._dataloader
        self._generators = LoaderGenerators(loader)
        self._began_at = self._generators.states()

    def state(self, iterator: Any, *, drawn: int) -> State:
        """See `Source.state`."""
        state, arrays = super().state(iterator, drawn=drawn)
        own = {"began_at": self._began_at, "now": self._generators.states()}
        return {**state, "generators": own}, arrays

    def put_back(self, iterator: Any, saved: Saved) -> None:
        """See `Source.put_back`."""
        super().put_back(iterator, saved)
        if iterator is None and not self._epoch_iterator.steps_per_epoch:
            self._generators.set_states(saved.state["generators"]["now"])

    def pass_by(self, saved: Saved) -> None:
        """See `Source.pass_by`."""
        self._generators.set_states(saved.state["generators"]["now"])

    def _before_iterator(self) -> None:
        super()._before_iterator()
        self._began_at = self._generators.states()

    def _go_to_start(self, saved: Saved) -> None:
        super()._go_to_start(saved)
        self._began_at = saved.state["generators"]["began_at"]
        self._generators.set_states(self._began_at)
