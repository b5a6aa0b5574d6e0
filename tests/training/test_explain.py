"""`bg.explain` tells beforehand what an interruption would change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import data_cases
import keras
import numpy as np
import pytest
from harness import CutAt, Slow
from models import BATCH, X, Y, everything, unbuilt

import colab_keras_bg as bg
from colab_keras_bg.training_state import random_state


def part(found: Any, name: str) -> list[tuple[bool | None, str]]:
    """The findings of one part."""
    return [(f.exact, f.why) for f in found.findings if f.part == name]


DATA = {
    "bg.data.arrays": (True, "the order is known for every position"),
    "bg.data.indexed": (True, "the order is known for every position"),
    "bg.data.stream": (True, "by the iterator's own state"),
    "Grain, MapDataset": (True, "by the iterator's own state"),
    "a PyDataset with workers": (True, "the order of the batches is kept"),
    "a PyDataset without an end": (True, "batches are had by their number"),
    "a generator": (None, "if the generator yields the same again"),
    "arrays": (True, "by the "),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Each kind of data is named with what it is gone back by; what is printed
    is what is returned.
    """
    exact, why = DATA[name]
    args, kwargs = data_cases.CASES[name].data()
    of_data = {
        key: value
        for key, value in kwargs.items()
        if not key.startswith("validation")
    }
    found = bg.explain(everything(), *args, **of_data)
    ((is_exact, said),) = part(found, "data")
    assert exact is is_exact
    assert why in said
    assert bool(exact) is found.exact
    assert str(found) in capsys.readouterr().out


def test_nothing_is_disturbed() -> None:
    """
    Explaining draws nothing from a generator's batches or a random state, and
    leaves the weights as they are.
    """

    def counted() -> Iterator[Any]:
        for number in range(100):
            drawn.append(number)
            yield X[:BATCH], Y[:BATCH]

    drawn: list[int] = []
    model = everything()
    weights = [np.array(w) for w in model.get_weights()]
    before = random_state.capture()
    bg.explain(model, counted())
    bg.explain(model, X, Y, batch_size=BATCH)
    bg.explain(model, *data_cases.CASES["Grain, MapDataset"].data()[0])
    assert before == random_state.capture()
    assert [] == drawn
    for then, now in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(then, now)


def test_model_not_built_yet() -> None:
    """
    Of a model that `fit` will build, it is said that `fit` will tell.
    """
    found = bg.explain(unbuilt(), X, Y)
    ((exact, why),) = part(found, "model")
    assert exact is None
    assert "not built yet" in why


def test_model_not_compiled() -> None:
    """
    A model that is not compiled cannot be explained.
    """
    with pytest.raises(bg.errors.UsageError, match="compile it first"):
        bg.explain(keras.Sequential([keras.layers.Dense(1)]), X, Y)


def test_takes_what_fit_takes() -> None:
    """
    The arguments of a whole `fit` call can be given; what `fit` does not take
    is named, and so is data that is not there.
    """
    found = bg.explain(
        everything(),
        X,
        Y,
        epochs=3,
        verbose=0,
        batch_size=BATCH,
        validation_split=0.2,
        validation_data=(X, Y),
        callbacks=None,
    )
    assert found.exact
    single = keras.callbacks.EarlyStopping()
    assert bg.explain(everything(), X, Y, callbacks=single).exact
    with pytest.raises(bg.errors.UsageError, match="takes no epoch"):
        bg.explain(everything(), X, Y, epoch=3)
    with pytest.raises(bg.errors.UsageError, match="needs the data"):
        bg.explain(everything(), None)


def test_callbacks() -> None:
    """
    Keras' own callbacks and those that speak for themselves are exact, ours
    are not named, strangers depend on what they do.
    """
    callbacks = [
        keras.callbacks.EarlyStopping(),
        CutAt(3),
        Slow(),
        *bg.unattended("never-opened"),
    ]
    found = bg.explain(everything(), X, Y, callbacks=callbacks)
    said = part(found, "callbacks")
    assert [True, True, None] == [exact for exact, _ in said]
    assert "Slow: exact if it keeps no state" in said[2][1]


def test_machine() -> None:
    """
    What the bits depend on is named: the machine and the versions.
    """
    ((exact, why),) = part(bg.explain(everything(), X, Y), "machine")
    assert exact is True
    assert keras.__version__ in why
    assert keras.backend.backend() in why
