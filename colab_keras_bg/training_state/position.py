"""Where a training stands.

Invariant: the step is counted by us: training batches consumed since the run
began. Neither Keras' batch index nor `optimizer.iterations` is taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Position"]


@dataclass(frozen=True)
class Position:
    """Between two training steps.

    Attributes:
        step: Training batches consumed since the run began.
        fit: Which `fit` of the program, from 0.
        fit_began: The step at which that `fit` began.
        epoch: The epoch that goes on or begins here, from 0.
        batch: Batches of that epoch that are consumed; 0 at its beginning.
        turns: Calls of the train function in that epoch. Each consumes
            `steps_per_execution` batches, the last maybe fewer.
        steps_per_execution: As compiled.
        epochs: As given to `fit`.
        stopped: Whether a callback has asked `fit` to stop here.
        finished: Whether `fit` has nothing left to do.
    """

    step: int = 0
    fit: int = 0
    fit_began: int = 0
    epoch: int = 0
    batch: int = 0
    turns: int = 0
    steps_per_execution: int = 1
    epochs: int = 1
    stopped: bool = False
    finished: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Position:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If a field is missing or of another type.
        """
        try:
            position = cls(**values)
        except TypeError as error:
            raise ValueError(f"not a position: {error}") from None
        for name, default in asdict(cls()).items():
            if type(getattr(position, name)) is not type(default):
                raise ValueError(f"not a position: {name}={values[name]!r}")
        return position
