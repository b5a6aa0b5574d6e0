"""What a live run tells of itself every few seconds.

Invariant: JSON values only, taken without waiting for anything.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from colab_keras_bg.journal.step_times import StepTimes
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.saving import Saves

__all__ = ["vital_signs"]


def vital_signs(
    directory: RunDirectory,
    saves: Saves,
    times: StepTimes,
    *,
    state: str,
    step: int,
    epoch: int,
) -> dict[str, Any]:
    """What `status.json` says.

    Args:
        directory: The run's directory.
        saves: Its saves.
        times: Where its time goes.
        state: What it is doing.
        step: How far it has come.
        epoch: In which epoch, from 0.
    """
    shipping = directory.durability.vital_signs(directory.head)
    return {
        **shipping,
        **times.told(),
        "state": state,
        "step": step,
        "epoch": epoch,
        "attempt": directory.attempt,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "problem": saves.problem or shipping.get("problem"),
        "saves": saves.explained(),
        "best": saves.best,
    }
