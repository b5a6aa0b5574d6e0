"""Data as Keras takes it, without a change to the user's code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from harness import Case, CutAt, assert_exact
from models import BATCH, SAMPLES, VALIDATION, X, Y, everything, unbuilt

pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


class Batches(keras.utils.PyDataset):
    """Seven batches by number."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        part = slice(index * BATCH, (index + 1) * BATCH)
        return X[part], Y[part]


def generator(*, own_seed: int | None) -> Iterator[Any]:
    """An endless stream in random order, by its own or the global state."""
    own = None if own_seed is None else np.random.default_rng(own_seed)
    while True:
        draw = np.random.permutation if own is None else own.permutation
        order = draw(SAMPLES)
        for start in range(0, SAMPLES, BATCH):
            part = order[start : start + BATCH]
            yield X[part], Y[part]


CASES = {
    "arrays": Case(
        everything, lambda: ((X, Y), {"batch_size": BATCH, **VALIDATION})
    ),
    "arrays, shuffled within batches": Case(
        everything, lambda: ((X, Y), {"batch_size": BATCH, "shuffle": "batch"})
    ),
    "arrays in their order": Case(
        everything, lambda: ((X, Y), {"batch_size": BATCH, "shuffle": False})
    ),
    "arrays with validation_split": Case(
        everything,
        lambda: ((X, Y), {"batch_size": BATCH, "validation_split": 0.2}),
    ),
    "arrays with sample weights": Case(
        everything,
        lambda: ((X, Y), {"batch_size": BATCH, "sample_weight": X[:, 0] ** 2}),
    ),
    "arrays in turns of three": Case(
        lambda: everything(steps_per_execution=3),
        lambda: ((X, Y), {"batch_size": BATCH}),
    ),
    "arrays, fewer steps than batches": Case(
        everything,
        lambda: ((X, Y), {"batch_size": BATCH, "steps_per_epoch": 3}),
    ),
    "arrays, an unbuilt model": Case(
        unbuilt, lambda: ((X, Y), {"batch_size": BATCH})
    ),
    "arrays from a later epoch on": Case(
        everything,
        lambda: ((X, Y), {"batch_size": BATCH, "initial_epoch": 1}),
        epochs=4,
    ),
    "a PyDataset": Case(
        everything, lambda: ((Batches(),), VALIDATION), protected=True
    ),
    "a PyDataset with workers": Case(
        everything,
        lambda: ((Batches(workers=2),), VALIDATION),
        protected=True,
    ),
    "a PyDataset with workers, in its order": Case(
        everything,
        lambda: ((Batches(workers=2),), {"shuffle": False}),
        protected=True,
    ),
    "a generator": Case(
        everything,
        lambda: ((generator(own_seed=1),), {"steps_per_epoch": 5}),
    ),
    "a generator that draws from NumPy's state": Case(
        everything,
        lambda: ((generator(own_seed=None),), {"steps_per_epoch": 5}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cut_at_several_batches(name: str, tmp_path: Path) -> None:
    """
    Cut off in the middle of epochs and between two, a training goes on with
    the very batch that would have come, and ends with the same bits.
    """
    cuts = [CutAt(2), CutAt(3), CutAt(hook="on_epoch_begin:2")]
    assert_exact(CASES[name], tmp_path / "run", cuts=cuts)


def test_no_batch_is_sliced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    On JAX, going back to the last batch of an epoch of arrays slices none of
    the batches before it.
    """
    if keras.backend.backend() != "jax":
        pytest.skip("TensorFlow gathers in its own pipeline")
    from harness import train
    from keras.src.trainers.data_adapters import array_slicing

    case = CASES["arrays in their order"]
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
