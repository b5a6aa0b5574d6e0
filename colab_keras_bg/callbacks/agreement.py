"""Whether what a `fit` is given now is what the run was started with.

Invariant: a different model or optimizer is refused before any variable is
touched; what makes the continuation less than exact is said in one sentence,
with its cure.
"""

from __future__ import annotations

from typing import Any

from colab_keras_bg.checkpoint.store import Checkpoint
from colab_keras_bg.data.source import Source
from colab_keras_bg.errors import FingerprintMismatchError, UsageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state import random_state
from colab_keras_bg.training_state.fingerprint import (
    differences,
    fingerprint,
    optimizer_fingerprint,
)
from colab_keras_bg.training_state.position import Position
from colab_keras_bg.training_state.surroundings import differing, surroundings

__all__ = ["Agreement"]


class Agreement:
    """Compares model, optimizer and data with those of a checkpoint.

    Attributes:
        surroundings: The versions and devices that are there now.
    """

    def __init__(self, model: Any, source: Source) -> None:
        """Looks at the optimizer before a callback or a step changes it.

        Args:
            model: The model that is being fitted.
            source: Its data.
        """
        self._model = model
        with random_state.undisturbed():
            self._optimizers = optimizer_fingerprint(model)
            self.surroundings = surroundings()
            self._data = source.describe()
        self._fingerprint: dict[str, Any] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """What is there now, for the checkpoint; of a built model."""
        if self._fingerprint is None:
            with random_state.undisturbed():
                self._fingerprint = {
                    "model": {
                        **fingerprint(self._model),
                        "optimizers": self._optimizers,
                    },
                    "data": self._data,
                }
        return self._fingerprint

    def check(self, found: Checkpoint, *, where: str) -> None:
        """Compares with a checkpoint.

        Args:
            found: The checkpoint.
            where: The run directory, for the message.

        Raises:
            FingerprintMismatchError: If the model or the optimizer differs.
        """
        then, now = found.state["fingerprint"], self.fingerprint()
        others = differences(then["model"], now["model"])
        if others:
            raise FingerprintMismatchError(where, differences=others)
        elsewhere = differing(found.state["versions"], self.surroundings)
        if elsewhere:
            say(
                f"what this run is trained on has changed "
                f"({'; '.join(elsewhere)}): it goes on from the same step, "
                "but its last bits may differ. Use the same to be exact."
            )
        for changed in self._data_differences(found):
            say(
                f"the data is not what it was ({changed}): the run goes on "
                "from the same step, but not exactly as before. Give it the "
                "same data to be exact."
            )

    def check_after_another(self, found: Checkpoint, *, where: str) -> None:
        """Looks at a run that another model of this program has ended.

        On the same data that is the program, or its cell, again; or an
        ensemble, which is not meant to be one run: nobody can tell.

        Args:
            found: Its checkpoint.
            where: The run directory.

        Raises:
            UsageError: If the data is other than it was.
        """
        if self._data_differences(found):
            raise UsageError(
                f"{where} holds what another model of this program was trained "
                "to on other data: give each model a run directory of its own."
            )
        say(
            "another model of this program was trained in this run: this one "
            "goes on from it. To train both, give each a run directory of its "
            "own"
        )

    def _data_differences(self, found: Checkpoint) -> list[str]:
        then = found.state["fingerprint"]["data"]
        return differences({"layers": then}, {"layers": self._data})

    def turns(self, position: Position) -> int:
        """The turns of the epoch that are done, as they are counted now."""
        then, now = position.steps_per_execution, self._steps_per_execution
        if then == now or not position.turns:
            return position.turns
        say(
            f"steps_per_execution was {then} and is {now} now: the run goes "
            "on from the same step, but callbacks see other batch numbers. "
            f"Compile with steps_per_execution={then} to be exact."
        )
        return -(-position.batch // now)

    @property
    def _steps_per_execution(self) -> int:
        return int(self._model.steps_per_execution)
