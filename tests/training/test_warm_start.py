"""Values of a run put into another model, whole or in part."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from harness import CutAt, train
from keras import layers
from models import X, Y

import colab_keras_bg as bg


def model(outputs: int = 1, hidden: int = 6) -> keras.Model:
    """Two layers."""
    made = keras.Sequential(
        [keras.Input((12,)), layers.Dense(hidden), layers.Dense(outputs)]
    )
    made.compile("adam", "mse")
    return made


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run."""
    keras.utils.set_random_seed(3)
    trained = model()
    trained.fit(X, Y, verbose=0, callbacks=bg.unattended(tmp_path / "run"))
    np.savez(tmp_path / "weights.npz", *trained.get_weights())
    return tmp_path / "run"


def expected(run_dir: Path) -> list[np.ndarray]:
    """The weights that the run ended with."""
    with np.load(run_dir.parent / "weights.npz") as held:
        return [held[name] for name in held.files]


def test_whole(run_dir: Path) -> None:
    """
    All weights of what the run ended with, and nothing of the optimizer.
    """
    made = model()
    step = bg.restore(made, run_dir)
    assert 2 == step
    for weights, value in zip(
        made.get_weights(), expected(run_dir), strict=True
    ):
        assert np.array_equal(value, weights)
    assert 0 == int(made.optimizer.iterations)


def test_with_the_optimizer(run_dir: Path) -> None:
    """
    Asked for, what the optimizer keeps is put in, too.
    """
    made = model()
    made.optimizer.build(made.trainable_variables)
    bg.restore(made, run_dir, only=["model/*", "optimizer/*"])
    assert 2 == int(made.optimizer.iterations)


def test_in_part(run_dir: Path) -> None:
    """
    The layers that are skipped, here of another shape, stay what they are.
    """
    made = model(outputs=3)
    head = [np.array(w) for w in made.layers[1].get_weights()]
    bg.restore(made, run_dir, skip="model/layers/dense_1/*")
    values = expected(run_dir)
    for weights, value in zip(
        made.layers[0].get_weights(), values, strict=False
    ):
        assert np.array_equal(value, weights)
    for weights, value in zip(made.layers[1].get_weights(), head, strict=True):
        assert np.array_equal(value, weights)


def test_all_that_differs_is_listed(run_dir: Path) -> None:
    """
    What does not fit is listed in one error, and nothing is changed.
    """
    made = model(outputs=3, hidden=5)
    before = [np.array(w) for w in made.get_weights()]
    with pytest.raises(bg.errors.UsageError) as raised:
        bg.restore(made, run_dir)
    said = str(raised.value)
    assert "model/layers/dense/vars/0: float32[12, 5] in the model" in said
    assert "float32[12, 6] there" in said
    assert "model/layers/dense_1/vars/1: float32[3] in the model" in said
    for weights, value in zip(made.get_weights(), before, strict=True):
        assert np.array_equal(value, weights)


def test_a_step_of_a_run_that_goes_on(tmp_path: Path) -> None:
    """
    A step may be named; else the newest is taken.
    """
    from data_cases import ARRAYS
    from models import everything

    run_dir = tmp_path / "run"
    assert train(ARRAYS, run_dir, cut=CutAt(5)) is None
    made = everything()
    assert 4 == bg.restore(made, run_dir)
    assert 3 == bg.restore(made, run_dir, step=3)


WRONG = {
    "no run": ({"run_dir": "nowhere"}, "There is no run in"),
    "no such step": ({"step": 99}, "99"),
    "only": ({"only": "modle/*"}, r"only='modle/\*' meets no variable"),
    "skip": ({"skip": ["head"]}, "skip='head' meets no variable"),
    "nothing left": ({"skip": "*"}, "leave no variable to put in"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_meant(name: str, run_dir: Path) -> None:
    """
    What cannot be meant is told before anything is changed.
    """
    given, said = WRONG[name]
    arguments = {"run_dir": run_dir, **given}
    if arguments["run_dir"] == "nowhere":
        arguments["run_dir"] = run_dir.parent / "nowhere"
    made = model()
    before = [np.array(w) for w in made.get_weights()]
    with pytest.raises(bg.errors.BackgroundTrainingError, match=said):
        bg.restore(made, **arguments)
    for weights, value in zip(made.get_weights(), before, strict=True):
        assert np.array_equal(value, weights)


def test_unbuilt_model(run_dir: Path) -> None:
    """
    A model without variables cannot be given any.
    """
    with pytest.raises(bg.errors.UsageError, match="needs a built model"):
        bg.restore(keras.Sequential([layers.Dense(1)]), run_dir)
