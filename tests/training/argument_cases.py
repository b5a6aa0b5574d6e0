"""Each kind of data with each argument of `fit` that changes what is seen."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
from data_cases import Batches, Stream, torch_loader
from harness import Case
from models import BATCH, SAMPLES, VALIDATION, X, Y, everything

import colab_keras_bg as bg

CLASSES = (Y > 0).astype("float32")
WEIGHTS = X[:, 0] ** 2
CLASS_WEIGHT = {0: 0.5, 1: 2.0}

# Of samples: what a kind of data is made of; one batch is a slice of each.
Columns = tuple[Any, ...]


class Sliced(Batches):
    """Batches by number, of any columns."""

    def __init__(self, columns: Columns, **options: Any) -> None:
        super().__init__(**options)
        self._columns = columns

    def __getitem__(self, index: int) -> Any:
        part = slice(index * BATCH, (index + 1) * BATCH)
        return tuple(column[part] for column in self._columns)


def generator(columns: Columns) -> Iterator[Any]:
    """The same without an end."""
    for index in itertools.cycle(range(7)):
        yield Sliced(columns)[index]


class SlicedStream(Stream):
    """The same, drawn at random."""

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self._columns = columns

    def __next__(self) -> Any:
        chosen = self.random.integers(SAMPLES, size=BATCH)
        return tuple(column[chosen] for column in self._columns)


def grain(columns: Columns) -> Any:
    """The same by Grain."""
    import grain

    numbers = grain.MapDataset.range(SAMPLES).seed(3).shuffle()
    samples = numbers.map(lambda i: tuple(column[i] for column in columns))
    return samples.batch(BATCH)


def tf_data(columns: Columns) -> Any:
    """The same by `tf.data`."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(columns)
    return dataset.shuffle(SAMPLES).batch(BATCH).prefetch(2)


ENDLESS = {"steps_per_epoch": 7}
# A source, and what `fit` needs with it in any case.
SOURCES: dict[str, tuple[Callable[[Columns], Any], dict[str, Any]]] = {
    "arrays": (lambda columns: columns, {"batch_size": BATCH}),
    "bg.data.arrays": (
        lambda columns: bg.data.arrays(*columns, batch_size=BATCH, seed=3),
        {},
    ),
    "bg.data.indexed": (
        lambda columns: bg.data.indexed(
            lambda indices: tuple(column[indices] for column in columns),
            samples=SAMPLES,
            batch_size=BATCH,
            seed=3,
        ),
        {},
    ),
    "bg.data.stream": (
        lambda columns: bg.data.stream(SlicedStream(columns)),
        ENDLESS,
    ),
    "a PyDataset": (Sliced, {}),
    "a PyDataset with workers": (
        functools.partial(Sliced, workers=2),
        {},
    ),
    "a generator": (generator, ENDLESS),
    "Grain": (grain, {}),
    "tf.data": (tf_data, {}),
}
if keras.backend.backend() == "torch":
    SOURCES["a DataLoader"] = (
        lambda columns: torch_loader(own_generator=True, columns=columns),
        {},
    )

# What of it Keras, or the data, cannot do.
_NONE_THERE = "Keras takes no class_weight with it: its batches have weights"
CANNOT = {
    ("a generator", "class_weight"): _NONE_THERE,
    ("a DataLoader", "class_weight"): _NONE_THERE,
    ("Grain", "class_weight"): _NONE_THERE,
    ("bg.data.stream", "class_weight"): "its batches have weights",
}


# By argument: what the data is made of, what `fit` and `compile` are given.
ARGUMENTS: dict[str, tuple[Columns, dict[str, Any], dict[str, Any]]] = {
    "validation_data": ((X, Y), VALIDATION, {}),
    "sample_weight": ((X, Y, WEIGHTS), {}, {}),
    "class_weight": ((X, CLASSES), {"class_weight": CLASS_WEIGHT}, {}),
    "steps_per_epoch": ((X, Y), {"steps_per_epoch": 5}, {}),
    "steps_per_execution": ((X, Y), {}, {"steps_per_execution": 3}),
    "initial_epoch": ((X, Y), {"initial_epoch": 1}, {}),
    "all at once": (
        (X, Y, WEIGHTS),
        {**VALIDATION, "steps_per_epoch": 6, "initial_epoch": 1},
        {"steps_per_execution": 2},
    ),
}


def _case(source: str, argument: str) -> Case:
    make, needs = SOURCES[source]
    columns, given, compiled = ARGUMENTS[argument]
    given = {**needs, **given}
    if argument == "class_weight" and source.startswith("bg.data."):
        weighed = given.pop("class_weight")
        kind = getattr(bg.data, source.rpartition(".")[2])

        def data() -> Any:
            first: Any = columns
            if source == "bg.data.indexed":
                first = (list(zip(*columns, strict=True)),)
            return kind(*first, batch_size=BATCH, seed=3, class_weight=weighed)
    else:

        def data() -> Any:
            return make(columns)

    def arguments() -> Any:
        made = data()
        if source == "Grain" and "steps_per_epoch" in given:
            made = made.repeat()  # It must not run out: Keras fails on JAX.
        if source != "arrays":
            return (made,), given
        names = ("x", "y", "sample_weight")
        return (), {**given, **dict(zip(names, made, strict=False))}

    return Case(
        lambda: everything(**compiled),
        arguments,
        epochs=4 if "initial_epoch" in given else 3,
        # Without us, Keras draws another order, and ours counts from 0.
        protected="PyDataset" in source
        or (source[:3] == "bg." and "initial_epoch" in given),
    )


CASES = {
    f"{source}, with {argument}": _case(source, argument)
    for source in SOURCES
    for argument in ARGUMENTS
    if (source, argument) not in CANNOT
    and not (keras.backend.backend() == "torch" and "execution" in argument)
    and not (keras.backend.backend() == "torch" and "all at once" in argument)
}
