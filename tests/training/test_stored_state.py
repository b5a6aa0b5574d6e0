"""A state that cannot be gone on from is damage, told by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from models import BATCH, X, Y

import colab_keras_bg as bg
from colab_keras_bg.callbacks import training
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.tensor import LazyTensor


def fit(run_dir: Path, *, epochs: int) -> keras.Model:
    """A training, as another process would begin it."""
    training._fits_done.clear()
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with bg.Run(run_dir, save_freq="epoch") as run:
        model.fit(
            bg.data.arrays(X, Y, batch_size=BATCH),
            epochs=epochs,
            verbose=0,
            callbacks=run.callbacks(),
        )
    return model


def forged(run_dir: Path, change: Callable[[Any, Any], object]) -> None:
    """The last checkpoint, written by somebody who knows our hashes."""
    directory = RunDirectory(run_dir)
    found = directory.checkpoints.latest()
    assert found is not None
    state = json.loads(json.dumps(found.state))
    tensors = {key: np.array(value) for key, value in found.tensors.items()}
    change(state, tensors)
    step = found.step
    for store in (directory.checkpoints, directory.finals):
        for present in store.steps():
            store.delete(present)
    directory.checkpoints.save(
        step,
        attempt=1,
        tensors={k: LazyTensor.of(v) for k, v in tensors.items()},
        state=state,
    )


CHANGES: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "no position": (lambda s, t: s.pop("position"), "'position' is missing"),
    "no loop": (lambda s, t: s.pop("loop"), "'loop' is missing"),
    "no data": (lambda s, t: s.pop("data"), "'data' is missing"),
    "a number": (lambda s, t: s.update(random=5), "its random is 5"),
    "a text": (
        lambda s, t: s["loop"].update(steps_seen="many"),
        "its loop/steps_seen is 'many'",
    ),
    "no epochs": (
        lambda s, t: s["history"].pop("epoch"),
        "its history/epoch is missing",
    ),
    "a position that is none": (
        lambda s, t: s["position"].update(step="five"),
        "not a position",
    ),
    "a weight is missing": (
        lambda s, t: t.pop("model/layers/dense/vars/0"),
        "None in the checkpoint",
    ),
    "a weight of another shape": (
        lambda s, t: t.update({"model/layers/dense/vars/0": np.zeros(3)}),
        "[3] in the checkpoint",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    """No traceback of ours or Keras', and no weight left as it was drawn."""
    change, expected = CHANGES[name]
    fit(tmp_path / "run", epochs=1)
    forged(tmp_path / "run", change)
    with pytest.raises(bg.errors.DamagedCheckpointError) as caught:
        fit(tmp_path / "run", epochs=2)
    assert expected in str(caught.value)


def test_forging_itself_does_no_harm(tmp_path: Path) -> None:
    """The tests above would not pass for another reason."""
    expected = fit(tmp_path / "a", epochs=2)
    fit(tmp_path / "run", epochs=1)
    forged(tmp_path / "run", lambda state, tensors: None)
    found = fit(tmp_path / "run", epochs=2)
    for one, other in zip(found.weights, expected.weights, strict=True):
        assert np.array_equal(one, other)
