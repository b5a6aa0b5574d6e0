"""What it costs to import us, to ask where a run stands, and to report on it.

The run that is looked at is as large as one of three days: 26,000 looks at the
machine, 200,000 reports, 64 MB of console. Each is measured beside bare
Python, in turns; medians of the pairs.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.journal.attempts import Attempt, Attempts
from colab_keras_bg.journal.console_log import ConsoleLog
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import write_record

ROUNDS = 15
ATTEMPTS, LOOKS, REPORTS = 6, 26_000, 200_000
SECS = 10.0
# As on a terminal.
SCREEN = """\
import sys
from colab_keras_bg.cli.main import main
sys.stdout.isatty = lambda: True
main(["status", sys.argv[1]])
"""


def a_long_run(path: Path) -> None:
    """Writes down a run of three days."""
    storage, began = LocalStorage(path), time.time() - LOOKS * SECS
    path.mkdir(parents=True)
    write_record(storage, "run.json", {"run_id": "0123", "created": began})
    share = LOOKS // ATTEMPTS
    for number in range(1, ATTEMPTS + 1):
        start = began + (number - 1) * share * SECS
        Attempts(storage).write(
            Attempt(
                number=number,
                started=start,
                pid=1,
                host="vm",
                command=["file", "train.py"],
                from_step=(number - 1) * share * 100,
            )
        )
        lines = [
            json.dumps(look(start, (number - 1) * share, index))
            for index in range(share)
        ]
        file = path / f"attempts/{number:04d}/resources.jsonl"
        file.write_text("\n".join(lines) + "\n")
    log = ConsoleLog(path, ATTEMPTS)
    line = b"step 1234567  loss 0.1234  accuracy 0.9876  12.3 steps/s\n"
    for _ in range(64):
        log.append(line * ((1 << 20) // len(line)), when=began)
    with (path / "metrics.jsonl").open("w") as reports:
        for index in range(REPORTS):
            reports.write(json.dumps(report(began, index)) + "\n")
    store = CheckpointStore(storage)
    store.save(LOOKS * 100, attempt=ATTEMPTS, tensors={}, state={})
    signs = {"state": "training", "step": LOOKS * 100, "epoch": 99}
    write_record(storage, "status.json", signs)


def look(start: float, before: int, index: int) -> dict[str, Any]:
    """One look at the machine."""
    return {
        "time": start + SECS * index,
        "step": (before + index) * 100,
        "step_secs": 0.1,
        "input_wait": 0.05,
        "save_wait": 0.001,
        "cores": 8.0,
        "cores_busy": 2.5 + index % 7 / 10,
        "memory_used_bytes": 12_000_000_000 + index,
        "memory_total_bytes": 32_000_000_000,
        "disk_free_bytes": 60_000_000_000 - index,
        "disk_total_bytes": 100_000_000_000,
        "gpus": [{"name": "Tesla T4", "utilisation": 0.9}],
    }


def report(began: float, index: int) -> dict[str, Any]:
    """One report."""
    return {
        "step": index * 13,
        "loss": 1 / (1 + index),
        "accuracy": 1 - 1 / (1 + index),
        "val_loss": 1.1 / (1 + index),
        "time": began + index,
    }


def secs_of(*arguments: str) -> float:
    """How long a new interpreter takes."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - started


def main() -> None:
    """Measures, and prints JSON."""
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    run = directory / "run"
    try:
        a_long_run(run)
        ours = ("-m", "colab_keras_bg")
        commands = {
            "import": ("-c", "import colab_keras_bg"),
            "status": (*ours, "status", str(run)),
            "status_screen": ("-c", SCREEN, str(run)),
            "status_json": (*ours, "status", "--json", str(run)),
            "report": (*ours, "report", str(run), "--out=-"),
        }
        secs: dict[str, list[float]] = {name: [] for name in commands}
        beyond: dict[str, list[float]] = {name: [] for name in commands}
        for index in range(ROUNDS):
            for name, command in commands.items():
                if name == "report" and index % 5:
                    continue
                bare = secs_of("-c", "pass")
                secs[name].append(secs_of(*command))
                beyond[name].append(secs[name][-1] - bare)
        found = {
            "milliseconds": {
                name: round(1000 * statistics.median(each))
                for name, each in secs.items()
            },
            "beyond_bare_python": {
                name: round(1000 * statistics.median(each))
                for name, each in beyond.items()
            },
            "run_bytes": sum(
                file.stat().st_size for file in run.rglob("*") if file.is_file()
            ),
        }
    finally:
        shutil.rmtree(directory)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
