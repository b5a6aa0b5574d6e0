"""Whatever `fit` is given, it goes on with the very batch that would come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import argument_cases
import data_cases
import keras
import numpy as np
import pytest
from cases import in_turns
from fresh_process import (
    Interruption,
    assert_exact,
    at_each_kind_of_position,
    at_random,
)
from harness import CutAt, train
from models import BATCH

import colab_keras_bg as bg

# The cells of the table in docs/exact-resume.md; the others are variants.
KINDS = [
    name
    for name in data_cases.CASES
    if name
    in {
        "Grain, DataLoader",
        "Grain, IterDataset",
        "Grain, MapDataset",
        "a DataLoader with a generator",
        "a PyDataset with processes",
        "a PyDataset with workers",
        "a PyDataset without an end",
        "a PyDataset",
        "a generator",
        "arrays",
        "bg.data.arrays",
        "bg.data.indexed",
        "bg.data.stream",
        "pandas",
        "tensors",
    }
]
VARIANTS = [
    name
    for name in data_cases.CASES
    if name not in KINDS and name not in data_cases.VALIDATED
]

# What takes the same way through the code as another; with -m slow.
ALIKE = {
    "a PyDataset with workers, in its order",
    "a PyDataset, fewer steps than batches",
    "arrays from a later epoch on",
    "arrays in turns of three",
    "arrays with sample weights",
    "bg.data.arrays in turns of three",
    "bg.data.indexed, fewer steps than batches",
    "bg.data.indexed, samples in turns of three",
}


@pytest.mark.parametrize("name", in_turns(data_cases.VALIDATED))
def test_validation_goes_on(name: str, tmp_path: Path) -> None:
    """
    Data to validate on that moves from one epoch to the next is where it
    would have been, killed in the second epoch and between two.
    """
    interruptions = [
        Interruption(batches=9),
        Interruption(hook="on_epoch_begin:2"),
    ]
    assert_exact(name, tmp_path / "run", interruptions)


ARGUMENTS = [name for name in argument_cases.CASES if "tf.data" not in name]


@pytest.mark.parametrize(
    "name",
    in_turns(ARGUMENTS, slow={n for n in ARGUMENTS if "all at" not in n}),
)
def test_with_other_arguments(name: str, tmp_path: Path) -> None:
    """
    Each kind of data goes on with each argument of `fit` that changes what
    is seen of it, and with all of them together.
    """
    kinds = ["SIGKILL", "SIGKILL"]
    assert_exact(name, tmp_path / "run", at_random(name, kinds=kinds))


@pytest.mark.parametrize("name", in_turns(VARIANTS, slow=ALIKE))
def test_variants_killed_at_random(name: str, tmp_path: Path) -> None:
    """
    The same holds for what can be given besides, killed twice at random
    batches.
    """
    kinds = ["SIGKILL", "SIGKILL"]
    assert_exact(name, tmp_path / "run", at_random(name, kinds=kinds))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_at_each_kind_of_position(name: str, tmp_path: Path) -> None:
    """
    And at each kind of position.
    """
    assert_exact(name, tmp_path / "run", at_each_kind_of_position(name))


@pytest.mark.parametrize("name", in_turns(KINDS))
def test_killed_at_each_kind_of_position(name: str, tmp_path: Path) -> None:
    """
    Killed after the first batch of an epoch, in its middle, at its last
    batch, between two epochs and after the first batch of the next, each time
    going on in a fresh process, a training ends with the same bits, and no
    batch is seen twice or left out.
    """
    assert_exact(name, tmp_path / "run", at_each_kind_of_position(name))


def test_no_batch_is_sliced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    On JAX, going back to the last batch of an epoch of arrays slices none of
    the batches before it.
    """
    if keras.backend.backend() != "jax":
        pytest.skip("TensorFlow gathers in its own pipeline")
    from keras.src.trainers.data_adapters import array_slicing

    case = data_cases.CASES["arrays in their order"]
    train(case, tmp_path, cut=CutAt(6))
    sliced = []
    original = array_slicing.NumpySliceable.__getitem__

    def counted(self: object, indices: slice) -> object:
        sliced.append(indices)
        return original(self, indices)

    monkeypatch.setattr(array_slicing.NumpySliceable, "__getitem__", counted)
    train(case, tmp_path, cut=CutAt(1))
    # Keras looks at the first batches to build the metrics.
    starts = {indices.start for indices in sliced} - {0, BATCH}
    assert min(starts) >= 4 * BATCH


class Seen(keras.metrics.Sum):
    """The sum of all targets that a model is trained on in an epoch."""

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        super().update_state(y_true)


class Numbered(keras.utils.PyDataset):
    """Seven batches of one sample: batch n has the target 2 ** n."""

    num_batches = 7

    def __getitem__(self, index: int) -> Any:
        return np.ones((1, 2)), np.full((1, 1), 2.0**index)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("workers", [1, 3])
def test_each_batch_comes_once_in_a_pass(workers: int, tmp_path: Path) -> None:
    """
    Seven batches of a PyDataset in epochs of three: with workers or without,
    a pass over the data takes three epochs and leaves out nothing, and the
    next pass begins anew.
    """
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mae", metrics=[Seen(name="seen")])
    history = model.fit(
        Numbered(workers=workers),
        steps_per_epoch=3,
        epochs=5,
        verbose=0,
        callbacks=[bg.BackupAndRestore(tmp_path / "run")],
    )
    seen = [int(value) for value in history.history["seen"]]
    assert [value.bit_count() for value in seen] == [3, 3, 1, 3, 3]
    assert sum(seen[:3]) == 127
    assert seen[3] & seen[4] == 0
