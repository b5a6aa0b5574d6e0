"""Run directories as a training would leave them, made without training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from colab_keras_bg import run_directory
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import write_record
from colab_keras_bg.tensor import LazyTensor

__all__ = ["attempt", "beat", "commit", "damage"]


@contextmanager
def attempt(
    path: Path,
    *,
    exit_status: int | None = 0,
    reason: str = "the program ended",
) -> Iterator[RunDirectory]:
    """An attempt, live within the block, then ended; or killed: -9."""
    run_directory._attempt_of_this_process.clear()  # Another process' try.
    directory = RunDirectory(path)
    directory.hold()
    directory.begin_attempt(command=["program.py"])
    yield directory
    if exit_status != -9:
        directory.end_attempt(exit_status=exit_status, reason=reason)
    if exit_status == 0:
        directory.mark_done(
            step=directory.head.step, reason=reason, command=["program.py"]
        )
    directory.release()


def commit(directory: RunDirectory, step: int) -> None:
    """Commits a checkpoint."""
    tensor = LazyTensor.of(np.arange(8, dtype=np.float32) + step)
    manifest = directory.checkpoints.save(
        step,
        attempt=directory.attempt,
        tensors={"model/vars/0": tensor},
        state={"position": {"step": step}},
    )
    directory.publish(step=step, committed=manifest.created)


def beat(path: Path, **signs: Any) -> None:
    """Leaves a sign of life."""
    record = {"state": "training", "step": 0, "epoch": 0, "problem": None}
    write_record(LocalStorage(path), "status.json", {**record, **signs})


def damage(path: Path, kind: str) -> None:
    """Damages a file in one of the ways that files are damaged."""
    content = path.read_bytes()
    damaged = {
        "gone": None,
        "empty": b"",
        "cut": content[:-3],
        "flipped": bytes([content[0] ^ 1]) + content[1:],
        "zeroed": bytes(len(content)),
    }[kind]
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
