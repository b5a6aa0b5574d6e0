"""The best checkpoints are saved when they come, and survive a resume."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from harness import CutAt, PowerCut
from models import BATCH, X, Y, everything
from waiting import until

import colab_keras_bg as bg
from colab_keras_bg.callbacks import training
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.report.status import read_status
from colab_keras_bg.report.text import as_text
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.tensor import LazyTensor

SCORES = [3.0, 1.0, 2.0, 1.5, 4.0, 6.0]
STEPS = 7  # An epoch.


class Score(keras.callbacks.Callback):
    """Reports scores as a callback of the user's would.

    An epoch begins when what was saved at the end of the last is there.
    """

    def __init__(self, run: bg.Run) -> None:
        super().__init__()
        self._run = run

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._run.saves.wait()

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        if isinstance(logs, dict):
            logs["score"] = SCORES[epoch]


def fit(run_dir: Path, *, cut: int | None = None, **settings: Any) -> None:
    """A whole training, with a score at the end of each epoch."""
    training._fits_done.clear()
    keras.utils.set_random_seed(3)
    model = everything()
    run = bg.Run(run_dir, monitor="score", **settings)
    with contextlib.suppress(PowerCut), run:
        model.fit(
            bg.data.arrays(X, Y, batch_size=BATCH),
            epochs=len(SCORES),
            verbose=0,
            callbacks=[Score(run), *run.callbacks(), CutAt(cut)],
        )


def steps(run_dir: Path) -> list[int]:
    """The committed steps."""
    return RunDirectory(run_dir).checkpoints.steps()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"keep_best": 1}, [14, 35, 42]),
        ({"keep_best": 2}, [14, 28, 35, 42]),
        ({"keep_best": 1, "mode": "max"}, [35, 42]),
        ({"keep_best": 0}, [35, 42]),
    ],
)
def test_the_best_are_kept(
    settings: dict[str, Any], expected: list[int], tmp_path: Path
) -> None:
    """Beside the newest, the best by what was measured at their very step."""
    fit(tmp_path / "run", save_freq="epoch", **settings)
    assert steps(tmp_path / "run") == expected
    store = RunDirectory(tmp_path / "run").checkpoints
    for step in expected:
        score = store.manifest(step).metrics["score"]
        assert score == SCORES[step // STEPS - 1]


def test_the_best_are_saved_when_they_come(tmp_path: Path) -> None:
    """Whatever the interval, an epoch that is the best so far is saved."""
    fit(tmp_path / "run", save_freq=10**6, keep_best=1)
    assert steps(tmp_path / "run") == [14, 42]
    fit(tmp_path / "other", save_freq=10**6)
    assert steps(tmp_path / "other") == [42]


def test_what_is_in_between_is_not_ranked(tmp_path: Path) -> None:
    """A checkpoint in the middle of an epoch was not measured."""
    fit(tmp_path / "run", save_freq=5, keep_last=99, keep_best=1)
    store = RunDirectory(tmp_path / "run").checkpoints
    for step in store.steps():
        assert bool(store.manifest(step).metrics) == (step % STEPS == 0)


@pytest.mark.parametrize("cut", [17, 36])
def test_a_worse_one_never_replaces_a_better(cut: int, tmp_path: Path) -> None:
    """Interrupted anywhere, a run has the best of all its epochs at its end."""
    fit(tmp_path / "run", cut=cut, save_freq="epoch", keep_best=1)
    assert not RunDirectory(tmp_path / "run").done()
    fit(tmp_path / "run", save_freq="epoch", keep_best=1)
    assert steps(tmp_path / "run") == [14, 35, 42]


def test_a_metric_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not reported is named once, with what is."""
    model = everything()
    model.fit(
        bg.data.arrays(X, Y, batch_size=BATCH),
        epochs=3,
        verbose=0,
        callbacks=[bg.BackupAndRestore(tmp_path / "run", keep_best=1)],
    )
    said = capsys.readouterr().err
    assert 1 == said.count("the best checkpoints by val_loss cannot be kept")
    assert "an epoch reports loss" in said


def test_status_tells_the_best(tmp_path: Path) -> None:
    """Which checkpoint is the best stands in `status`."""
    with bg.Run(
        tmp_path / "run", save_freq="epoch", keep_best=1, monitor="score"
    ) as run:
        for step, score in ((7, 3.0), (14, 0.25), (21, 2.0)):
            run.at_step(step, epoch=step // STEPS)
            assert run.saves.due(step, measured={"score": score})
            run.saves.save(step, values(), {}, measured={"score": score})
            run.saves.wait()
        run.training_begins()
        until(
            lambda: read_status(tmp_path / "run").best is not None,
            what="the run has told it",
        )
        status = read_status(tmp_path / "run")
        assert status.best == "step 14 (score 0.25)"
        text = as_text(status, now=0.0)
        assert "best         step 14 (score 0.25)" in text
        assert "saves        at the end of each epoch" in text


def values() -> dict[str, LazyTensor]:
    """What a checkpoint may hold."""
    return {"a": LazyTensor.of(np.zeros(3))}


class Slow:
    """Saves that take until they are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        original = CheckpointStore.save

        def save(store: Any, step: int, **given: Any) -> Any:
            self.entered.set()
            assert self.go_on.wait(20)
            return original(store, step, **given)

        monkeypatch.setattr(CheckpointStore, "save", save)


def test_the_best_wait_for_a_save_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    While a save is in flight another that comes due is put off; not so what
    was measured to be the best, which would be another a step later.
    """
    slow = Slow(monkeypatch)
    with bg.Run(
        tmp_path / "run", save_freq=1, keep_best=1, monitor="score"
    ) as run:
        assert run.saves.due(1)
        run.saves.save(1, values(), {})
        assert slow.entered.wait(30)
        assert not run.saves.due(2)
        assert not run.saves.due(3, measured={"loss": 1.0})
        assert run.saves.due(4, measured={"score": 5.0})
        run.saves.save(4, values(), {}, measured={"score": 5.0})
        assert not run.saves.due(5, measured={"score": float("nan")})
        assert run.saves.due(6, measured={"score": 4.0})
        run.saves.save(6, values(), {}, measured={"score": 4.0})
        # A worse one does not take the place of the better that waits.
        assert not run.saves.due(8, measured={"score": 4.5})
        slow.go_on.set()
    assert steps(tmp_path / "run") == [1, 6]


def test_the_training_is_not_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best is handed over at once, however long the save in flight."""
    slow = Slow(monkeypatch)
    handed_over = threading.Event()
    with bg.Run(
        tmp_path / "run", save_freq=1, keep_best=1, monitor="score"
    ) as run:
        assert run.saves.due(1)
        run.saves.save(1, values(), {})
        assert slow.entered.wait(30)

        def train() -> None:
            assert run.saves.due(2, measured={"score": 1.0})
            run.saves.save(2, values(), {}, measured={"score": 1.0})
            handed_over.set()

        threading.Thread(target=train, daemon=True).start()
        until(handed_over.is_set, what="the best is handed over")
        assert slow.entered.is_set()
        slow.go_on.set()
    assert steps(tmp_path / "run") == [1, 2]
