"""What people give to `fit`, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from harness import Case
from models import BATCH, SAMPLES, VALIDATION, X, Y, everything, unbuilt

import colab_keras_bg as bg


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


ARRAYS = Case(
    everything,
    lambda: ((bg.data.arrays(X, Y, batch_size=BATCH, seed=3),), VALIDATION),
)
CASES = {
    "bg.data.arrays": ARRAYS,
    "bg.data.arrays in turns of three": Case(
        lambda: everything(steps_per_execution=3), ARRAYS.data
    ),
    "bg.data.arrays, compiled by XLA": Case(
        lambda: everything(jit_compile=True), ARRAYS.data
    ),
    "bg.data.arrays, an unbuilt model": Case(unbuilt, ARRAYS.data),
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
