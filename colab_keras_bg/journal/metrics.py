"""`metrics.jsonl`: one line a report, in the order of steps.

Invariant: the file holds whole lines only, and after a restore none from
beyond the restored step; so each report is there once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["METRICS", "MetricsJournal", "read_metrics"]

METRICS = "metrics.jsonl"


class MetricsJournal:
    """Appends reports to the metrics file of a run."""

    def __init__(self, path: Path) -> None:
        """Takes the file's path; it is made at the first report.

        Args:
            path: A local file.
        """
        self._path = path

    def append(self, report: Mapping[str, Any]) -> None:
        """Adds a line.

        It is with the operating system when this returns, so it survives the
        death of the process.

        Args:
            report: JSON values, with `step`.

        Raises:
            OSError: If it cannot be written; nothing is then half written.
        """
        line = json.dumps(report).encode() + b"\n"
        with self._path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                written = file.write(line)
            except OSError:
                os.ftruncate(file.fileno(), start)
                raise
            if written != len(line):
                os.ftruncate(file.fileno(), start)
                raise OSError(f"only {written} of {len(line)} bytes written")

    def sync(self) -> None:
        """Returns when all reports so far will survive a power cut."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as f:
            os.fsync(f.fileno())

    def cut_back(self, step: int) -> int:
        """Drops reports from beyond a step, and a torn last line.

        Args:
            step: The step that training goes on from.

        Returns:
            How many lines were dropped.
        """
        if not self._path.exists():
            return 0
        lines = self._path.read_bytes().splitlines(keepends=True)
        kept = list(itertools.takewhile(lambda line: _upto(line, step), lines))
        if len(kept) < len(lines):
            with self._path.open("r+b") as file:
                file.truncate(sum(map(len, kept)))
                os.fsync(file.fileno())
        return len(lines) - len(kept)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The reports of a metrics file; a torn last line is left out.

    Args:
        path: The file. If there is none, there are no reports.
    """
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines(keepends=True):
            report = _parsed(line)
            if report is not None:
                yield report


def _upto(line: bytes, step: int) -> bool:
    report = _parsed(line)
    return report is not None and bool(report["step"] <= step)


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(report, dict) and type(report.get("step")) is int:
        return report
    return None
