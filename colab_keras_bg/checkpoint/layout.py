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

_STEP = re.compile(r"step-([0-9]{9,18})")
_SUFFIXES = {"tensors": "safetensors", "state": "json"}
_DATA_FILE = re.compile(
    r"tensors-[0-9]{4,9}-[0-9a-f]{8}\.safetensors"
    r"|state-[0-9]{4,9}-[0-9a-f]{8}\.json"
)


def step_directory(step: int) -> str:
    """The folder of a step: `step-000001234`.

    Args:
        step: Training batches consumed since the run began, at least 0.

    Raises:
        ValueError: If it is negative, or has more than 18 digits.
    """
    name = f"step-{step:09d}"
    if _STEP.fullmatch(name) is None:
        raise ValueError(f"This cannot be a step: {step}.")
    return name


def step_of(directory: str) -> int | None:
    """The step of a folder's name, or None if it is not a step's folder."""
    match = _STEP.fullmatch(directory)
    if match is None or step_directory(int(match[1])) != directory:
        return None
    return int(match[1])


def data_file_name(kind: str, *, attempt: int) -> str:
    """A name for a data file that was never used before.

    The same step may be saved again after its first save was lost, so the
    step alone would not be unique.

    Args:
        kind: `tensors` or `state`.
        attempt: The attempt that writes it.

    Raises:
        ValueError: If an attempt cannot have this number.
    """
    token = secrets.token_hex(4)
    name = f"{kind}-{attempt:04d}-{token}.{_SUFFIXES[kind]}"
    if not is_data_file_name(name):
        raise ValueError(f"This cannot be an attempt: {attempt}.")
    return name


def is_data_file_name(name: str, kind: str = "") -> bool:
    """Whether a name could have been made by `data_file_name`.

    Args:
        name: The name.
        kind: `tensors` or `state`; either if empty.
    """
    return bool(_DATA_FILE.fullmatch(name)) and name.startswith(kind)
