"""What the whole protection costs a training: saves, output, resources.

The same `fit` is run bare and under `bg.unattended` (a save every 30 seconds,
TensorBoard every 10 steps, console, resources), in turns, each in a process of
its own. What starting costs is left out: it is measured from the end of the
first epoch on. Of the processors, the sidecar's share counts, too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

EPOCH_STEPS = 400


def trained(run_dir: str, secs: float) -> dict[str, float]:
    """One training; seconds, seconds of cores, and steps, after an epoch."""
    import keras
    import numpy as np
    import psutil

    import colab_keras_bg as bg

    me = psutil.Process()

    def cores() -> float:
        total = 0.0
        for process in (me, *me.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        return total

    def beside() -> dict[str, float]:
        found: dict[str, float] = {}
        for child in me.children():
            times, command = child.cpu_times(), " ".join(child.cmdline())
            if "report" in command.split():
                continue  # It comes and goes.
            what = "sidecar" if "sidecar" in command else "showing"
            used = times.user + times.system
            found[what] = found.get(what, 0.0) + used
        return found

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.at: list[tuple[float, float]] = []
            self.beside: list[dict[str, float]] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.at.append((time.perf_counter(), cores()))
            self.beside.append(beside())
            print("epoch", epoch, logs)
            if self.at[-1][0] - self.at[0][0] > secs:
                self._model.stop_training = True

    rng = np.random.default_rng(0)
    x = rng.normal(size=(EPOCH_STEPS * 64, 256)).astype("float32")
    y = rng.normal(size=(EPOCH_STEPS * 64, 1)).astype("float32")
    layers = [keras.layers.Dense(512, "relu") for _ in range(4)]
    model = keras.Sequential(
        [keras.layers.Input((256,)), *layers, keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    clock = Clock()
    callbacks: list[Any] = [clock]
    if run_dir:
        callbacks += bg.unattended(run_dir, save_freq="30s")
    model.fit(x, y, batch_size=64, epochs=10**6, verbose=0, callbacks=callbacks)
    steps = EPOCH_STEPS * (len(clock.at) - 1)
    wall, core = (
        end - begin
        for begin, end in zip(clock.at[0], clock.at[-1], strict=True)
    )
    shares = {
        what: 100 * (used - clock.beside[0][what]) / wall
        for what, used in clock.beside[-1].items()
        if what in clock.beside[0]
    }
    return {
        "wall_ms": 1e3 * wall / steps,
        "core_ms": 1e3 * core / steps,
        **{f"{what}_percent": share for what, share in shares.items()},
    }


def in_a_process(run_dir: str, secs: float) -> dict[str, float]:
    """The same, in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.protection", run_dir, str(secs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        env={**os.environ, "PROTECTION_ONE": "1"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measures what the arguments say, and prints JSON."""
    if "PROTECTION_ONE" in os.environ:
        found = trained(sys.argv[1], float(sys.argv[2]))
        print(json.dumps(found), flush=True)
        return
    secs, rounds = float(sys.argv[1]), int(sys.argv[2])
    ratios: dict[str, list[float]] = {"wall_ms": [], "core_ms": []}
    bare, shares = {}, list[dict[str, float]]()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as directory:
            bare = in_a_process("", secs)
            ours = in_a_process(directory, secs)
        shares.append({k: v for k, v in ours.items() if "percent" in k})
        for name, values in ratios.items():
            values.append(ours[name] / bare[name])
    print(
        json.dumps(
            {
                "step_ms": bare["wall_ms"],
                "wall_ratio": statistics.median(ratios["wall_ms"]),
                "core_ratio": statistics.median(ratios["core_ms"]),
                "ratios": ratios,
                "of_a_core": shares,
            }
        )
    )


if __name__ == "__main__":
    main()
