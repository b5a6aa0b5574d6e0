"""Trains a case undisturbed and interrupted, and compares the ends bit by bit.

An interruption here is an exception that no callback survives, in a process
that then forgets everything: new model, new callbacks, scrambled random
state. Killed processes are those of `fresh_process.py`.
"""

from __future__ import annotations

import functools
import hashlib
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

import colab_keras_bg as bg
from colab_keras_bg.callbacks import training
from colab_keras_bg.training_state.variables import training_variables

SEED = 11

# What prints, measures and reports beside a training is tested by itself.
UNWATCHED: dict[str, Any] = {
    "console": "off",
    "resources": "off",
    "report": "off",
}


class PowerCut(BaseException):
    """Not an Exception: no `except Exception` can survive a power cut."""


class CutAt(keras.callbacks.Callback):
    """Cuts the power after so many batches of this process, or at a hook."""

    async_safe = True

    def __init__(self, batches: int | None = None, hook: str = "") -> None:
        super().__init__()
        self._left = batches
        name, _, number = hook.partition(":")
        if name:
            setattr(self, name, self._cut_at_epoch(int(number)))

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass

    def _cut_at_epoch(self, number: int) -> Callable[..., None]:
        def hook(epoch: int, logs: Any = None) -> None:
            if epoch == number:
                raise PowerCut

        return hook

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise PowerCut


@dataclass(eq=False)
class Case:
    """A training as a user writes it.

    Attributes:
        model: Builds and compiles the model.
        data: Makes the positional and keyword arguments of `fit`.
        epochs: As for `fit`.
        callbacks: Makes the user's other callbacks.
        protected: Whether the undisturbed training is protected, too: with
            our callback some data comes in another order than without.
        draws_before: Whether the data draws from NumPy's global state before
            the training begins, so that a program has to seed it each time.
        scope: What the model is made in, such as a strategy's scope.
    """

    model: Callable[[], Any]
    data: Callable[[], tuple[Sequence[Any], dict[str, Any]]]
    epochs: int = 3
    callbacks: Callable[[], list[Any]] = list
    protected: bool = False
    draws_before: bool = False
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass
class End:
    """What a training ended with.

    Attributes:
        variables: A hash by key.
        history: The epochs and the values, floats as hexadecimal text.
        batches: The (epoch, batch) that another callback saw.
    """

    variables: dict[str, str]
    history: dict[str, list[Any]]
    batches: list[tuple[int, int]] = field(default_factory=list)


class Witness(keras.callbacks.Callback):
    """Another callback: writes down which batches it sees."""

    async_safe = False

    def __init__(
        self, batches: list[tuple[int, int]], *, log: Path | None = None
    ) -> None:
        super().__init__()
        self.batches = batches
        self._log = log

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches.append((self._epoch, batch))
        if self._log is not None:  # It outlives a SIGKILL.
            with self._log.open("a") as log:
                log.write(f"[{self._epoch}, {batch}]\n")

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class Settled(keras.callbacks.Callback):
    """Waits for each save, so that each step is surely saved."""

    async_safe = False

    def __init__(self, run: bg.Run) -> None:
        super().__init__()
        self._run = run

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._run.saves.wait()


class Slow(keras.callbacks.Callback):
    """A stranger: it does not say whether it keeps state."""


def train(
    case: Case,
    run_dir: Path | None,
    *,
    save_freq: Any = 1,
    cut: CutAt | None = None,
    batches: list[tuple[int, int]] | None = None,
    tensorboard: int = 10,
) -> End | None:
    """One attempt in a fresh state; None if the power was cut."""
    keras.utils.clear_session()
    training._fits_done.clear()
    keras.utils.set_random_seed(SEED)
    with case.scope():
        model = case.model()
    args, kwargs = case.data()
    seen: list[tuple[int, int]] = [] if batches is None else batches
    others = [*case.callbacks(), Witness(seen)]

    def fit(callbacks: list[Any]) -> End:
        history = model.fit(
            *args,
            **kwargs,
            epochs=case.epochs,
            verbose=0,
            callbacks=callbacks,
        )
        return end_of(model, history, seen)

    if run_dir is None:
        return fit(others)
    random.seed(99)
    np.random.seed(99)  # A new process would be seeded; its state is restored.
    keras.utils.set_random_seed(SEED)
    try:
        with bg.Run(run_dir, save_freq=save_freq, **UNWATCHED) as run:
            return fit(
                [
                    *run.callbacks(tensorboard=tensorboard),
                    *others,
                    Settled(run),
                    *([cut] if cut else []),
                ]
            )
    except PowerCut:
        return None


@functools.cache
def undisturbed(case: Case) -> End:
    """How a case ends if nothing interrupts it and nothing is saved."""
    if case.protected:
        with tempfile.TemporaryDirectory() as directory:
            end = train(case, Path(directory), save_freq=10**9)
    else:
        end = train(case, None)
    assert end is not None
    return end


def end_of(model: Any, history: Any, seen: list[tuple[int, int]]) -> End:
    """Hashes a model and its history."""
    return End(
        variables={
            key: hashlib.sha256(
                np.ascontiguousarray(
                    keras.ops.convert_to_numpy(_value_of(variable))
                ).tobytes()
            ).hexdigest()[:16]
            for key, variable in training_variables(model).items()
        },
        history={
            "epoch": list(history.epoch),
            **{
                name: [
                    float(v).hex() if np.isscalar(v) else repr(v)
                    for v in values
                ]
                for name, values in history.history.items()
            },
        },
        batches=seen,
    )


def _value_of(variable: Any) -> Any:
    """A variable of a strategy's is one value here."""
    read = getattr(variable.value, "read_value", None)
    return variable.value if read is None else read()


def assert_exact(
    case: Case,
    tmp_path: Path,
    *,
    cuts: Sequence[CutAt],
    save_freq: Any = 1,
) -> None:
    """Interrupted as given, the training ends as if it never had been."""
    expected = undisturbed(case)
    seen: list[tuple[int, int]] = []
    for cut in cuts:
        ended = train(
            case, tmp_path, save_freq=save_freq, cut=cut, batches=seen
        )
        assert ended is None, "the power cut did not come"
    actual = train(case, tmp_path, save_freq=save_freq, batches=seen)
    assert actual is not None
    assert expected.history == actual.history
    if save_freq == 1:
        assert _once(expected.batches) == _once(actual.batches)
    assert expected.variables == actual.variables


def _once(batches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A batch that was cut off before its save is seen again, rightly."""
    return list(dict.fromkeys(batches))
