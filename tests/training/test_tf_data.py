"""`tf.data` on TensorFlow, without a change to the user's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from harness import Case, CutAt, assert_exact
from models import BATCH, SAMPLES, VALIDATION, X, Y, everything

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="needs TensorFlow"
    ),
    # Keras' own words for the end of data whose length it does not know.
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
]


def shuffled() -> Any:
    """A pipeline with a shuffle that differs in every epoch."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    return dataset.shuffle(SAMPLES).batch(BATCH).prefetch(2)


def with_python_function() -> Any:
    """A pipeline whose iterator TensorFlow cannot save."""
    import tensorflow as tf

    def twice(x: Any, y: Any) -> Any:
        doubled = tf.py_function(lambda v: 2 * v, [x], tf.float32)
        return tf.ensure_shape(doubled, [12]), y

    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    return dataset.map(twice).batch(BATCH)


def keep_all(x: Any, y: Any) -> bool:
    """A filter: after it, nobody knows how many there are."""
    del x, y
    return True


CASES = {
    "tf.data": Case(everything, lambda: ((shuffled(),), VALIDATION)),
    "tf.data in turns of three": Case(
        lambda: everything(steps_per_execution=3),
        lambda: ((shuffled(),), VALIDATION),
    ),
    "tf.data, repeated": Case(
        everything, lambda: ((shuffled().repeat(),), {"steps_per_epoch": 5})
    ),
    "tf.data of unknown length": Case(
        everything, lambda: ((shuffled().filter(keep_all),), VALIDATION)
    ),
    "tf.data that cannot be saved": Case(
        everything, lambda: ((with_python_function(),), VALIDATION)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cut_at_several_batches(name: str, tmp_path: Path) -> None:
    """
    Cut off in the middle of epochs and between two, a training goes on with
    the very batch that would have come, and ends with the same bits.
    """
    cuts = [CutAt(2), CutAt(4), CutAt(hook="on_epoch_begin:2")]
    assert_exact(CASES[name], tmp_path / "run", cuts=cuts)


@pytest.mark.parametrize(
    "cuts",
    [[CutAt(6)], [CutAt(7)], [CutAt(8)], [CutAt(2), CutAt(6)]],
    ids=["last but one", "last", "first of the next", "twice"],
)
def test_cut_when_the_shuffle_is_at_its_end(
    cuts: list[CutAt], tmp_path: Path
) -> None:
    """
    Cut off when the shuffle has read all its input, which TensorFlow then
    leaves out of the iterator's state, the next epochs come in their order.
    """
    assert_exact(CASES["tf.data"], tmp_path / "run", cuts=cuts)


def test_what_cannot_be_saved_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A pipeline that TensorFlow cannot save is named once, with the cure, and
    its batches are drawn again.
    """
    case = CASES["tf.data that cannot be saved"]
    assert_exact(case, tmp_path / "run", cuts=[CutAt(4)])
    said = capsys.readouterr().err
    assert "EagerPyFunc is stateful" in said
    assert "bg.data.arrays" in said
    assert "batches again" in said
