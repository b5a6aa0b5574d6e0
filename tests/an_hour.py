"""A run of an hour, as it would have been written down, in a moment.

Three attempts: one that was killed, one that was given notice, and one that is
done (or at work, or failed). It loses steps, waits, saves and measures.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.journal.attempts import Attempt, Attempts
from colab_keras_bg.journal.console_log import ConsoleLog
from colab_keras_bg.journal.resources import append_resources
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import write_record
from colab_keras_bg.tensor import LazyTensor

__all__ = ["BEGAN", "HOUR", "AnHour", "a_run_of_an_hour"]

BEGAN = 1_795_000_000.0
HOUR = 3600.0
STEP_SECS = 0.25
STEPS_AN_EPOCH = 500

# Of each attempt: when it started and ended, how long it took to the first
# step, the step it began at, and how it ended.
ATTEMPTS = [
    (0.0, 1500.0, 40.0, 0, None, None, ""),
    (1620.0, 2400.0, 60.0, 5000, 2400.0, 75, "interrupted (SIGTERM)"),
    (2460.0, 3600.0, 40.0, 7500, 3600.0, 0, "the program ended"),
]


@dataclass(frozen=True)
class AnHour:
    """What was made.

    Attributes:
        path: The run directory.
        steps: How far it came.
        commits: The committed steps.
    """

    path: Path
    steps: int
    commits: list[int]


def a_run_of_an_hour(
    path: Path,
    *,
    end: str = "done",
    gpus: int = 1,
    began: float = BEGAN,
    hostile: str = "",
) -> AnHour:
    """Makes one.

    Args:
        path: The run directory.
        end: `done`, `failed` or `interrupted`.
        gpus: How many GPUs the machine had.
        began: When it began.
        hostile: A text that stands wherever a text may stand.
    """
    path.mkdir(parents=True, exist_ok=True)
    storage, chance = LocalStorage(path), random.Random(1)
    write_record(storage, "run.json", {"run_id": "0123", "created": began})
    for number, tried in enumerate(ATTEMPTS, start=1):
        begin, _, _, step, ended, status, reason = tried
        is_last = number == len(ATTEMPTS)
        if is_last and end == "failed":
            status, reason = 1, "the program failed: no kernel image"
        elif is_last and end == "interrupted":
            ended = None
        Attempts(storage).write(
            Attempt(
                number=number,
                started=began + begin,
                pid=1000 + number,
                host=f"vm-{number}{hostile}",
                command=["file", f"train.py{hostile}", "--learning_rate=0.001"],
                from_step=step,
                ended=None if ended is None else began + ended,
                exit_status=status,
                reason=reason + hostile * bool(reason),
            )
        )
        _measure(path, number, tried, began=began, gpus=gpus, chance=chance)
        _print(path, number, tried, began=began, hostile=hostile)
    steps = ATTEMPTS[-1][3] + int((1140 - 40) / STEP_SECS)
    _report(path, steps, began=began, hostile=hostile)
    commits = _commit(storage, [9000, 10500, steps], began=began)
    write_record(
        storage,
        "status.json",
        {
            "state": "training",
            "step": steps,
            "epoch": steps // STEPS_AN_EPOCH,
            "attempt": 3,
            "heartbeat": began + HOUR,
            "expected_steps": 15_000,
            "step_secs": STEP_SECS,
            "problem": None,
            "saves": "every 30 s: a save takes 0.2 % of the time" + hostile,
            "best": "step 9000 (val_loss 0.31)" + hostile,
        },
    )
    if end == "done":
        write_record(
            storage,
            "DONE",
            {
                "attempt": 3,
                "step": steps,
                "reason": "the program ended" + hostile,
                "time": began + HOUR,
            },
        )
    return AnHour(path, steps, commits)


def _measure(
    path: Path,
    number: int,
    tried: tuple[Any, ...],
    *,
    began: float,
    gpus: int,
    chance: random.Random,
) -> None:
    begin, stop, start_secs, from_step, *_ = tried
    for secs in range(int(begin), int(stop), 10):
        trained = max(0.0, secs - begin - start_secs)
        line: dict[str, Any] = {
            "time": began + secs,
            "step": from_step + int(trained / STEP_SECS),
            "cores": 8.0,
            "cores_busy": round(2.5 + chance.random(), 3),
            "memory_used_bytes": int(9e9 + 2e6 * trained),
            "memory_total_bytes": int(32e9),
            "process_bytes": int(6e9 + 2e6 * trained),
            "children": 4,
            "disk_free_bytes": int(60e9 - 1e6 * secs),
            "disk_total_bytes": int(100e9),
            "sent_bytes_per_sec": 2e5,
            "received_bytes_per_sec": 4e6 * (1 + chance.random()),
        }
        if gpus:
            line["gpus"] = [
                {
                    "name": "Tesla T4",
                    "utilisation": round(0.8 + 0.15 * chance.random(), 2),
                    "used_bytes": int(9.5e9),
                    "total_bytes": int(15.8e9),
                    "power_watts": 61.0,
                    "celsius": 68.0,
                }
            ] * gpus
        if trained:
            line |= {
                "step_secs": STEP_SECS * (1 + 0.1 * chance.random()),
                "input_wait": round(0.06 + 0.04 * chance.random(), 4),
                "save_wait": 0.002,
            }
        append_resources(path, number, line)


def _print(
    path: Path,
    number: int,
    tried: tuple[Any, ...],
    *,
    began: float,
    hostile: str,
) -> None:
    log = ConsoleLog(path, number)
    begin, stop, start_secs, from_step, *_ = tried
    log.append(
        b"\x1b[1mtrain.py\x1b[0m on Keras 3.15.1, tensorflow\n",
        when=began + begin,
    )
    for secs in range(int(begin + start_secs), int(stop), 20):
        step = from_step + int((secs - begin - start_secs) / STEP_SECS)
        text = (
            f"\x1b[32mstep {step:>6}\x1b[0m  loss {_loss(step):.4f}  "
            f"{1 / STEP_SECS:.1f} steps/s{hostile}\n"
        )
        log.append(text.encode(errors="surrogatepass"), when=began + secs)


def _report(path: Path, steps: int, *, began: float, hostile: str) -> None:
    chance = random.Random(2)
    with (path / "metrics.jsonl").open("w") as file:
        for step in range(STEPS_AN_EPOCH, steps + 1, STEPS_AN_EPOCH):
            noise = 0.05 * chance.random()
            report = {
                "step": step,
                "epoch": step // STEPS_AN_EPOCH - 1,
                "loss": _loss(step) + noise / 3,
                "accuracy": 1 - _loss(step) / 2.4,
                f"val_loss{hostile}": _loss(step) * 1.1 + noise + step / 2e5,
                f"loss{hostile}": _loss(step),
                "val_loss": _loss(step) * 1.1 + noise + step / 2e5,
                "val_accuracy": 0.97 - _loss(step) / 2.4 - noise / 3,
                "learning_rate": 1e-3 * math.exp(-step / 6000),
                "time": began + _when(step),
            }
            file.write(json.dumps(report) + "\n")


def _when(step: int) -> float:
    """When a step was trained for the last time, in seconds."""
    for begin, stop, start_secs, from_step, *_ in reversed(ATTEMPTS):
        if step > from_step:
            secs = begin + start_secs + (step - from_step) * STEP_SECS
            return float(min(secs, stop))
    return 0.0


def _loss(step: int) -> float:
    return 0.2 + 2.1 * math.exp(-step / 2500)


def _commit(storage: Storage, steps: list[int], *, began: float) -> list[int]:
    now = began
    store = CheckpointStore(storage, clock=lambda: now)
    for step in steps:
        now = began + _when(step)
        values = np.full((64, 64), step, dtype=np.float32)
        store.save(
            step,
            attempt=3,
            tensors={"model/vars/0": LazyTensor.of(values)},
            state={"position": {"step": step}},
            metrics={"val_loss": _loss(step)},
        )
    Head(
        run_id="0123",
        attempt=3,
        step=steps[-1],
        committed=now,
        steps=tuple(steps),
    ).write(storage)
    return steps
