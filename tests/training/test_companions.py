"""Callbacks that ask for output and resources to be kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import colab_keras_bg as bg
from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.console_reading import ConsoleReader
from colab_keras_bg.journal.resources import read_resources
from colab_keras_bg.storage.local import LocalStorage


class Prints(keras.callbacks.Callback):
    """Prints, as a user's does."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        print("epoch", epoch)


def fit(*callbacks: keras.callbacks.Callback) -> None:
    """
    Trains for two epochs.
    """
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[Prints(), *callbacks])


def printed(run_dir: Path) -> list[str]:
    """
    What is kept of a run's output.
    """
    reader = ConsoleReader(LocalStorage(run_dir))
    lines = reader.all_lines(run_dir)
    texts = [line.text.decode() for line in lines]
    return [text for text in texts if text.startswith("epoch")]


@pytest.mark.parametrize("first", [True, False])
def test_beside_a_backup(first: bool, tmp_path: Path) -> None:
    """
    Wherever it stands in the list, the run is that of the backup.
    """
    backup = bg.BackupAndRestore(tmp_path)
    capture = bg.OutputCapture()
    callbacks = [capture, backup] if first else [backup, capture]
    fit(*callbacks)
    assert ["epoch 0", "epoch 1"] == printed(tmp_path)
    assert (tmp_path / "DONE").exists()
    assert 1 == len(list((tmp_path / "attempts").iterdir()))
    assert list((tmp_path / "checkpoints").iterdir())
    orders = json.loads((tmp_path / ".sidecar/orders.json").read_text())
    assert 0 == orders["resources_secs"]


def test_by_themselves(tmp_path: Path) -> None:
    """
    Without a backup, they make a run of what they keep.
    """
    fit(
        bg.OutputCapture(tmp_path),
        bg.ResourceMonitor(tmp_path, interval="1s"),
    )
    assert ["epoch 0", "epoch 1"] == printed(tmp_path)
    assert list(read_resources(LocalStorage(tmp_path), 1))
    assert not (tmp_path / "checkpoints").exists()


def test_all_in_one_line(tmp_path: Path) -> None:
    """
    `unattended` keeps all of it; each can be left out.
    """
    fit(*bg.unattended(tmp_path / "all", resources="1s"))
    assert ["epoch 0", "epoch 1"] == printed(tmp_path / "all")
    assert list(read_resources(LocalStorage(tmp_path / "all"), 1))
    fit(
        *bg.unattended(
            tmp_path / "none",
            console=False,
            resources=False,
            report=False,
            tensorboard=False,
        )
    )
    assert [] == printed(tmp_path / "none")
    assert not (tmp_path / "none/.sidecar").exists()
    assert not (tmp_path / "none/tensorboard").exists()


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    """
    It is refused before anything is trained or made.
    """
    with pytest.raises(UsageError, match="console='little' cannot be meant"):
        bg.OutputCapture(limit="little")
    with pytest.raises(UsageError, match="resources='0s' cannot be meant"):
        bg.ResourceMonitor(interval="0s")
    with pytest.raises(UsageError, match=r"OutputCapture\(\) needs a run dir"):
        fit(bg.OutputCapture())
    with pytest.raises(UsageError, match="give it one run directory"):
        fit(
            bg.BackupAndRestore(tmp_path / "a"),
            bg.ResourceMonitor(tmp_path / "b"),
        )
    assert [] == list(tmp_path.iterdir())
