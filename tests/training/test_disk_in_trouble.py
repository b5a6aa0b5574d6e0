"""A disk that fails never ends a training, whenever it begins to fail."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from models import BATCH, X, Y

import colab_keras_bg as bg
from colab_keras_bg.errors import NoSpaceError, StorageError
from colab_keras_bg.storage.local import LocalStorage

ERRORS = {
    "full": lambda: NoSpaceError("a", where="here"),
    "read-only": lambda: StorageError(errno.EROFS, "Read-only file system"),
}


class Trouble(keras.callbacks.Callback):
    """From an epoch on, nothing can be written, read or listed."""

    def __init__(
        self, patch: pytest.MonkeyPatch, epoch: int, methods: Any, error: Any
    ) -> None:
        super().__init__()
        self._patch, self._epoch = patch, epoch
        self._methods, self._raised = methods, error

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        def fails(*_: Any, **__: Any) -> Any:
            raise self._raised()

        if epoch == self._epoch:
            for name in self._methods:
                self._patch.setattr(LocalStorage, name, fails)


def fit(run_dir: Path, *callbacks: Any, **settings: Any) -> Any:
    """A training of five epochs."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model.fit(
        bg.data.arrays(X, Y, batch_size=BATCH),
        epochs=5,
        verbose=0,
        callbacks=[*callbacks, bg.BackupAndRestore(run_dir, **settings)],
    )


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    """What is patched in a training, for as long as the test needs."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("epoch", [1, 4])
@pytest.mark.parametrize(
    "settings", [{}, {"keep_best": 1, "monitor": "loss"}], ids=["", "best"]
)
def test_fit_returns_what_it_has_done(
    settings: dict[str, Any],
    epoch: int,
    error: str,
    tmp_path: Path,
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    `fit` trains all epochs, its end included, and says what is not saved;
    what was committed before is whole.
    """
    trouble = Trouble(
        patch, epoch, ["create", "replace", "list"], ERRORS[error]
    )
    history = fit(tmp_path / "run", trouble, **settings)
    assert [0, 1, 2, 3, 4] == history.epoch
    told = capsys.readouterr().err
    assert "what it ended with is not saved" in told
    assert "could not be recorded" in told
    patch.undo()
    again = fit(tmp_path / "run", **settings)
    assert again.history == history.history


def test_no_more_threads(
    tmp_path: Path,
    patch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where no thread can be started, nothing is saved, and that is said."""

    class NoThreads(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            start = threading.Thread.start

            def fails(thread: threading.Thread) -> None:
                if thread.name == "checkpoint-save":
                    raise RuntimeError("can't start new thread")
                start(thread)

            patch.setattr(threading.Thread, "start", fails)

    history = fit(tmp_path / "run", NoThreads(), save_freq=3)
    assert [0, 1, 2, 3, 4] == history.epoch
    assert "can't start new thread" in capsys.readouterr().err


class Forgetful(keras.callbacks.Callback):
    """Cannot tell its state in the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def get_state(self) -> dict[str, Any]:
        if self.epoch == 1:
            raise KeyError("state")
        return {"epoch": self.epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


def test_a_callback_that_does_not_tell_its_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A user's `get_state` that raises fails that save, which is said, and
    neither the training nor a later save.
    """
    history = fit(tmp_path / "run", Forgetful(), save_freq="epoch")
    assert len(history.epoch) == 5
    told = capsys.readouterr().err
    assert told.count("get_state() of the callback Forgetful raised") == 1
    assert "KeyError: 'state'" in told
    assert bg.Run(tmp_path / "run")._directory.done() is not None
