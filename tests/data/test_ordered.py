"""Our own data: the same batches on every backend, from any position."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import colab_keras_bg as bg

pytest.importorskip("keras", reason="needs Keras and a backend")

SAMPLES, BATCH = 20, 6
NUMBERS = np.arange(SAMPLES, dtype="float32")
MAKERS: dict[str, Callable[..., Any]] = {
    "arrays": lambda **more: bg.data.arrays(
        {"a": NUMBERS, "b": -NUMBERS}, NUMBERS * 2, batch_size=BATCH, **more
    ),
    "a function of numbers": lambda **more: bg.data.indexed(
        lambda i: ({"a": NUMBERS[i], "b": -NUMBERS[i]}, NUMBERS[i] * 2),
        samples=SAMPLES,
        batch_size=BATCH,
        **more,
    ),
    "samples": lambda **more: bg.data.indexed(
        [({"a": n, "b": -n}, n * 2) for n in NUMBERS], batch_size=BATCH, **more
    ),
}
# Pinned: a run that was begun with an older version goes on in its order.
FIRST_BATCH_OF_EPOCH_1 = [9, 7, 8, 3, 19, 5]


def batches(adapter: Any, epoch: int, batch: int = 0) -> list[list[int]]:
    """The samples in what is left of an epoch."""
    adapter.start_at(epoch, batch)
    return [[int(n) for n in x["a"]] for x, *_ in adapter.get_numpy_iterator()]


@pytest.mark.parametrize("name", MAKERS)
def test_order(name: str) -> None:
    """
    The order is the pinned one, each epoch has another, and each holds every
    sample once; x and y belong together.
    """
    adapter = MAKERS[name](seed=3)
    first, second = batches(adapter, 0), batches(adapter, 1)
    assert FIRST_BATCH_OF_EPOCH_1 == second[0]
    assert first != second
    for epoch in (first, second):
        assert [6, 6, 6, 2] == [len(batch) for batch in epoch]
        assert list(range(SAMPLES)) == sorted(itertools.chain(*epoch))
    adapter.start_at(1, 0)
    for x, y in adapter.get_numpy_iterator():
        np.testing.assert_array_equal(x["a"] * 2, y)
        np.testing.assert_array_equal(-x["a"], x["b"])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("batch", range(5))
def test_any_position(name: str, batch: int) -> None:
    """
    From any batch on, the rest of the epoch is what it would have been.
    """
    adapter = MAKERS[name](seed=3)
    assert batches(adapter, 2)[batch:] == batches(adapter, 2, batch)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="needs TensorFlow",
)
def test_same_on_tensorflow(name: str) -> None:
    """
    TensorFlow's pipeline gives the same batches as the iterator that JAX
    gets, in every epoch and from any position.
    """
    adapter = MAKERS[name](seed=3)
    dataset = adapter.get_tf_dataset()
    for epoch, batch in ((0, 0), (1, 0), (1, 3), (2, 1)):
        expected = batches(adapter, epoch, batch)
        adapter.start_at(epoch, batch)
        found = [[int(n) for n in x["a"]] for x, *_ in dataset]
        assert expected == found


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_nothing_consumed_is_loaded(workers: int) -> None:
    """
    Going to a position calls the user's function for no batch before it.
    """
    asked: list[list[int]] = []

    def load(indices: Any) -> Any:
        asked.append([int(i) for i in indices])
        return NUMBERS[indices]

    adapter = bg.data.indexed(
        load, samples=SAMPLES, batch_size=BATCH, workers=workers
    )
    adapter.start_at(2, 0)
    list(adapter.get_numpy_iterator())
    expected = asked[-2:] if workers < 2 else None
    asked.clear()
    adapter.start_at(2, 2)
    assert 2 == len(list(adapter.get_numpy_iterator()))
    assert 2 == len(asked)
    assert expected in (None, asked)


def test_errors_of_the_function_arrive() -> None:
    """
    What the user's function raises in a thread is raised by the iterator.
    """

    def load(indices: Any) -> Any:
        if 7 in indices:
            raise OSError("no such image")
        return NUMBERS[indices]

    adapter = bg.data.indexed(
        load, samples=SAMPLES, batch_size=BATCH, shuffle=False
    )
    adapter.start_at(0, 0)
    with pytest.raises(OSError, match="no such image"):
        list(adapter.get_numpy_iterator())


WRONG = {
    "no samples": (lambda: bg.data.indexed([]), "samples=0"),
    "no number": (lambda: bg.data.indexed(lambda i: i), "samples=..."),
    "workers": (
        lambda: bg.data.indexed([1.0], workers=-1),
        "workers=-1: give a whole number, 0 or more",
    ),
    "batch_size": (
        lambda: bg.data.indexed([1.0], batch_size=0),
        "batch_size=0: give a whole number, 1 or more",
    ),
    "seed": (lambda: bg.data.indexed([1.0], seed=-1), "seed=-1"),
    "text for a number": (
        lambda: bg.data.arrays(NUMBERS, batch_size="8"),
        "batch_size='8': give a whole number",
    ),
    "lists of numbers": (
        lambda: bg.data.arrays([[1.0, 2.0], [3.0, 4.0]]),
        r"1\.0 where one belongs.*np\.array",
    ),
    "None within": (
        lambda: bg.data.arrays(NUMBERS, None, NUMBERS),
        "None where one belongs",
    ),
    "nothing": (lambda: bg.data.arrays(None), "None where one belongs"),
    "a list for a stream": (
        lambda: bg.data.stream([NUMBERS]),
        r"samples in a list to bg\.data\.indexed",
    ),
    "not of its samples": (
        lambda: bg.data.indexed(lambda i: np.zeros(3), samples=9, batch_size=4),
        r"For 4 samples.*of shape \(3,\)",
    ),
    "no array": (
        lambda: bg.data.indexed(lambda i: 1.0, samples=9, batch_size=4),
        r"of shape \(\)",
    ),
    "weights twice": (
        lambda: bg.data.arrays(
            NUMBERS, NUMBERS, NUMBERS, class_weight={0: 2.0}
        ),
        "Both class_weight and sample_weight",
    ),
    "weights of no classes": (
        lambda: bg.data.arrays(NUMBERS, class_weight={0: 2.0}),
        "class_weight needs one array y of classes; there was none",
    ),
    "weights of several outputs": (
        lambda: bg.data.indexed(
            lambda i: (NUMBERS[i], {"a": NUMBERS[i]}),
            samples=9,
            class_weight={0: 2.0},
        ),
        "needs one array y of classes; there was dict",
    ),
    "a stream without state": (
        lambda: bg.data.stream([1, 2]),
        "list_iterator lacks them",
    ),
}


def test_numbers_of_numpy() -> None:
    """
    NumPy's whole numbers are whole numbers.
    """
    adapter = bg.data.indexed(
        lambda i: (NUMBERS[i], None),
        samples=np.int64(SAMPLES),
        batch_size=np.int32(BATCH),
    )
    assert 4 == adapter.num_batches


@pytest.mark.parametrize("kind", ["numbers", "a column", "one-hot"])
def test_class_weights_are_those_of_keras(kind: str) -> None:
    """
    A sample weighs what it does with `fit(class_weight=...)` on arrays.
    """
    from keras.src.trainers.data_adapters import data_adapter_utils

    classes = np.random.default_rng(0).integers(4, size=SAMPLES)
    y = {
        "numbers": classes,
        "a column": classes[:, None].astype("float32"),
        "one-hot": np.eye(4)[classes],
    }[kind]
    weight = {0: 0.5, 2: 3.0, 3: 0.25}
    made = {
        "arrays": bg.data.arrays(
            NUMBERS, y, batch_size=SAMPLES, shuffle=False, class_weight=weight
        ),
        "indexed": bg.data.indexed(
            lambda i: (NUMBERS[i], y[i]),
            samples=SAMPLES,
            batch_size=SAMPLES,
            shuffle=False,
            class_weight=weight,
        ),
    }
    expected = data_adapter_utils.class_weight_to_sample_weights(y, weight)
    for adapter in made.values():
        adapter.start_at(0, 0)
        (batch,) = adapter.get_numpy_iterator()
        assert np.array_equal(expected, batch[2])
        assert expected.dtype == batch[2].dtype


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_meant(name: str) -> None:
    """
    Arguments that cannot be meant are named before any training.
    """
    make, said = WRONG[name]
    with pytest.raises(bg.errors.UsageError, match=said):
        make()


class Counting:
    """An endless stream of numbered batches."""

    def __init__(self) -> None:
        self.number = 0

    def __iter__(self) -> Counting:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        self.number += 1
        batch = np.full((2, 1), self.number, "float32")
        return batch, batch

    def get_state(self) -> dict[str, int]:
        return {"number": self.number}

    def set_state(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def test_stream_is_looked_at_without_loss() -> None:
    """
    Neither our look at the first batches nor Keras' before the training takes
    one away from a stream.
    """
    adapter = bg.data.stream(Counting())
    look = adapter.get_numpy_iterator()
    next(look)
    adapter.on_epoch_end()  # Keras resets what it has looked at.
    batches = adapter.get_numpy_iterator()
    assert [1, 2, 3] == [int(next(batches)[0][0, 0]) for _ in range(3)]
    adapter.on_epoch_end()
    assert 4 == int(next(adapter.get_numpy_iterator())[0][0, 0])


def test_states_of_a_stream_that_is_read_ahead() -> None:
    """
    The state kept for a batch is the one right after it, however far ahead
    the stream was read; going there, the next batch is the next.
    """
    adapter = bg.data.stream(Counting())
    ahead = adapter.get_numpy_iterator()
    for _ in range(5):
        next(ahead)
    states = [adapter.state_after(drawn) for drawn in range(6)]
    assert [{"number": number} for number in range(6)] == states
    adapter.start_from(states[2], 2)
    batches = adapter.get_numpy_iterator()
    assert 3 == int(next(batches)[0][0, 0])
    assert {"number": 3} == adapter.state_after(3)
