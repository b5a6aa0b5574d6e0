"""What a start finds, says and refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import keras
import pytest
from harness import Case, CutAt, train, undisturbed
from keras import layers
from models import BATCH, VALIDATION, X, Y, everything

import colab_keras_bg as bg
from colab_keras_bg.errors import (
    FingerprintMismatchError,
    NoUsableCheckpointError,
    UsageError,
)
from colab_keras_bg.report.status import read_status
from colab_keras_bg.report.verification import verify_run

CASE = Case(
    everything,
    lambda: ((bg.data.arrays(X, Y, batch_size=BATCH, seed=3),), VALIDATION),
)


def steps_of(run_dir: Path) -> list[Path]:
    """The folders of the checkpoints, oldest first."""
    return sorted((run_dir / "checkpoints").iterdir())


def tree(run_dir: Path) -> dict[str, str]:
    """A hash of every file below a directory, but for the lock."""
    return {
        str(path.relative_to(run_dir)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(run_dir.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def cut_off_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut off in its second epoch."""
    run_dir = tmp_path_factory.mktemp("cut-off") / "run"
    assert train(CASE, run_dir, cut=CutAt(10)) is None
    return run_dir


@pytest.fixture
def run_dir(cut_off_run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(cut_off_run, tmp_path / "run")
    return tmp_path / "run"


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "one byte flipped": lambda path: path.write_bytes(
        bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]
    ),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["tensors-*", "state-*", "manifest.json"])
def test_newest_checkpoint_damaged(
    file: str, damage: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Whatever happens to any file of the newest checkpoint, the next start
    says which one it skips and why, and goes on from the one before, to the
    same end.
    """
    newest, before = steps_of(run_dir)[-1], steps_of(run_dir)[-2]
    (path,) = newest.glob(file)
    DAMAGES[damage](path)
    actual = train(CASE, run_dir)
    said = capsys.readouterr().err
    expected = undisturbed(CASE)
    assert actual is not None
    assert expected.variables == actual.variables
    assert expected.history == actual.history
    assert f"skipped the checkpoint of step {int(newest.name[5:])}" in said
    assert path.name in said
    assert f"continuing from step {int(before.name[5:])}" in said


def test_no_checkpoint_left(run_dir: Path) -> None:
    """
    With no checkpoint left that verifies, a start stops with an error that
    lists each, and changes nothing.
    """
    for step in steps_of(run_dir):
        DAMAGES["one byte flipped"](next(step.glob("tensors-*")))
    found = tree(run_dir)
    with pytest.raises(NoUsableCheckpointError) as raised:
        train(CASE, run_dir)
    assert found == tree(run_dir)
    assert [int(step.name[5:]) for step in reversed(steps_of(run_dir))] == [
        skipped.step for skipped in raised.value.skipped
    ]
    assert "--start_over" in str(raised.value)


def test_checkpoints_gone(run_dir: Path) -> None:
    """
    A run that has committed and whose checkpoints are all gone does not
    begin from zero on its own.
    """
    for path in (run_dir / "checkpoints").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(NoUsableCheckpointError, match="is missing"):
        train(CASE, run_dir)


def test_start_over_keeps_the_old(run_dir: Path) -> None:
    """
    Starting over sets the old directory aside and begins anew.
    """
    found = tree(run_dir)
    with bg.Run(run_dir, start_over=True) as run:
        assert run.step == 0
    (aside,) = run_dir.parent.glob("run.set-aside-*")
    assert found == tree(aside)


def test_same_cell_again(tmp_path: Path) -> None:
    """
    A cell that builds the model again in the same process, whose layers and
    variables get other automatic names, goes on all the same.
    """

    def cell(cut: CutAt | None) -> Any:
        keras.utils.set_random_seed(7)
        model = everything()
        model.fit(
            bg.data.arrays(X, Y, batch_size=BATCH),
            epochs=3,
            verbose=0,
            callbacks=[bg.BackupAndRestore(tmp_path, 1), cut or CutAt()],
        )
        return model

    first_names = {layer.name for layer in everything().layers}
    with pytest.raises(BaseException, match=r"^$"):
        cell(CutAt(10))
    model = cell(None)
    assert not first_names & {layer.name for layer in model.layers}
    expected = keras.utils.set_random_seed(7) or everything()
    expected.fit(bg.data.arrays(X, Y, batch_size=BATCH), epochs=3, verbose=0)
    for ours, theirs in zip(
        model.get_weights(), expected.get_weights(), strict=True
    ):
        assert ours.tobytes() == theirs.tobytes()


def other_model(units: int, activation: str, optimizer: Any) -> keras.Model:
    """A model that may differ from another in one respect."""
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(units, activation=activation),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ((32, "relu", "adam"), "'float32[12, 16]', is 'float32[12, 32]'"),
        ((16, "tanh", "adam"), "was 'relu', is 'tanh' now"),
        ((16, "relu", "sgd"), "was 'Adam', is 'SGD' now"),
        (
            (16, "relu", keras.optimizers.Adam(0.1)),
            "learning_rate: was 0.001, is 0.1 now",
        ),
    ],
    ids=["units", "activation", "optimizer", "learning rate"],
)
def test_other_model_or_optimizer(
    changed: Any, expected: str, tmp_path: Path
) -> None:
    """
    A different model or optimizer is refused, with a list of what differs,
    and nothing that is stored is changed.
    """
    data = CASE.data
    before = Case(lambda: other_model(16, "relu", "adam"), data)
    train(before, tmp_path, cut=CutAt(10))
    found = {k: v for k, v in tree(tmp_path).items() if "checkpoint" in k}
    with pytest.raises(FingerprintMismatchError) as raised:
        train(Case(lambda: other_model(*changed), data), tmp_path)
    assert expected in str(raised.value)
    assert found == {
        k: v for k, v in tree(tmp_path).items() if "checkpoint" in k
    }


def test_other_data_is_said(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Other data in the same run is said, and the run goes on from its step.
    """
    other = Case(
        CASE.model,
        lambda: ((bg.data.arrays(X + 1, Y, batch_size=BATCH, seed=3),), {}),
    )
    train(other, run_dir)
    assert "the data is not what it was" in capsys.readouterr().err


@pytest.mark.parametrize("save_freq", [False, True, 0, -1, "never", "", "0s"])
def test_save_freq_that_cannot_be_meant(save_freq: Any, tmp_path: Path) -> None:
    """
    A save_freq that cannot be meant is refused before anything is touched.
    """
    run_dir = tmp_path / "run"
    with pytest.raises(UsageError, match="cannot be meant"):
        bg.BackupAndRestore(run_dir, save_freq=save_freq)
    with pytest.raises(ValueError, match="cannot be meant"):
        bg.unattended(run_dir, save_freq=save_freq)
    assert not run_dir.exists()


@pytest.mark.parametrize("backup_dir", ["", None])
def test_empty_backup_dir(backup_dir: Any) -> None:
    """
    An empty backup_dir is refused in Keras' words.
    """
    with pytest.raises(ValueError, match="Empty `backup_dir` argument passed"):
        bg.BackupAndRestore(backup_dir)


def test_outside_fit(tmp_path: Path) -> None:
    """
    A callback that is not called by `fit` says what to do instead.
    """
    callback = bg.BackupAndRestore(tmp_path)
    with pytest.raises(RuntimeError, match=r"bg\.Run"):
        callback.on_train_begin()


def test_one_line(tmp_path: Path) -> None:
    """
    `bg.unattended(run_dir)` is all that a program needs, and `status` and
    `verify` read what it leaves.
    """
    model = everything()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=bg.unattended(tmp_path))
    status = read_status(tmp_path)
    assert ("done", 4, 4) == (
        status.state,
        status.step,
        status.durable_step,
    )
    assert [] == verify_run(tmp_path).damaged


def test_metrics_are_there_once(run_dir: Path) -> None:
    """
    However often a training was cut off, metrics.jsonl has one line an epoch.
    """
    train(CASE, run_dir, cut=CutAt(9))
    train(CASE, run_dir)
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    reports = [json.loads(line) for line in lines]
    assert [(0, 7), (1, 14), (2, 21)] == [
        (report["epoch"], report["step"]) for report in reports
    ]
    assert all("val_mae" in report for report in reports)


def test_delete_checkpoint(tmp_path: Path) -> None:
    """
    With delete_checkpoint=True the backup goes when `fit` ends, and a file
    of the user's in the same directory stays.
    """
    (tmp_path / "notes.txt").write_text("mine")
    everything().fit(
        X,
        Y,
        verbose=0,
        callbacks=[bg.BackupAndRestore(tmp_path, delete_checkpoint=True)],
    )
    assert "mine" == (tmp_path / "notes.txt").read_text()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_tensors_open_with_safetensors(run_dir: Path) -> None:
    """
    Any safetensors reader opens the tensors, keyed by structure.
    """
    from safetensors.numpy import load_file

    (path,) = steps_of(run_dir)[-1].glob("*.safetensors")
    tensors = load_file(path)
    assert (12, 16) == tensors["model/layers/dense/vars/0"].shape
    assert "optimizer/vars/0" in tensors
    assert "model/layers/dropout/seed_generators/0" in tensors


def test_reports_of_a_later_fit_stay(tmp_path: Path) -> None:
    """
    A program with two fits that is cut off in the second one has each report
    once in the end, the first epoch of the second fit included.
    """

    def program(cut: CutAt | None) -> None:
        keras.utils.set_random_seed(7)
        model = other_model(16, "relu", "adam")
        for seed in (1, 2):
            model.fit(
                bg.data.arrays(X, Y, batch_size=BATCH, seed=seed),
                epochs=2,
                verbose=0,
                callbacks=[bg.BackupAndRestore(tmp_path, 1), cut or CutAt()],
            )

    for batches in (23, 3):  # 14 are in the first fit.
        with pytest.raises(BaseException, match=r"^$"):
            program(CutAt(batches))
    program(None)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [7, 14, 21, 28] == [json.loads(line)["step"] for line in lines]


def test_end_that_cannot_be_saved(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    A run whose end cannot be saved is not done: it says so, shows the problem,
    and goes on when started again.
    """
    from colab_keras_bg.checkpoint.store import CheckpointStore
    from colab_keras_bg.errors import NoSpaceError

    def full(self: object, *args: Any, **kwargs: Any) -> None:
        raise NoSpaceError("tensors", where="the disk")

    model = other_model(16, "relu", "adam")
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", full)
        model.fit(X, Y, verbose=0, callbacks=bg.unattended(tmp_path))
    assert "what it ended with is not saved" in capsys.readouterr().err
    assert "failed" == read_status(tmp_path).state
    assert "No space" in (read_status(tmp_path).problem or "")
    other_model(16, "relu", "adam").fit(
        X, Y, verbose=0, callbacks=bg.unattended(tmp_path)
    )
    assert "done" == read_status(tmp_path).state


def test_final_checkpoint_gone(tmp_path: Path) -> None:
    """
    `verify` misses what a finished fit left.
    """
    other_model(16, "relu", "adam").fit(
        X, Y, verbose=0, callbacks=bg.unattended(tmp_path)
    )
    shutil.rmtree(tmp_path / "final")
    assert verify_run(tmp_path).damaged == [
        "final checkpoint: the run is done, and it is gone"
    ]


def test_two_backups_in_one_fit(tmp_path: Path) -> None:
    """
    Two of our callbacks in one fit are refused, not one of them ignored.
    """
    with pytest.raises(UsageError, match="Two backups"):
        other_model(16, "relu", "adam").fit(
            X,
            Y,
            verbose=0,
            callbacks=[
                *bg.unattended(tmp_path / "a"),
                *bg.unattended(tmp_path / "b"),
            ],
        )
