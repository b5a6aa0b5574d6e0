"""The power goes at each call of whatever changes checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colab_keras_bg.checkpoint.policies import KeepLast
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import DamagedCheckpointError, StepExistsError
from colab_keras_bg.testing.power_cut import (
    Aftermath,
    PowerCut,
    PowerCutFileSystem,
    aftermaths,
)

from .saves import (
    assert_is_whole,
    debris_in,
    files_of,
    save,
    store_in,
)

CALLS_OF_FIRST_SAVE = 35
CALLS_OF_SAVE = 35
CALLS_OF_DELETE = 8
CALLS_OF_RETAIN = 16
CALLS_OF_MENDING = 40
AFTERMATHS = aftermaths(seeds=6)
ALL_LOST = Aftermath("lost", "lost")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Holds the checkpoints of steps 10 to 40, synced long ago."""
    store = store_in(tmp_path)
    for step in (10, 20, 30, 40):
        save(store, step)
    return tmp_path


def calls_of(
    directory: Path,
    change: Callable[[CheckpointStore], object],
    *,
    dies_at: int | None = None,
) -> PowerCutFileSystem:
    """Carries out a change, until the power goes."""
    files = PowerCutFileSystem(directory, dies_at=dies_at)
    with contextlib.suppress(PowerCut):
        change(store_in(directory / "run", files))
    return files


def states_after(
    files: PowerCutFileSystem, directory: Path
) -> Iterator[CheckpointStore]:
    """A new process' view of each state that the power cut may leave."""
    for aftermath in AFTERMATHS:
        files.cut(aftermath)
        yield store_in(directory / "run")
