"""What it takes to keep what is printed.

How fast it is stored, by a sidecar's own code in this process; and by how much
a program is slowed down that prints as fast as it can to a file, when a
sidecar stores that file meanwhile: with and without, in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from colab_keras_bg.journal.console_pump import ConsolePump
from colab_keras_bg.journal.raw_console import RawConsole
from colab_keras_bg.sidecar.launching import LaunchedSidecar
from colab_keras_bg.sidecar.watch_options import WatchOptions
from colab_keras_bg.storage.lock import DirectoryLock

LINE = b"step 1234: loss 0.123456 accuracy 0.987654 and some words more\n"
BAR = (
    b"\b" * 70
    + b"\r"
    + b"1234/5000 [=====>.............] 3s 2ms/step - loss: 0.1234 acc: 0.98"
)

# Prints for a while, and tells how many bytes it has written a second.
WRITER = """
import os, sys, time
line = sys.argv[1].encode() * 64
begun = time.perf_counter()
count = 0
while (secs := time.perf_counter() - begun) < float(sys.argv[2]):
    os.write(1, line)
    count += len(line)
    time.sleep(0.0005)  # It also computes.
print(count / secs, file=sys.stderr)
"""


def stored(directory: Path, content: bytes, megabytes: int) -> float:
    """Megabytes a second at which printed bytes are stored."""
    raw = RawConsole.of(directory, 1)
    handle = raw.open()
    block = content * (1 + (1 << 20) // len(content))
    while raw.size_bytes() < megabytes * 1e6:
        os.write(handle, block)
    os.write(handle, b"\n")
    os.close(handle)
    begun = time.perf_counter()
    ConsolePump(directory).drain()
    return raw.size_bytes() / 1e6 / (time.perf_counter() - begun)


def copied(directory: Path, megabytes: int) -> float:
    """Megabytes a second at which a file is only copied, in such blocks."""
    source = directory / "source"
    source.write_bytes(LINE * int(megabytes * 1e6 / len(LINE)))
    begun = time.perf_counter()
    with source.open("rb") as file, (directory / "copy").open("wb") as copy:
        while block := file.read(1 << 20):
            copy.write(block)
    return megabytes / (time.perf_counter() - begun)


def written(directory: Path, secs: float, *, kept: bool) -> float:
    """Megabytes a second that a program prints."""
    lock = DirectoryLock.acquire(directory, holder="the benchmark")
    raw = RawConsole.of(directory, 1)
    sidecar = None
    if kept:
        watch = WatchOptions(resources_secs=0.0, report_secs=0.0)
        sidecar = LaunchedSidecar(directory, url="", keep={}, watch=watch)
        sidecar.start()
        time.sleep(1.0)  # It starts.
    handle = raw.open()
    done = subprocess.run(
        [sys.executable, "-c", WRITER, LINE.decode(), str(secs)],
        stdout=handle,
        stderr=subprocess.PIPE,
        check=True,
    )
    os.close(handle)
    if sidecar is not None:
        sidecar.finish(patience_secs=60)
    lock.release()
    return float(done.stderr) / 1e6


def main() -> None:
    """Measures what the arguments say, and prints JSON."""
    megabytes, rounds, secs = int(sys.argv[1]), int(sys.argv[2]), 3.0
    found: dict[str, list[float]] = {
        name: []
        for name in ("lines", "bars", "copied", "without", "with", "slowed")
    }
    for _ in range(rounds):
        for name, content in (("lines", LINE), ("bars", BAR)):
            with tempfile.TemporaryDirectory() as directory:
                found[name].append(stored(Path(directory), content, megabytes))
        with tempfile.TemporaryDirectory() as directory:
            found["copied"].append(copied(Path(directory), megabytes))
        for name in ("without", "with"):
            with tempfile.TemporaryDirectory() as directory:
                kept = name == "with"
                found[name].append(written(Path(directory), secs, kept=kept))
        found["slowed"].append(1 - found["with"][-1] / found["without"][-1])
    result: dict[str, Any] = {
        name: statistics.median(values) for name, values in found.items()
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
