"""What a save costs the training: ours, and those of the well-known peers.

One process trains the same model under one after the other, in rounds, so
that all of them meet the same moods of the machine. Run by `benchmarks`.

Blocked is the time between the end of a step, when its results are there, and
the begin of the next one, less what that takes without a save.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

import colab_keras_bg as bg
from colab_keras_bg.testing.loopback_gcs import Fault, LoopbackGcs

STEPS_BETWEEN = 4
SAVES = 4
# Beyond so many variables, they are counted up at each step, not trained:
# TensorFlow would trace the gradients of ten thousand for ten minutes.
MOST_TRAINED = 3000


def model_of(megabytes: int, variables: int) -> keras.Model:
    """A model whose training state has this size.

    Args:
        megabytes: Of weights and Adam's two slots together.
        variables: How many of the three kinds together.
    """
    counted = max(0, variables - MOST_TRAINED)
    layers = max(1, (variables - counted) // 3)
    share = (megabytes << 20) // 4 // (3 * layers + counted)
    side = max(2, math.isqrt(share))

    class Parallel(keras.Model):
        """As many weights as asked for; a step touches each."""

        def build(self, shape: Any) -> None:
            self.kernels = [
                self.add_weight(shape=(side, side), name=f"kernel_{i}")
                for i in range(layers)
            ]
            self.counts = [
                self.add_weight(
                    shape=(side, side),
                    initializer="zeros",
                    trainable=False,
                    name=f"count_{i}",
                )
                for i in range(counted)
            ]

        def call(self, x: Any) -> Any:
            total = keras.ops.sum(x, axis=1, keepdims=True)
            for kernel in self.kernels:
                total = total + keras.ops.mean(kernel[:1]) * 1e-3
            for count in self.counts:
                count.assign_add(keras.ops.ones_like(count))
            return total

    model = Parallel()
    model.build((None, 4))
    model.compile("adam", "mse", jit_compile=False)
    return model


class Gaps(keras.callbacks.Callback):
    """The time between two steps, first and last of all callbacks at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps: list[float] = []
        self._ended: float | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if keras.backend.backend() == "jax":
            import jax

            jax.block_until_ready(self._model._jax_state)
        self._ended = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._ended is not None:
            self.gaps.append(time.perf_counter() - self._ended)
        self._ended = None

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class Between(keras.callbacks.Callback):
    """Waits, outside of what is measured, until a save in flight has ended."""

    def __init__(self, wait: Any) -> None:
        super().__init__()
        self._wait = wait

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch % STEPS_BETWEEN == STEPS_BETWEEN - 1:
            self._wait()

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


def checkpoint_manager(model: Any, directory: Path) -> Any:
    """TensorFlow's, over the training state of a model."""
    import tensorflow as tf

    tracked = tf.train.Checkpoint(
        **{str(i): v.value for i, v in enumerate(model.variables)},
        **{f"o{i}": v.value for i, v in enumerate(model.optimizer.variables)},
    )
    return tf.train.CheckpointManager(tracked, str(directory), max_to_keep=2)


def _manager_callback(directory: Path) -> Any:
    class Manager(keras.callbacks.Callback):
        def set_model(self, model: Any) -> None:
            super().set_model(model)
            self.manager = checkpoint_manager(model, directory)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if (batch + 1) % STEPS_BETWEEN == 0:
                self.manager.save()

    return Manager()


@contextmanager
def far_away(state: str, directory: Path) -> Iterator[list[Any]]:
    """Ours, with the run in a bucket that answers, hangs, fails or is gone."""
    with LoopbackGcs.spawn("--no_md5") as server:
        os.environ |= server.environment
        os.environ["COLAB_KERAS_BG_SPOOLS"] = str(directory / "spools")
        run = bg.Run("gs://bucket/runs/a", save_freq=STEPS_BETWEEN)
        with run:
            if state == "hangs":
                server.faults.add(Fault(kind="stall", times=None))
            elif state == "fails":
                server.faults.add(Fault(status=503, times=None))
            elif state == "gone":
                server.stop()
            yield [*run.callbacks(tensorboard=False), Between(run.saves.wait)]
            server.start()
            server.faults.clear()  # Closing the run waits for it.


@contextmanager
def callbacks_of(peer: str, directory: Path) -> Iterator[list[Any]]:
    """The callbacks that save every few steps."""
    if peer == "ours":
        run = bg.Run(directory / "run", save_freq=STEPS_BETWEEN)
        with run:
            yield [*run.callbacks(tensorboard=False), Between(run.saves.wait)]
    elif peer.startswith("bucket "):
        with far_away(peer.removeprefix("bucket "), directory) as callbacks:
            yield callbacks
    elif peer == "BackupAndRestore":
        yield [
            keras.callbacks.BackupAndRestore(
                str(directory / "backup"), save_freq=STEPS_BETWEEN
            )
        ]
    elif peer == "OrbaxCheckpoint":
        yield [
            keras.callbacks.OrbaxCheckpoint(
                str(directory / "orbax"),
                save_freq=STEPS_BETWEEN,
                max_to_keep=2,
                save_on_background=True,
            )
        ]
    elif peer == "CheckpointManager":
        yield [_manager_callback(directory / "manager")]
    else:
        yield []


def written_bytes() -> int:
    """What this process has written so far, wherever to."""
    text = Path("/proc/self/io").read_text()
    return int(dict(line.split(": ") for line in text.splitlines())["wchar"])


def peak_bytes() -> int:
    """The most memory that this process had since `forget_peak`."""
    text = Path("/proc/self/status").read_text()
    line = next(row for row in text.splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def forget_peak() -> int:
    """Begins to watch the memory anew; returns what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def measure(peer: str, model: Any) -> dict[str, float]:
    """One round: `SAVES` saves of a peer."""
    steps = STEPS_BETWEEN * SAVES + 2
    x = np.zeros((steps * 2, 4), "float32")
    y = np.zeros((steps * 2, 1), "float32")
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    gaps = Gaps()
    try:
        before, held = written_bytes(), forget_peak()
        with callbacks_of(peer, directory) as saving:
            started = time.perf_counter()
            model.fit(
                x,
                y,
                batch_size=2,
                shuffle=False,
                verbose=0,
                callbacks=[gaps, *saving],
            )
            took = time.perf_counter() - started
    finally:
        shutil.rmtree(directory)
    at_save = [
        gap
        for number, gap in enumerate(gaps.gaps, start=1)
        if number % STEPS_BETWEEN == 0
    ]
    others = [
        gap
        for number, gap in enumerate(gaps.gaps, start=1)
        if number % STEPS_BETWEEN
    ]
    # The first save finds things out; it is told by itself.
    blocked = [gap - statistics.median(others) for gap in at_save]
    return {
        "blocked_ms": statistics.median(blocked[1:]) * 1e3,
        "first_ms": blocked[0] * 1e3,
        "took_secs": took,
        "written_mb": (written_bytes() - before) / 1e6,
        "memory_mb": (peak_bytes() - held) / 1e6,
    }


def main() -> None:
    """Measures what the arguments say, and prints JSON."""
    megabytes, variables, rounds = map(int, sys.argv[1:4])
    peers = sys.argv[4].split(",")
    keras.utils.set_random_seed(0)
    model = model_of(megabytes, variables)
    state = [*model.variables, *model.optimizer.variables]
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    measure("none", model)  # Builds the optimizer, compiles the step.
    state = [*model.variables, *model.optimizer.variables]
    for _ in range(rounds):
        for peer in peers:
            found[peer].append(measure(peer, model))
    size = sum(math.prod(v.shape) * 4 for v in state)
    print(
        json.dumps(
            {
                "backend": keras.backend.backend(),
                "megabytes": size / 1e6,
                "variables": len(state),
                "pid": os.getpid(),
                "peers": found,
            }
        )
    )


if __name__ == "__main__":
    main()
