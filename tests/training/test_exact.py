"""Interrupted anywhere, a training ends as if it never had been."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
from harness import Case, CutAt, assert_exact, train, undisturbed
from models import BATCH, VALIDATION, X, Y, everything, unbuilt

import colab_keras_bg as bg

ARRAYS = Case(
    everything,
    lambda: ((bg.data.arrays(X, Y, batch_size=BATCH, seed=3),), VALIDATION),
)
POSITIONS = {
    "the first batch": [CutAt(2)],
    "a middle batch, three times": [CutAt(4), CutAt(3), CutAt(5)],
    "the last batch of an epoch": [CutAt(7)],
    "the first batch of the next epoch": [CutAt(8)],
    "between two epochs": [CutAt(hook="on_epoch_begin:1")],
    "the end of an epoch": [CutAt(hook="on_epoch_end:1")],
}


@pytest.mark.parametrize("position", POSITIONS)
def test_cut_at_each_position(position: str, tmp_path: Path) -> None:
    """
    It does not matter where in an epoch the cut comes.
    """
    assert_exact(ARRAYS, tmp_path / "run", cuts=POSITIONS[position])


def test_saved_at_epoch_ends_only(tmp_path: Path) -> None:
    """
    With save_freq="epoch" the batches since the epoch's begin are trained
    again, to the same end.
    """
    cuts = [CutAt(10), CutAt(5)]
    assert_exact(ARRAYS, tmp_path / "run", cuts=cuts, save_freq="epoch")


def test_saving_does_not_disturb(tmp_path: Path) -> None:
    """
    A training that saves at every step ends like one that never saves.
    """
    assert_exact(ARRAYS, tmp_path / "run", cuts=[])


def test_done_trains_nothing(tmp_path: Path) -> None:
    """
    Started again when it is done, a training returns the same history and
    the same weights without training a batch.
    """
    first = train(ARRAYS, tmp_path / "run")
    again = train(ARRAYS, tmp_path / "run")
    assert first is not None
    assert again is not None
    assert again.batches == []
    assert first.history == again.history
    assert first.variables == again.variables


def test_more_epochs_than_before(tmp_path: Path) -> None:
    """
    A run that was done and is given more epochs goes on from its end, and
    ends like one that was given all of them at once.
    """
    expected = undisturbed(ARRAYS)
    train(Case(ARRAYS.model, ARRAYS.data, epochs=2), tmp_path / "run")
    actual = train(ARRAYS, tmp_path / "run")
    assert actual is not None
    assert expected.history == actual.history
    assert expected.variables == actual.variables
    assert [(2, batch) for batch in range(7)] == actual.batches


def test_two_fits_of_one_model(tmp_path: Path) -> None:
    """
    Two `fit` calls in one program are two parts of one run: whichever is
    cut off, the program run again goes on there.
    """

    def program(cut: CutAt | None, run_dir: Path | None) -> list[float]:
        keras.utils.clear_session()
        keras.utils.set_random_seed(7)
        model = unbuilt()  # Keras 3.13 on JAX fits no EMA model twice.
        losses: list[float] = []
        for seed, epochs in ((1, 2), (2, 3)):
            callbacks = [cut] if cut else []
            if run_dir is not None:
                callbacks = [bg.BackupAndRestore(run_dir, 1), *callbacks]
            history = model.fit(
                bg.data.arrays(X, Y, batch_size=BATCH, seed=seed),
                epochs=epochs,
                verbose=0,
                callbacks=callbacks,
            )
            losses += history.history["loss"]
        return losses

    expected = program(None, None)
    for batches in (3, 10, 9):
        with pytest.raises(BaseException, match=r"^$"):
            program(CutAt(batches), tmp_path / "run")
    assert expected == program(None, tmp_path / "run")


ABLATIONS = {
    "seed generators": "seed_generators",
    "optimizer slots": "optimizer/vars/3",
    "moving averages": "model/layers/batch_normalization/vars/2",
    "metrics": "metrics/",
    "weights": "model/layers/dense/vars/0",
    "step counter of the optimizer": "optimizer/vars/0",
}


@pytest.mark.parametrize("part", ABLATIONS)
def test_each_part_of_the_state_matters(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Leaving any one part of the state out changes the end: the comparison
    would notice.
    """
    from colab_keras_bg.training_state import snapshot

    whole = snapshot.assign

    def without(variables: dict, tensors: dict) -> None:
        whole(
            variables,
            {k: v for k, v in tensors.items() if ABLATIONS[part] not in k},
        )

    monkeypatch.setattr(snapshot, "assign", without)
    with pytest.raises(AssertionError):
        assert_exact(ARRAYS, tmp_path / "run", cuts=[CutAt(4), CutAt(5)])
