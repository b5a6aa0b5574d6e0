"""What a checkpoint of a `fit` holds, between two of its steps.

Invariant: everything that the rest of the training depends on is in what
`take` returns; `assign` puts the variables among it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colab_keras_bg.callbacks.agreement import Agreement
from colab_keras_bg.callbacks.fit_loop import FitLoop
from colab_keras_bg.checkpoint.store import Checkpoint
from colab_keras_bg.data.source import Source
from colab_keras_bg.data.validation import Validation
from colab_keras_bg.errors import DamagedCheckpointError
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.training_state import (
    build,
    model_config,
    random_state,
    snapshot,
)
from colab_keras_bg.training_state.callback_states import CallbackStates
from colab_keras_bg.training_state.derived import derive
from colab_keras_bg.training_state.plain import plain
from colab_keras_bg.training_state.position import Position
from colab_keras_bg.training_state.told_history import ToldHistory
from colab_keras_bg.training_state.variables import training_variables

__all__ = ["Contents", "Taken"]

# The tensors by key, and the rest as JSON values.
Taken = tuple[dict[str, LazyTensor], dict[str, Any]]

_SURE_LOOKS = 2


@dataclass(frozen=True)
class _Known:
    """What was found out about the variables."""

    variables: dict[str, Any]
    described: dict[str, Any]
    generator: dict[str, Any]
    snapshots: snapshot.Snapshots


class Contents:
    """Takes snapshots of one `fit`, and puts one back.

    Attributes:
        callbacks: The other callbacks' states.
    """

    def __init__(
        self,
        model: Any,
        loop: FitLoop,
        source: Source,
        validation: Validation,
        agreement: Agreement,
    ) -> None:
        """Takes what a `fit` consists of."""
        self._model, self._loop = model, loop
        self._source, self._validation = source, validation
        self._agreement = agreement
        self.callbacks = CallbackStates(())
        self._known: _Known | None = None
        self._history, self._reports = ToldHistory(), ToldHistory()
        self._looks = 0
        self._listed: tuple[int, ...] = ()
        self._config = model_config.described(model)
        self._config_is_sure = bool(model.built)

    def look(self) -> None:
        """Finds all variables: some milliseconds with hundreds of layers."""
        self._looks += 1
        found = training_variables(self._model)
        self._known = _Known(
            variables=found,
            described=build.describe(self._model, found),
            generator=random_state.global_seed_generator(),
            snapshots=snapshot.Snapshots(
                {**found, **random_state.global_seed_generator()},
                model=self._model,
            ),
        )
        self._listed = self._seen()

    def look_again(self) -> None:
        """Finds them anew where a step or a callback may have made some.

        After the first step, and before the second epoch; later only if Keras
        lists others.
        """
        if not self._looks:
            self._known = None
        elif self._looks < _SURE_LOOKS or self._seen() != self._listed:
            self.look()

    def take(self, position: Position, *, iterator: Any) -> Taken:
        """A snapshot.

        Args:
            position: Where the training stands.
            iterator: The data's iterator in use, when Keras has counted the
                coming turn already; None between two epochs.

        Returns:
            The tensors by key, and the rest as JSON values.

        Raises:
            CheckpointError: If a callback does not tell its state.
        """
        seen = self._steps_seen(steps_ahead=iterator is not None)
        data, data_arrays = self._source.state(iterator, drawn=seen)
        validation, validation_arrays = self._validation.state()
        callbacks, callback_arrays = self.callbacks.capture()
        known = self._known
        if (
            known is None
            or known.generator != random_state.global_seed_generator()
        ):
            self.look()
            known = self._known
        assert known is not None  # noqa: S101 - `look` has set it
        if iterator is None and not self._config_is_sure:
            self._config = model_config.described(self._model)
            self._config_is_sure = True
        tensors = known.snapshots.take()
        arrays = {**data_arrays, **validation_arrays, **callback_arrays}
        for key, array in arrays.items():
            tensors[key] = LazyTensor.of(array)
        history = self._loop.history
        logs = None
        if iterator is not None and not self._loop.length_is_sure:
            logs = plain(self._loop.last_logs())
        return tensors, {
            "position": position.to_json(),
            "loop": {
                "steps_seen": seen,
                "num_batches": self._loop.epoch_iterator._num_batches,
                "logs": logs,
            },
            "data": data,
            "validation": validation,
            "history": {
                **self._history.told(
                    {"epoch": history.epoch if history else []}
                ),
                "values": self._reports.told(
                    history.history if history else {}
                ),
            },
            "random": random_state.capture(),
            "build": known.described,
            "model": self._config,
            "fingerprint": self._agreement.fingerprint(),
            "versions": self._agreement.surroundings,
            "callbacks": callbacks,
        }

    def assign(self, found: Checkpoint) -> None:
        """Puts the variables of a checkpoint back.

        Args:
            found: The checkpoint.

        Raises:
            DamagedCheckpointError: If it lacks a variable of the model.
        """
        make = random_state.GLOBAL_SEED in found.tensors
        variables = training_variables(self._model)
        for key, variable in variables.items():
            stored = found.tensors.get(key)
            if stored is None and not key.startswith("model/"):
                continue  # Made since, and new then, too.
            if stored is None or stored.shape != tuple(variable.shape):
                is_there = None if stored is None else list(stored.shape)
                raise DamagedCheckpointError(
                    found.step,
                    reason=(
                        f"{key} has the shape {list(variable.shape)} in the "
                        f"model, and {is_there} in the checkpoint"
                    ),
                )
        variables |= random_state.global_seed_generator(make=make)
        snapshot.assign(variables, found.tensors)
        derive(self._model)

    def _seen(self) -> tuple[int, ...]:
        """What Keras itself lists of variables, to see whether it changes."""
        optimizer = getattr(self._model, "optimizer", None)
        listed = [*self._model.variables, *getattr(optimizer, "variables", ())]
        return tuple(map(id, listed))

    def _steps_seen(self, *, steps_ahead: bool) -> int:
        """Batches of the iterator in use that were consumed."""
        # Between two turns Keras has counted the coming one already.
        ahead = self._model.steps_per_execution if steps_ahead else 0
        return int(self._loop.epoch_iterator._steps_seen) - int(ahead)
