"""What a run uses, shown in TensorBoard beside what it learns.

Invariant: each line of `resources.jsonl` is shown once, over the seconds since
the run was begun: what a training uses while it stands still matters most. A
run that is not shown there is not begun to be.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from colab_keras_bg.journal.attempts import attempt_directory
from colab_keras_bg.journal.events import EventJournal
from colab_keras_bg.journal.summaries import scalars

__all__ = ["ResourceEvents", "shown_resources"]

_FOLDER = "resources"
_GB = 1e9
_MOST_SECS = 1e10  # More is no time that has passed.
# As they are shown: the name in a line, and what it is divided by.
_PLAIN = {
    "step_secs": ("step_secs", 1.0),
    "input_wait": ("input_wait", 1.0),
    "save_wait": ("save_wait", 1.0),
    "memory_gb": ("memory_used_bytes", _GB),
    "process_gb": ("process_bytes", _GB),
    "disk_free_gb": ("disk_free_bytes", _GB),
    "sent_mb_per_sec": ("sent_bytes_per_sec", 1e6),
    "received_mb_per_sec": ("received_bytes_per_sec", 1e6),
}
_GPU = {
    "utilisation": ("utilisation", 1.0),
    "memory_gb": ("used_bytes", _GB),
    "power_watts": ("power_watts", 1.0),
    "celsius": ("celsius", 1.0),
}


class ResourceEvents:
    """Shows what sidecars have written down."""

    def __init__(self, run_dir: Path, events: EventJournal) -> None:
        """Takes a run's local directory; nothing is read yet.

        Args:
            run_dir: The directory.
            events: What shows it.
        """
        self._run_dir, self._events = run_dir, events
        self._at: dict[int, int] = {}
        self._began: float | None = None
        self._last = -1

    def show(self, attempt: int) -> None:
        """Shows what has come since.

        Args:
            attempt: The present attempt.
        """
        if not self._events.root.is_dir():
            return
        for line in self._lines(attempt):
            when, values = line.get("time"), shown_resources(line)
            if isinstance(when, int | float) and values:
                # Clocks of machines differ a little.
                self._last = max(self._last + 1, self._secs(when))
                self._events.add(
                    _FOLDER,
                    partial(scalars, values),
                    step=self._last,
                    run_step=0,  # What was used stays, though it be lost.
                )

    def _secs(self, when: float) -> int:
        """Seconds since the run was begun."""
        if self._began is None:
            self._began = _created(self._run_dir, otherwise=when)
        secs = when - self._began
        return int(secs) if 0 <= secs < _MOST_SECS else 0

    def _lines(self, attempt: int) -> list[dict[str, Any]]:
        folder = self._run_dir / attempt_directory(attempt)
        try:
            with (folder / "resources.jsonl").open("rb") as file:
                file.seek(self._at.get(attempt, 0))
                content = file.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._at[attempt] = self._at.get(attempt, 0) + len(whole)
        found = []
        for line in whole.splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                found.append(values)
        return found


def _created(run_dir: Path, *, otherwise: float) -> float:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return float(json.loads((run_dir / "run.json").read_bytes())["created"])
    return otherwise


def shown_resources(line: Mapping[str, Any]) -> dict[str, float]:
    """What of a line is shown, by name.

    Args:
        line: A line of `resources.jsonl`.
    """
    values = _of(line, _PLAIN, "")
    busy = _of(line, {"busy": ("cores_busy", 1.0)}, "")
    cores = _of(line, {"cores": ("cores", 1.0)}, "")
    if busy and cores.get("cores"):
        values["cpu"] = busy["busy"] / cores["cores"]
    gpus = line.get("gpus")
    for index, gpu in enumerate(gpus if isinstance(gpus, list) else []):
        if isinstance(gpu, dict):
            values |= _of(gpu, _GPU, f"gpu{index}_")
    return values


def _of(
    line: Mapping[str, Any], names: Mapping[str, tuple[str, float]], prefix: str
) -> dict[str, float]:
    found = {}
    for shown, (name, unit) in names.items():
        value = line.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{shown}"] = value / unit
    return found
