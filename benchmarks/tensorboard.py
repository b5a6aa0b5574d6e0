"""What it costs to show a training: ours, and `keras.callbacks.TensorBoard`.

The same model is trained without, under one and under the other, in turns;
what a step costs is what it takes longer than without. Besides: how many bytes
of events go to a bucket over those that were written, however often the
sidecar looks. Where there is no TensorFlow, Keras' class does not work, and
ours is measured alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

import colab_keras_bg as bg
from colab_keras_bg.journal.events import EventJournal
from colab_keras_bg.journal.summaries import scalars
from colab_keras_bg.sidecar.growing import GrowingFiles
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs

STEPS = 1000
LOOKS = 200


def model_of(width: int) -> keras.Model:
    """A model whose step takes about a millisecond."""
    model = keras.Sequential(
        [
            keras.layers.Input((width,)),
            keras.layers.Dense(width, "relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


def trained(model: Any, data: Any, callbacks: list[Any]) -> tuple[float, float]:
    """Milliseconds that a step takes, and of a core."""
    wall, core = time.perf_counter(), time.process_time()
    model.fit(*data, batch_size=32, verbose=0, callbacks=callbacks)
    wall, core = time.perf_counter() - wall, time.process_time() - core
    return 1e3 * wall / STEPS, 1e3 * core / STEPS


def steps(directory: Path, rounds: int) -> dict[str, Any]:
    """What a step costs beyond one without, by peer, in milliseconds."""
    rng = np.random.default_rng(0)
    data = (
        rng.normal(size=(32 * STEPS, 64)).astype("float32"),
        rng.normal(size=(32 * STEPS, 1)).astype("float32"),
    )
    kinds: dict[str, Any] = {"none": None, "ours": bg.TensorBoard}
    if importlib.util.find_spec("tensorflow") is not None:
        kinds["keras"] = keras.callbacks.TensorBoard
    model = model_of(64)
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for name, kind in kinds.items():
            log_dir = directory / f"{name}-{number}"
            callbacks = [kind(log_dir, update_freq=1)] if kind else []
            took = trained(model, data, callbacks)
            if number:  # The first traces.
                found[name].append(took)
    bare = found.pop("none")
    result: dict[str, Any] = {
        "bare_ms": statistics.median(wall for wall, _ in bare),
    }
    for name, each in found.items():
        pairs = [*zip(each, bare, strict=True)]
        result[f"{name}_ms"] = statistics.median(
            one[0] - without[0] for one, without in pairs
        )
        result[f"{name}_core_ms"] = statistics.median(
            one[1] - without[1] for one, without in pairs
        )
    if "keras" in found:
        ratios = [
            (ours[0] - without[0]) / (theirs[0] - without[0])
            for ours, theirs, without in zip(
                found["ours"], found["keras"], bare, strict=True
            )
        ]
        result["over_keras"] = statistics.median(ratios)
    return result


class Counting(GcsStorage):
    """A bucket that counts the bytes of events sent to it."""

    sent_bytes = 0

    def append(self, name: str, content: bytes, *, at: int) -> Any:
        self.sent_bytes += len(content)
        return super().append(name, content, at=at)

    def replace(self, name: str, content: bytes) -> Any:
        self.sent_bytes += len(content)
        return super().replace(name, content)


def uploads(directory: Path, url: str, looks: int) -> dict[str, float]:
    """Of a run that is looked at so often, and cut back a few times."""
    spool = LocalStorage(directory)
    journal = EventJournal(directory / "tensorboard", run_id=lambda: "a run")
    step = written = before = 0

    def size() -> int:
        return sum(p.stat().st_size for p in directory.rglob("*.tfevents.*"))

    def add(number: int) -> None:
        nonlocal step
        for _ in range(number):
            step += 1
            values = partial(scalars, {"loss": step, "mae": 0.5})
            journal.add("train", values, step=step, run_step=step)

    with contextlib.closing(Counting("bucket", "a", endpoint=url)) as remote:
        growing = GrowingFiles(spool, remote)
        for look in range(looks):
            add(1000)
            journal.sync()  # As before a checkpoint.
            committed = step
            growing.ship()
            if look % (looks // 4) == looks // 8:  # A machine is lost.
                add(500)
                journal.close()
                growing.ship()
                written += size() - before
                step = committed
                journal.cut_back(step)
                journal.sync()
                growing = GrowingFiles(spool, remote)
                growing.ship()
            else:
                written += size() - before
            before = size()
        sent_bytes, wire = remote.sent_bytes, remote.traffic.to_json()
    journal.close()
    return {
        "written_mb": written / 1e6,
        "over_written": sent_bytes / written,
        "on_the_wire_over_written": wire["sent_bytes"] / written,
    }


def main() -> None:
    """Measures what the arguments say, and prints JSON."""
    rounds = int(sys.argv[1])
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        found = steps(directory / "steps", rounds)
        with LoopbackGcs.spawn("--no_md5") as server:
            for looks in (LOOKS // 5, LOOKS):
                folder = directory / f"looks-{looks}"
                found[f"{looks} looks"] = uploads(folder, server.url, looks)
    finally:
        shutil.rmtree(directory)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
