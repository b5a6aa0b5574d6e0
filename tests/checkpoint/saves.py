"""Small checkpoints, and how to tell that one is what was saved."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from colab_keras_bg.checkpoint.store import Checkpoint, CheckpointStore
from colab_keras_bg.errors import BackgroundTrainingError
from colab_keras_bg.storage.filesystem import FileSystem, PosixFileSystem
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.tensor import LazyTensor

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class QuickFileSystem(PosixFileSystem):
    """Syncs nothing: no power is cut where it is used."""

    def fsync(self, handle: int) -> None:
        pass

    def fsync_directory(self, path: Path) -> None:
        pass


def store_in(
    directory: Path, filesystem: FileSystem | None = None
) -> CheckpointStore:
    """A store as a new process would open it."""
    storage = LocalStorage(
        directory, filesystem=filesystem or QuickFileSystem()
    )
    ticks = itertools.count(1_000)
    return CheckpointStore(storage, clock=lambda: next(ticks))


def arrays_of(step: int) -> dict[str, np.ndarray[Any, Any]]:
    """What the checkpoint of a step holds: most of it stays what it is."""
    draw = np.random.default_rng(step)
    return {
        "layers/dense/kernel": draw.normal(size=(7, 5)).astype(np.float32),
        "layers/dense/bias": draw.normal(size=5).astype(ml_dtypes.bfloat16),
        "optimizer/iterations": np.array(step, dtype=np.int64),
        "nothing": np.zeros((0, 3), dtype=np.float16),
        "frozen/kernel": np.arange(600, dtype=np.float32).reshape(20, 30),
    }


def state_of(step: int) -> dict[str, Any]:
    """What the checkpoint of a step knows besides."""
    return {
        "position": {"epoch": step // 7, "batch": step % 7, "fit": 0},
        "history": {"loss": [0.1 * step, float("inf")]},
        "note": "zwölf",
    }


def save(store: CheckpointStore, step: int) -> None:
    """Saves the checkpoint of a step, as a run that goes on does."""
    with contextlib.suppress(BackgroundTrainingError):
        store.latest()
    tensors = {k: LazyTensor.of(v) for k, v in arrays_of(step).items()}
    store.save(step, attempt=1, tensors=tensors, state=state_of(step))


def assert_is_whole(checkpoint: Checkpoint | None, step: int) -> None:
    """Fails unless this is the checkpoint of that step, bit by bit."""
    assert checkpoint is not None
    assert step == checkpoint.step
    assert state_of(step) == checkpoint.state
    assert bits_of(arrays_of(step)) == bits_of(checkpoint.tensors)


def bits_of(arrays: Any) -> dict[str, tuple[Any, ...]]:
    """All that there is to compare of some arrays."""
    return {k: (a.dtype, a.shape, a.tobytes()) for k, a in arrays.items()}


def tree_of(directory: Path) -> dict[str, str]:
    """Everything below a directory: names, kinds and hashes of contents."""
    found = {}
    for folder, folders, files in os.walk(directory):
        for name in folders + files:
            path = Path(folder, name)
            key = path.relative_to(directory).as_posix()
            if path.is_symlink():
                found[key] = f"link to {path.readlink()}"
            elif path.is_dir():
                found[key] = "folder"
            else:
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def debris_in(directory: Path) -> list[str]:
    """What lies there and belongs to no committed checkpoint."""
    store = store_in(directory)
    owned = {"checkpoints"}
    for step in store.steps():
        folder = f"checkpoints/step-{step:09d}"
        manifest = store.manifest(step)
        names = [*manifest.files, "manifest.json"]
        owned |= {folder} | {f"{folder}/{name}" for name in names}
        for origin, name in manifest.origins:
            folder = f"checkpoints/step-{origin:09d}"
            owned |= {folder, f"{folder}/{name}"}
    return sorted(set(tree_of(directory)) - owned)


def files_of(directory: Path, step: int) -> dict[str, Path]:
    """The three files of a checkpoint, by kind."""
    folder = directory / "checkpoints" / f"step-{step:09d}"
    return {
        path.name.partition("-")[0].partition(".")[0]: path
        for path in folder.iterdir()
    }
