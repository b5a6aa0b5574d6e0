"""`tf.data`, without a change to the user's code, on every backend."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import argument_cases
import harness as in_process
import keras
import models
import numpy as np
import pytest
import tf_data_cases
from fresh_process import (
    Interruption,
    assert_exact,
    at_each_kind_of_position,
    at_random,
    undisturbed,
)
from harness import CutAt
from tf_data_cases import CASES

import colab_keras_bg as bg

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None,
        reason="tf.data is TensorFlow's",
    ),
    # Keras' own words for the end of data whose length it does not know.
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
]


# What takes the same way through the code as another; with -m slow.
ALIKE = {
    "tf.data in turns of three",
    "tf.data that cannot be saved",
    "validated on tf.data of unknown length",
    "validated on tf.data, repeated",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE))
        for name in CASES
    ],
)
def test_killed_at_each_kind_of_position(name: str, tmp_path: Path) -> None:
    """
    Killed anywhere and continued in a fresh process, a training goes on with
    the very batch that would have come, and ends with the same bits.
    """
    assert_exact(name, tmp_path / "run", at_each_kind_of_position(name))


def test_next_fit_goes_on_with_the_same_data(tmp_path: Path) -> None:
    """
    Killed before the first save of a second fit on the same pipeline, which
    counts the passes over it, that fit sees the orders it would have seen.
    """
    name = "tf.data in two fits"
    batches = undisturbed(name)["batches"]
    second = batches.index([0, 0], 1)
    assert_exact(name, tmp_path / "run", [Interruption(batches=second + 1)])


@pytest.mark.parametrize("before_the_end", [3, 2, 1])
def test_killed_when_a_cache_is_at_its_end(
    before_the_end: int, tmp_path: Path
) -> None:
    """
    A cache that has been read to its end, ahead of the training, is no
    longer part of the iterator's state; the next pass needs it all the same.
    """
    name = "tf.data, cached after a shuffle"
    second_ends = undisturbed(name)["batches"].index([2, 0])
    batches = second_ends - before_the_end + 1
    assert_exact(name, tmp_path / "run", [Interruption(batches=batches)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in argument_cases.CASES if "tf.data" in name]
)
def test_with_other_arguments(name: str, tmp_path: Path) -> None:
    """
    And with each argument of `fit` that changes what is seen of it.
    """
    kinds = ["SIGKILL", "SIGKILL"]
    assert_exact(name, tmp_path / "run", at_random(name, kinds=kinds))


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
    in_process.assert_exact(CASES["tf.data"], tmp_path / "run", cuts=cuts)


def test_what_cannot_be_saved_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A pipeline that TensorFlow cannot save is named once, with the cure, and
    its batches are drawn again.
    """
    case = CASES["tf.data that cannot be saved"]
    in_process.assert_exact(case, tmp_path / "run", cuts=[CutAt(4)])
    said = capsys.readouterr().err
    assert "EagerPyFunc is stateful" in said
    assert "bg.data.arrays" in said
    assert "batches again" in said


def test_explained_beforehand() -> None:
    """
    `explain` tells which pipelines TensorFlow can save, without drawing from
    them: the order of their shuffles stays what it was.
    """
    import tensorflow as tf

    tf.random.set_seed(1)
    dataset = tf_data_cases.shuffled()
    tf.random.set_seed(1)
    same = tf_data_cases.shuffled()
    model = models.everything()
    found = bg.explain(model, dataset)
    assert [True] == [f.exact for f in found.findings if f.part == "data"]
    for (x, _), (expected, _) in zip(dataset, same, strict=True):
        assert np.array_equal(expected, x)
    found = bg.explain(model, tf_data_cases.with_python_function())
    (finding,) = (f for f in found.findings if f.part == "data")
    assert finding.exact is None
    assert "EagerPyFunc is stateful" in finding.why
    assert "bg.data.indexed" in finding.why


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="elsewhere the state at the start is kept, before the buffer fills",
)
def test_large_state_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A pipeline whose state is large is named once, with its size and the cure;
    it is exact all the same.
    """
    from colab_keras_bg.data import tf_iterator

    monkeypatch.setattr(tf_iterator, "_LARGE_BYTES", 1000)
    in_process.assert_exact(CASES["tf.data"], tmp_path / "run", cuts=[CutAt(4)])
    first, _, second = capsys.readouterr().err.partition("continuing from")
    for said in (first, second):
        assert 1 == said.count("the state of this tf.data pipeline takes")
        assert "bg.data.indexed" in said
