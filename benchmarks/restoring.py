"""What it costs to read a checkpoint back, verified, into the variables.

The peers are `safetensors`, reading the same file without verifying it; Keras'
own `load_weights` of a `.weights.h5` with the optimizer in it, which is what
`BackupAndRestore` does, and of what `OrbaxCheckpoint` has saved; and
`tf.train.CheckpointManager`, on TensorFlow.
"""

from __future__ import annotations

import json
import math
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
import safetensors.numpy

from benchmarks.saving import checkpoint_manager, model_of
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.training_state.snapshot import Snapshots, assign
from colab_keras_bg.training_state.variables import training_variables


def timed(work: Callable[[], Any]) -> float:
    """Seconds that some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _peers(model: Any, directory: Path) -> dict[str, Callable[[], Any]]:
    """How they read back what they have saved, each by itself."""
    whole = directory / "peer.weights.h5"
    model.save_weights(whole)
    peers = {"load_weights": lambda: model.load_weights(whole)}
    if hasattr(keras.callbacks, "OrbaxCheckpoint"):
        orbax = directory / "orbax"
        saving = keras.callbacks.OrbaxCheckpoint(str(orbax), save_freq="epoch")
        x, y = np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32")
        model.fit(x, y, verbose=0, callbacks=[saving])
        peers["OrbaxCheckpoint"] = lambda: model.load_weights(orbax)
    if keras.backend.backend() == "tensorflow":
        manager = checkpoint_manager(model, directory / "manager")
        path = manager.save()
        peers["CheckpointManager"] = lambda: manager.checkpoint.restore(
            path
        ).assert_consumed()
    return peers


def main() -> None:
    """Measures what the arguments say, and prints JSON."""
    megabytes, number, rounds = map(int, sys.argv[1:4])
    keras.utils.set_random_seed(0)
    model = model_of(megabytes, number)
    x, y = np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32")
    model.fit(x, y, verbose=0)
    variables = training_variables(model)
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        store = CheckpointStore(LocalStorage(directory))
        tensors = Snapshots(variables, model=model).take()
        manifest = store.save(1, attempt=1, tensors=tensors, state={})
        folder = directory / "checkpoints/step-000000001"
        file = folder / manifest.tensors_file
        peers = _peers(model, directory)

        def ours() -> None:
            fresh = CheckpointStore(LocalStorage(directory))
            assign(variables, fresh.load(1).tensors)

        def peer() -> None:
            assign(variables, safetensors.numpy.load_file(file))

        def reading() -> None:
            CheckpointStore(LocalStorage(directory)).load(1)

        def peer_reading() -> None:
            safetensors.numpy.load_file(file)

        found: dict[str, list[float]] = {
            name: []
            for name in (
                "ours",
                "safetensors",
                "ours, reading",
                "safetensors, reading",
                *peers,
            )
        }
        for _ in range(rounds):
            found["ours"].append(timed(ours))
            found["safetensors"].append(timed(peer))
            found["ours, reading"].append(timed(reading))
            found["safetensors, reading"].append(timed(peer_reading))
            for name, load in peers.items():
                found[name].append(timed(load))
    finally:
        shutil.rmtree(directory)
    size = sum(math.prod(v.shape) * 4 for v in variables.values())
    print(
        json.dumps(
            {
                "backend": keras.backend.backend(),
                "megabytes": size / 1e6,
                "variables": len(variables),
                "secs": {k: statistics.median(v) for k, v in found.items()},
                "speed_over_safetensors": statistics.median(
                    b / a
                    for a, b in zip(
                        found["ours"], found["safetensors"], strict=True
                    )
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
