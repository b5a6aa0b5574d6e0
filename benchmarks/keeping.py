"""What a save costs when many checkpoints are kept, and what little changes.

The peer is `tf.train.CheckpointManager`, which keeps as many, where there is
TensorFlow. The state is small: what is timed is finding one's way among the
others, and giving up the oldest.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from colab_keras_bg.checkpoint.keeping import KeepLast
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.tensor import LazyTensor

ROUNDS = 25


def tensors(step: int) -> dict[str, LazyTensor]:
    """A small state, other at each step."""
    values = np.full((64, 64), step, dtype=np.float32)
    return {"kernel": LazyTensor.of(values)}


def ours(directory: Path, kept: int) -> Callable[[], None]:
    """A save, with so many kept already."""
    store = CheckpointStore(LocalStorage(directory))
    step = 0

    def save() -> None:
        nonlocal step
        step += 1
        store.save(step, attempt=1, tensors=tensors(step), state={"step": step})
        store.retain(KeepLast(kept))

    for _ in range(kept):
        save()
    return save


def manager(directory: Path, kept: int) -> Callable[[], None]:
    """The same by TensorFlow's."""
    import tensorflow as tf

    variable = tf.Variable(np.zeros((64, 64), np.float32))
    saver = tf.train.CheckpointManager(
        tf.train.Checkpoint(kernel=variable), directory, max_to_keep=kept
    )

    def save() -> None:
        variable.assign_add(tf.ones_like(variable))
        saver.save()

    for _ in range(kept):
        save()
    return save


def frozen_share(directory: Path) -> float:
    """Of the state, what a save writes if 90 % of it stays what it was."""
    store = CheckpointStore(LocalStorage(directory))
    backbone = np.random.default_rng(0).normal(size=(90, 25_000))
    written = []
    for step in (1, 2, 3):
        state = {
            "backbone": LazyTensor.of(backbone.astype(np.float32)),
            "head": LazyTensor.of(np.full((10, 25_000), step, np.float32)),
        }
        total = sum(tensor.size_bytes for tensor in state.values())
        manifest = store.save(step, attempt=1, tensors=state, state={})
        written.append(manifest.size_bytes / total)
    return written[-1]


def main() -> None:
    """Measures what the arguments say, and prints JSON."""
    kept = int(sys.argv[1])
    makers = {"ours": ours}
    if keras.backend.backend() == "tensorflow":
        makers["CheckpointManager"] = manager
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        saves = {
            name: make(directory / name, kept) for name, make in makers.items()
        }
        secs: dict[str, list[float]] = {name: [] for name in saves}
        for _ in range(ROUNDS):  # In turns.
            for name, save in saves.items():
                started = time.perf_counter()
                save()
                secs[name].append(time.perf_counter() - started)
        found: dict[str, Any] = {
            "kept": kept,
            "milliseconds": {
                name: 1000 * statistics.median(each)
                for name, each in secs.items()
            },
            "frozen_share": frozen_share(directory / "frozen"),
        }
    finally:
        shutil.rmtree(directory)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
