"""The names of a checkpoint's files.

Invariant: a name read from storage is used only if it is exactly one that
this module could have made.
"""

from __future__ import annotations

import re
import secrets

__all__ = [
    "MANIFEST",
    "data_file_name",
    "is_data_file_name",
    "step_directory",
    "step_of",
]

MANIFEST = "manifest.json"

_DIGITS = 9
_STEP = re.compile(rf"step-(\d{{{_DIGITS},18}})")
_DATA_FILE = re.compile(r"(tensors|state)-\d{4,9}-[0-9a-f]{8}\.[a-z]{4,11}")


def step_directory(step: int) -> str:
    """The folder of a step: `step-000001234`.

    Args:
        step: Training batches consumed since the run began, at least 0.
    """
    if step < 0:
        raise ValueError(f"A step is not negative: {step}.")
    return f"step-{step:0{_DIGITS}d}"


def step_of(directory: str) -> int | None:
    """The step of a folder's name, or None if it is not a step's folder."""
    match = _STEP.fullmatch(directory)
    if match is None or step_directory(int(match[1])) != directory:
        return None
    return int(match[1])


def data_file_name(kind: str, *, attempt: int, suffix: str) -> str:
    """A name for a data file that was never used before.

    The same step may be saved again after its first save was lost, so the
    step alone would not be unique.

    Args:
        kind: `tensors` or `state`.
        attempt: The attempt that writes it.
        suffix: Its ending, without the dot.
    """
    return f"{kind}-{attempt:04d}-{secrets.token_hex(4)}.{suffix}"


def is_data_file_name(name: str) -> bool:
    """Whether a name could have been made by `data_file_name`."""
    return _DATA_FILE.fullmatch(name) is not None
