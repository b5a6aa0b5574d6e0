"""What it takes to ship a file: ours, and `Blob.upload_from_filename`.

Both send the same file to a loopback server in a process of its own, in turns.
Besides: the most memory that a sidecar process has while it ships a checkpoint
of that size, and what it uses of a core when it has nothing to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs

IDLE_SECS = 20.0


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that some work takes, and seconds of a core."""
    wall, core = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - core


def uploads(url: str, path: Path, rounds: int) -> dict[str, list[Any]]:
    """Both, in turns."""
    client = storage.Client(
        project="none",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )
    bucket = client.bucket("bucket")
    found: dict[str, list[Any]] = {"ours": [], "upload_from_filename": []}
    with contextlib.closing(GcsStorage("bucket", "a", endpoint=url)) as ours:
        for number in range(rounds + 1):
            name = f"file-{number}"
            blob = bucket.blob(f"peer-{name}")
            times = (
                measured(partial(ours.upload, name, path)),
                measured(partial(blob.upload_from_filename, path)),
            )
            ours.delete(name)
            blob.delete()
            if number:  # The first finds out what there is.
                for one, took in zip(found.values(), times, strict=True):
                    one.append(took)
    return found


def sidecar(megabytes: int) -> dict[str, float]:
    """A sidecar that ships a checkpoint, and then waits."""
    directory = RunDirectory("gs://bucket/runs/benchmark")
    directory.hold()
    directory.begin_attempt(command=["benchmark"])
    size = megabytes << 18
    tensors = {"a": LazyTensor.of(np.arange(size, dtype="float32"))}
    directory.checkpoints.save(
        1, attempt=directory.attempt, tensors=tensors, state={}
    )
    directory.publish(step=1, committed=time.time())
    while (report := directory.durability.report()) is None or (
        report.durable_step != 1
    ):
        time.sleep(0.05)
    process = psutil.Process(report.pid)
    status = Path(f"/proc/{report.pid}/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    before = process.cpu_times()
    time.sleep(IDLE_SECS)
    after = process.cpu_times()
    idle = after.user + after.system - before.user - before.system
    directory.durability.finish(done=False)
    directory.release()
    return {
        "sidecar_peak_mb": int(peak.split()[1]) * 1024 / 1e6,
        "sidecar_idle_share": idle / IDLE_SECS,
    }


def main() -> None:
    """Measures what the arguments say, and prints JSON."""
    megabytes, rounds = map(int, sys.argv[1:3])
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as directory,
        # The service computes no MD5 of what was put together there.
        LoopbackGcs.spawn("--no_md5") as server,
    ):
        os.environ.update(server.environment)
        os.environ["COLAB_KERAS_BG_SPOOLS"] = directory
        path = Path(directory, "file")
        path.write_bytes(os.urandom(megabytes << 20))
        found = uploads(server.url, path, rounds)
        secs = {k: [wall for wall, _ in v] for k, v in found.items()}
        cores = {k: [core for _, core in v] for k, v in found.items()}
        ratios = zip(*secs.values(), strict=True)
        print(
            json.dumps(
                {
                    "megabytes": megabytes,
                    "secs": {k: statistics.median(v) for k, v in secs.items()},
                    "cpu_secs": {
                        k: statistics.median(v) for k, v in cores.items()
                    },
                    "speed_over_peer": statistics.median(
                        peer / ours for ours, peer in ratios
                    ),
                    **sidecar(megabytes),
                }
            )
        )


if __name__ == "__main__":
    main()
