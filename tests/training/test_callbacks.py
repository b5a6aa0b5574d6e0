"""The other callbacks of a `fit` go on where they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from harness import Case, CutAt, assert_exact, train, undisturbed
from keras import layers
from models import BATCH, VALIDATION, X, Y

import colab_keras_bg as bg

EPOCHS = 6


def data() -> Any:
    """What is trained on."""
    return (bg.data.arrays(X, Y, batch_size=BATCH, seed=3),), VALIDATION


def model(**optimizer: Any) -> keras.Model:
    """A model that learns in leaps, so that callbacks have something to do."""
    built = keras.Sequential(
        [keras.Input((12,)), layers.Dense(16, "relu"), layers.Dense(1)]
    )
    built.compile(
        keras.optimizers.Adam(0.05, **optimizer), "mse", metrics=["mae"]
    )
    return built


def averaged() -> keras.Model:
    """The same, keeping a moving average of its weights."""
    return model(use_ema=True)


class Slower(keras.callbacks.Callback):
    """A user's callback whose state decides the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1
        self.model.optimizer.learning_rate = 0.05 / (1 + self.epochs)


class SlowerThatSpeaks(Slower):
    """The same, and it says what its state is."""

    def get_state(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def set_state(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


Make = Callable[[], list[Any]]
CALLBACKS: dict[str, Make] = {
    "EarlyStopping with the best weights": lambda: [
        keras.callbacks.EarlyStopping(
            monitor="val_mae", patience=1, restore_best_weights=True
        )
    ],
    "ReduceLROnPlateau": lambda: [
        keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss", patience=1, min_delta=5.0
        )
    ],
    "LearningRateScheduler": lambda: [
        keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.7)
    ],
    "TerminateOnNaN": lambda: [keras.callbacks.TerminateOnNaN()],
    "a user's with get_state": lambda: [SlowerThatSpeaks()],
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callback_goes_on(name: str, tmp_path: Path) -> None:
    """
    A training with this callback, cut off in epochs and between two, ends
    with the same bits as without interruption.
    """
    case = Case(model, data, epochs=EPOCHS, callbacks=CALLBACKS[name])
    cuts = [CutAt(3), CutAt(9), CutAt(hook="on_epoch_begin:3"), CutAt(2)]
    assert_exact(case, tmp_path / "run", cuts=cuts)


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_swapped_weights(swap_on_epoch: bool, tmp_path: Path) -> None:
    """
    `SwapEMAWeights` knows after a resume whose weights are in the model.
    """
    case = Case(
        averaged,
        data,
        epochs=EPOCHS,
        callbacks=lambda: [
            keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
        ],
    )
    cuts = [CutAt(3), CutAt(9), CutAt(hook="on_epoch_begin:3"), CutAt(2)]
    assert_exact(case, tmp_path / "run", cuts=cuts)


def test_best_model_survives(tmp_path: Path) -> None:
    """
    A worse model never replaces the better one that `ModelCheckpoint` saved
    before an interruption.
    """
    path = tmp_path / "best.weights.h5"
    saver: list[Any] = []

    def callbacks() -> list[Any]:
        saver.append(
            keras.callbacks.ModelCheckpoint(
                path, "val_loss", save_best_only=True, save_weights_only=True
            )
        )
        return saver[-1:]

    case = Case(model, data, epochs=EPOCHS, callbacks=callbacks)
    expected = undisturbed(case)
    best = min(float.fromhex(v) for v in expected.history["val_loss"])
    for cut in (CutAt(10), CutAt(20)):
        train(case, tmp_path / "run", cut=cut)
    train(case, tmp_path / "run")
    assert best == saver[-1].best


@pytest.mark.parametrize("append", [False, True])
def test_rows_of_the_csv_logger(append: bool, tmp_path: Path) -> None:
    """
    The file of a `CSVLogger` has each epoch once, and one header, as without
    interruption.
    """
    loggers: list[Any] = []

    def logged(name: str) -> Case:
        def callbacks() -> list[Any]:
            logger = keras.callbacks.CSVLogger(tmp_path / name, append=append)
            loggers.append(logger)
            return [logger]

        return Case(model, data, epochs=EPOCHS, callbacks=callbacks)

    train(logged("expected.csv"), None)
    for cut in (CutAt(10), CutAt(hook="on_epoch_begin:3")):
        train(logged("actual.csv"), tmp_path / "run", cut=cut)
        loggers[-1].csv_file.close()  # As the end of its process would.
    train(logged("actual.csv"), tmp_path / "run")
    expected = (tmp_path / "expected.csv").read_bytes()
    assert expected == (tmp_path / "actual.csv").read_bytes()


@pytest.mark.parametrize("first", [True, False])
def test_order_in_the_list(first: bool, tmp_path: Path) -> None:
    """
    It does not matter whether our callback stands before or behind another.
    """

    def program(run_dir: Path | None, cut: CutAt | None) -> list[float]:
        keras.utils.set_random_seed(5)
        own = [bg.BackupAndRestore(run_dir, 1)] if run_dir else []
        others = [SlowerThatSpeaks(), cut or CutAt()]
        args, kwargs = data()
        history = model().fit(
            *args,
            **kwargs,
            epochs=EPOCHS,
            verbose=0,
            callbacks=own + others if first else others + own,
        )
        losses: list[float] = history.history["loss"]
        return losses

    expected = program(None, None)
    for batches in (10, 12):
        with pytest.raises(BaseException, match=r"^$"):
            program(tmp_path, CutAt(batches))
    assert expected == program(tmp_path, None)


def test_stranger_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A callback that keeps state and does not say what it is, is named once,
    with the attribute and the cure.
    """
    train(Case(model, data, callbacks=lambda: [Slower()]), tmp_path)
    said = capsys.readouterr().err
    assert 1 == said.count("the callback Slower keeps state (epochs)")
    assert "get_state()" in said
