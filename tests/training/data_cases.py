"""What people give to `fit`, on every backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
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


class Endless(Batches):
    """The same, without an end."""

    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index * 5 % 7)


class Changing(Batches):
    """Draws its own order at the end of each epoch, and says where it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.order = np.arange(7)
        self.random = np.random.default_rng(5)

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(int(self.order[index]))

    def on_epoch_end(self) -> None:
        self.order = self.random.permutation(7)

    def get_state(self) -> dict[str, Any]:
        return {
            "order": self.order,
            "random": self.random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.order = state["order"]
        self.random.bit_generator.state = state["random"]


class Augmented(Batches):
    """Adds noise of NumPy's global state to each batch."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x + np.random.normal(size=x.shape).astype("float32") / 10, y


class Begun(Changing):
    """Counts the epochs that were begun, too, and draws by that."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun = 0

    def on_epoch_begin(self) -> None:
        self.begun += 1

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x * self.begun, y

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "begun": self.begun}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.begun = state["begun"]


class Growing(Changing):
    """Has more batches in each epoch, in a new order."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.epochs = 0

    @property
    def num_batches(self) -> int:
        return min(7, 3 + 2 * self.epochs)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        self.epochs += 1

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "epochs": self.epochs}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.epochs = state["epochs"]


class Stream:
    """An endless stream that knows its position."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(8)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        chosen = self.random.integers(SAMPLES, size=BATCH)
        return X[chosen], Y[chosen]

    def get_state(self) -> dict[str, Any]:
        return self.random.bit_generator.state

    def set_state(self, state: dict[str, Any]) -> None:
        self.random.bit_generator.state = state


class Finite:
    """An epoch at a time: `__iter__` begins anew."""

    def __init__(self) -> None:
        self.number = 0

    def __iter__(self) -> Iterator[Any]:
        self.number = 0
        return self

    def __next__(self) -> Any:
        if self.number == 7:
            raise StopIteration
        part = slice(self.number * BATCH, (self.number + 1) * BATCH)
        self.number += 1
        return X[part], Y[part]

    def get_state(self) -> dict[str, int]:
        return {"number": self.number}

    def set_state(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def frames() -> tuple[Any, Any]:
    """The same as tables."""
    import pandas as pd

    return pd.DataFrame(X), pd.DataFrame(Y)


def grain_map_dataset() -> Any:
    """A Grain pipeline of random access."""
    import grain

    numbers = grain.MapDataset.range(SAMPLES).seed(3).shuffle()
    return numbers.map(lambda i: (X[i], Y[i])).batch(BATCH)


def grain_iter_dataset() -> Any:
    """A Grain pipeline that is read in its order, by threads."""
    import grain

    numbers = grain.MapDataset.range(SAMPLES).seed(3).shuffle().repeat()
    samples = numbers.map(lambda i: (X[i], Y[i])).to_iter_dataset()
    return samples.batch(BATCH)


def grain_loader(*, represented: bool) -> Any:
    """Grain's other interface; its states hold the source's repr()."""
    import grain

    class Pairs:
        def __repr__(self) -> str:  # As with the address that it has else.
            return "Pairs()" if represented else f"Pairs at {os.getpid()}"

        def __len__(self) -> int:
            return SAMPLES

        def __getitem__(self, index: int) -> Any:
            return X[index], Y[index]

    sampler = grain.samplers.IndexSampler(
        SAMPLES, shuffle=True, seed=3, num_epochs=1
    )
    return grain.DataLoader(
        data_source=Pairs(),
        sampler=sampler,
        operations=[grain.transforms.Batch(BATCH)],
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
    "tensors": Case(
        everything,
        lambda: (
            (keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y)),
            {"batch_size": BATCH},
        ),
    ),
    "pandas": Case(everything, lambda: (frames(), {"batch_size": BATCH})),
    "arrays with class weights": Case(
        unbuilt,
        lambda: (
            (X, (Y > 0).astype("float32")),
            {"batch_size": BATCH, "class_weight": {0: 0.5, 1: 2.0}},
        ),
    ),
    "arrays in turns of three": Case(
        lambda: everything(steps_per_execution=3),
        lambda: ((X, Y), {"batch_size": BATCH}),
    ),
    "arrays, fewer steps than batches": Case(
        everything,
        lambda: ((X, Y), {"batch_size": BATCH, "steps_per_epoch": 3}),
    ),
    "arrays, as many steps as batches": Case(
        everything,
        lambda: ((X, Y), {"batch_size": BATCH, "steps_per_epoch": 7}),
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
        draws_before=True,
    ),
    "a PyDataset with processes": Case(
        everything,
        lambda: ((Batches(workers=2, use_multiprocessing=True),), {}),
        protected=True,
    ),
    "a PyDataset without an end": Case(
        everything, lambda: ((Endless(),), {"steps_per_epoch": 5})
    ),
    "a PyDataset without an end, with workers": Case(
        everything,
        lambda: ((Endless(workers=2),), {"steps_per_epoch": 5}),
        protected=True,  # Without us, Keras loses the batch it looks at.
    ),
    "a PyDataset that changes itself": Case(
        everything, lambda: ((Changing(),), {"shuffle": False})
    ),
    "a PyDataset that changes itself, with workers": Case(
        everything,
        lambda: ((Changing(workers=2),), {"shuffle": False}),
        protected=True,  # Without us, Keras on JAX loses what it looks at.
    ),
    "a PyDataset that changes itself, with workers, across epochs": Case(
        everything,
        lambda: (
            (Changing(workers=2),),
            {"shuffle": False, "steps_per_epoch": 3},
        ),
        protected=True,
    ),
    "a PyDataset that changes itself, across epochs": Case(
        everything,
        lambda: ((Changing(),), {"shuffle": False, "steps_per_epoch": 3}),
        protected=True,
    ),
    "a PyDataset with processes, across epochs": Case(
        everything,
        lambda: (
            (Batches(workers=2, use_multiprocessing=True),),
            {"steps_per_epoch": 3},
        ),
        protected=True,
    ),
    "a PyDataset that grows": Case(
        everything, lambda: ((Growing(),), {}), protected=True
    ),
    "a PyDataset that counts its epochs": Case(
        everything, lambda: ((Begun(),), {"shuffle": False})
    ),
    "a PyDataset that draws from NumPy's state": Case(
        everything, lambda: ((Augmented(),), {"shuffle": False})
    ),
    "bg.data.indexed": Case(
        everything,
        lambda: (
            (
                bg.data.indexed(
                    lambda indices: (X[indices], Y[indices]),
                    samples=SAMPLES,
                    batch_size=BATCH,
                    seed=3,
                ),
            ),
            VALIDATION,
        ),
    ),
    "bg.data.indexed, samples in turns of three": Case(
        lambda: everything(steps_per_execution=3),
        lambda: (
            (
                bg.data.indexed(
                    list(zip(X, Y, strict=True)), batch_size=BATCH, seed=3
                ),
            ),
            {},
        ),
    ),
    "bg.data.arrays, fewer steps than batches": Case(
        everything, lambda: (ARRAYS.data()[0], {"steps_per_epoch": 3})
    ),
    "bg.data.arrays, as many steps as batches": Case(
        everything, lambda: (ARRAYS.data()[0], {"steps_per_epoch": 7})
    ),
    "bg.data.indexed, fewer steps than batches": Case(
        everything,
        lambda: (
            (
                bg.data.indexed(
                    list(zip(X, Y, strict=True)), batch_size=BATCH, seed=3
                ),
            ),
            {"steps_per_epoch": 5},
        ),
    ),
    "a PyDataset, fewer steps than batches": Case(
        everything,
        lambda: ((Batches(),), {"steps_per_epoch": 3}),
        protected=True,
    ),
    "a PyDataset, as many steps as batches": Case(
        everything,
        lambda: ((Batches(),), {"steps_per_epoch": 7}),
        protected=True,
    ),
    "bg.data.stream that begins anew": Case(
        everything, lambda: ((bg.data.stream(Finite()),), {})
    ),
    "bg.data.stream": Case(
        everything,
        lambda: ((bg.data.stream(Stream()),), {"steps_per_epoch": 5}),
    ),
    "Grain, MapDataset": Case(unbuilt, lambda: ((grain_map_dataset(),), {})),
    "Grain, IterDataset": Case(
        everything, lambda: ((grain_iter_dataset(),), {"steps_per_epoch": 5})
    ),
    "Grain, DataLoader": Case(
        unbuilt, lambda: ((grain_loader(represented=True),), {})
    ),
    "Grain, DataLoader of a source without repr": Case(
        unbuilt, lambda: ((grain_loader(represented=False),), {})
    ),
}


def validated(on: Callable[[], Any], *, steps: int | None = None) -> Case:
    """A training validated on data that moves from one epoch to the next."""
    arguments = {} if steps is None else {"validation_steps": steps}
    return Case(
        everything,
        lambda: (ARRAYS.data()[0], {"validation_data": on(), **arguments}),
        protected=True,  # Without us, batches that were read ahead are lost.
    )


VALIDATED = {
    "validated on bg.data.arrays": validated(
        lambda: bg.data.arrays(X, Y, batch_size=5, seed=9), steps=3
    ),
    "validated on bg.data.indexed": validated(
        lambda: bg.data.indexed(
            list(zip(X, Y, strict=True)), batch_size=5, seed=9
        )
    ),
    "validated on a generator": validated(
        lambda: generator(own_seed=4), steps=4
    ),
    "validated on bg.data.stream": validated(
        lambda: bg.data.stream(Stream()), steps=3
    ),
    "validated on bg.data.stream that begins anew": validated(
        lambda: bg.data.stream(Finite())
    ),
    "validated on a PyDataset that changes itself": validated(
        Changing, steps=3
    ),
    "validated on arrays, fewer steps than batches": validated(
        lambda: (X, Y), steps=2
    ),
    "validated on Grain": validated(grain_iter_dataset, steps=3),
}
CASES.update(VALIDATED)


def torch_loader(*, own_generator: bool, columns: Any = (X, Y)) -> Any:
    """PyTorch's own loader."""
    import torch

    tensors = torch.utils.data.TensorDataset(*map(torch.as_tensor, columns))
    generator = torch.Generator().manual_seed(3) if own_generator else None
    return torch.utils.data.DataLoader(
        tensors, batch_size=BATCH, shuffle=True, generator=generator
    )


if keras.backend.backend() == "torch":
    CASES["a DataLoader"] = Case(
        everything, lambda: ((torch_loader(own_generator=False),), {})
    )
    CASES["a DataLoader with a generator"] = Case(
        everything, lambda: ((torch_loader(own_generator=True),), {})
    )
if keras.backend.backend() == "torch":
    CASES["a DataLoader, as many steps as batches"] = Case(
        everything,
        lambda: ((torch_loader(own_generator=True),), {"steps_per_epoch": 7}),
    )
if keras.backend.backend() == "torch":
    CASES["validated on a DataLoader"] = validated(
        lambda: torch_loader(own_generator=True), steps=3
    )
if keras.backend.backend() == "torch":  # Keras does neither there.
    CASES = {
        name: case
        for name, case in CASES.items()
        if "turns" not in name and "XLA" not in name
    }
