"""`attempts/NNNN/resources.jsonl`: what a run has used, line by line.

Invariant: a line is one look at the machine, of JSON values, behind whole
lines. What could not be told is left out.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from colab_keras_bg.errors import ObjectNotFoundError
from colab_keras_bg.journal.attempts import attempt_directory
from colab_keras_bg.journal.machine import Machine
from colab_keras_bg.storage.interface import Storage

__all__ = ["ResourceMeter", "append_resources", "read_resources"]

_NAME = "resources.jsonl"
# Of the trainer's own signs, what belongs to each look.
_SIGNS = (
    "step",
    "epoch",
    "step_secs",
    "input_wait",
    "save_wait",
    "device_memory",
)


class ResourceMeter:
    """Looks at the machine again and again; rates are between two looks."""

    def __init__(self, directory: Path, machine: Machine) -> None:
        """Has not looked yet.

        Args:
            directory: The run's local directory.
            machine: What is looked at.
        """
        self._directory, self._machine = directory, machine
        self._last: tuple[float, float, tuple[int, int] | None] | None = None

    def look(self, signs: Mapping[str, Any], *, now: float) -> dict[str, Any]:
        """One line.

        Args:
            signs: What the trainer last told of itself (`status.json`).
            now: Seconds since 1970.

        Raises:
            OSError: If the disk cannot be looked at.
        """
        machine = self._machine
        pid = signs.get("pid") if type(signs.get("pid")) is int else None
        memory = machine.memory()
        process_bytes, children = machine.process(pid)
        free_bytes, disk_bytes = machine.disk(self._directory)
        found = {
            "time": now,
            **{name: signs.get(name) for name in _SIGNS},
            "cores": machine.cores(),
            **self._rates(now),
            "memory_used_bytes": memory.used_bytes,
            "memory_total_bytes": memory.total_bytes,
            "process_bytes": process_bytes,
            "children": children,
            "disk_free_bytes": free_bytes,
            "disk_total_bytes": disk_bytes,
            "gpus": [_without_none(asdict(g)) for g in machine.gpus()] or None,
        }
        return _without_none(found)

    def _rates(self, now: float) -> dict[str, float]:
        """What was used a second since the last look."""
        busy, network = self._machine.busy_secs(), self._machine.network()
        last, self._last = self._last, (now, busy, network)
        if last is None or now <= last[0]:
            return {}
        secs = now - last[0]
        rates = {"cores_busy": round(max(0.0, busy - last[1]) / secs, 3)}
        if network is not None and last[2] is not None:
            for index, name in enumerate(("sent", "received")):
                moved = max(0, network[index] - last[2][index])
                rates[f"{name}_bytes_per_sec"] = round(moved / secs)
        return rates


def append_resources(
    directory: Path, attempt: int, line: Mapping[str, Any]
) -> None:
    """Adds a line.

    Args:
        directory: The run's local directory.
        attempt: The attempt that is at work.
        line: JSON values.

    Raises:
        OSError: If it cannot be written.
    """
    path = directory / attempt_directory(attempt) / _NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        end = file.seek(0, io.SEEK_END)
        torn = end > 0 and _last_byte(file, end) != b"\n"
        # What a sidecar that was killed has half written ends there.
        text = b"\n" * torn + json.dumps(line).encode() + b"\n"
        if file.write(text) != len(text):
            file.truncate(end)
            raise OSError("only a part of what is used could be written")


def read_resources(storage: Storage, attempt: int) -> Iterator[dict[str, Any]]:
    """The lines of an attempt; what is no line is passed over.

    Args:
        storage: The run's objects.
        attempt: The attempt.

    Raises:
        StorageUnavailableError: If they cannot be read.
    """
    try:
        content = storage.read(f"{attempt_directory(attempt)}/{_NAME}")
    except ObjectNotFoundError:
        return
    for line in content.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            if isinstance(found, dict) and type(found.get("time")) is float:
                yield found


def _last_byte(file: Any, end: int) -> bytes:
    file.seek(end - 1)
    found: bytes = file.read(1)
    file.seek(0, io.SEEK_END)
    return found


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
