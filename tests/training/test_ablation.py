"""Each further part of the state matters: without it, the end is another."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from data_cases import ARRAYS
from harness import Case, CutAt, assert_exact
from model_cases import CASES, TENSORFLOW

from colab_keras_bg.callbacks.training import Training
from colab_keras_bg.training_state import random_state, snapshot
from colab_keras_bg.training_state.callback_states import CallbackStates


class Jitter(keras.callbacks.Callback):
    """Another learning rate each batch, from what is drawn or counted."""

    async_safe = False

    def __init__(self, draw: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self._draw = draw or self._counted
        self._count = 0

    def _counted(self) -> float:
        self._count += 1
        return 1 / self._count

    def get_state(self) -> dict[str, Any]:
        return {"count": self._count}

    def set_state(self, state: dict[str, Any]) -> None:
        self._count = state["count"]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        rate = 1e-3 * (1 + float(self._draw()))
        self.model.optimizer.learning_rate.assign(rate)


def with_jitter(draw: Callable[[], Any] | None = None) -> Case:
    """A plain model, and such a callback."""
    plain = CASES["Ftrl"]
    return Case(
        plain.model,
        plain.data,
        callbacks=lambda: [Jitter(draw)],
        protected=True,  # The harness seeds a protected training once more.
    )


def from_tensorflow() -> Any:
    """A draw from the seeds of TensorFlow's eager operations."""
    import tensorflow as tf

    return tf.random.uniform(())


def without_random(part: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Leaves one random state out."""
    whole = random_state.apply

    def apply(state: dict[str, Any], **options: Any) -> None:
        assert part in state
        whole({k: v for k, v in state.items() if k != part}, **options)

    return lambda patch: patch.setattr(random_state, "apply", apply)


def without_variables(place: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Leaves the variables out whose key or path has this in it."""
    whole = snapshot.assign

    def assign(
        variables: dict[str, Any], tensors: dict[str, Any], **options: Any
    ) -> None:
        left_out = {
            key
            for key, variable in variables.items()
            if place in key or place in getattr(variable, "path", "")
        }
        assert left_out
        kept = {k: v for k, v in tensors.items() if k not in left_out}
        whole(variables, kept, **options)

    return lambda patch: patch.setattr(snapshot, "assign", assign)


def without_callbacks(patch: pytest.MonkeyPatch) -> None:
    """Leaves the state of the callbacks out."""
    patch.setattr(CallbackStates, "apply", lambda *_: None)


def without_history(patch: pytest.MonkeyPatch) -> None:
    """Leaves the history out."""
    whole = Training._checkpoint

    def checkpoint(self: Training) -> Any:
        found = whole(self)
        if found is None:
            return None
        history = {"epoch": [], "values": {}}
        return dataclasses.replace(
            found, state={**found.state, "history": history}
        )

    patch.setattr(Training, "_checkpoint", checkpoint)


def without_order(patch: pytest.MonkeyPatch) -> None:
    """Leaves out where the data was."""
    whole = Training._saved

    def saved(self: Training, *given: Any) -> Any:
        return dataclasses.replace(whole(self, *given), batch=0)

    patch.setattr(Training, "_saved", saved)


Ablation = tuple[Case, Callable[[pytest.MonkeyPatch], None]]
ABLATIONS: dict[str, Ablation] = {
    "Python's random state": (
        with_jitter(random.random),
        without_random("python"),
    ),
    "NumPy's random state": (
        with_jitter(np.random.random),
        without_random("numpy"),
    ),
    "the global seed generator": (
        with_jitter(lambda: keras.random.uniform(())),
        without_variables(random_state.GLOBAL_SEED),
    ),
    "the callbacks' state": (with_jitter(), without_callbacks),
    "the history": (ARRAYS, without_history),
    "the order of the data": (ARRAYS, without_order),
    "the loss scale": (
        CASES["float16 with LossScaleOptimizer"],
        without_variables("dynamic_scale"),
    ),
    "gradient accumulators": (
        CASES["accumulation"],
        without_variables("gradient_accumulator"),
    ),
    "the learning rate": (
        CASES["a learning rate set each batch"],
        without_variables("learning_rate"),
    ),
}
if TENSORFLOW:
    ABLATIONS |= {
        "TensorFlow's random state": (
            with_jitter(from_tensorflow),
            without_random("tensorflow"),
        ),
        "what Keras does not track": (
            CASES["variables in an object of the user's"],
            without_variables("untracked/"),
        ),
        "states of a recurrent layer": (
            CASES["a stateful GRU"],
            without_variables("/states/"),
        ),
        "the second optimizer": (
            CASES["a GAN with two optimizers"],
            without_variables("g_optimizer/"),
        ),
    }


@pytest.fixture(autouse=True)
def _a_policy_for_this_test_only() -> Any:
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


# One of each kind in every run of the tests; all of them with `-m slow`, too.
QUICK = ("the second optimizer", "the history", "the order of the data")


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, marks=[pytest.mark.slow] * (part not in QUICK))
        for part in ABLATIONS
    ],
)
def test_each_part_of_the_state_matters(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With every part of the state the end is the same; leaving this one out
    changes it, and the comparison notices.
    """
    case, leave_out = ABLATIONS[part]
    cuts = [4, 12]
    assert_exact(case, tmp_path / "a", cuts=[CutAt(n) for n in cuts])
    leave_out(monkeypatch)
    with pytest.raises(AssertionError):
        assert_exact(case, tmp_path / "b", cuts=[CutAt(n) for n in cuts])
