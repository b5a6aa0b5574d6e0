"""`metrics.jsonl`: one line a report, in the order of steps.

Invariant: a report is added as a whole line behind whole lines, and after a
restore none is left from beyond the restored step; so each is there once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c

__all__ = [
    "METRICS",
    "MetricsJournal",
    "crc32c_of",
    "damaged_lines",
    "named_apart",
    "read_metrics",
]

METRICS = "metrics.jsonl"


class MetricsJournal:
    """Appends reports to the metrics file of a run."""

    def __init__(self, path: Path) -> None:
        """Takes the file's path; it is made at the first report.

        Args:
            path: A local file.
        """
        self._path = path
        self._ends_whole = False
        self._summed = (0, 0)

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
        self._drop_torn_line()
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

    def sync(self) -> tuple[int, str]:
        """Returns when all reports so far will survive a power cut.

        Returns:
            How many bytes they are, and their crc32c as 8 hexadecimal digits.
        """
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as f:
            os.fsync(f.fileno())
            size_bytes, crc32c = self._summed
            f.seek(size_bytes)  # Each report is read once.
            added = f.read()
            self._summed = (
                size_bytes + len(added),
                google_crc32c.extend(crc32c, added),
            )
        size_bytes, crc32c = self._summed
        return size_bytes, f"{crc32c:08x}"

    def cut_back(self, step: int) -> int:
        """Drops reports from beyond a step, and what else is behind it.

        Args:
            step: The step that training goes on from.

        Returns:
            How many lines were dropped.
        """
        self._summed = (0, 0)
        try:
            file = self._path.open("r+b")
        except FileNotFoundError:
            return 0
        with file:
            lines = file.readlines()
            kept = _kept(lines, step)
            if kept < len(lines):
                file.truncate(sum(map(len, lines[:kept])))
                os.fsync(file.fileno())
        return len(lines) - kept

    def _drop_torn_line(self) -> None:
        """Drops what a process that died has left of its last line."""
        if self._ends_whole:
            return
        with (
            contextlib.suppress(FileNotFoundError),
            self._path.open("r+b") as file,
        ):
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
        self._ends_whole = True


def named_apart(
    own: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """A report of our fields and of values, neither in place of the other.

    Args:
        own: Our fields.
        values: What was measured, by names that may be the same.
    """
    named = {
        f"metric_{name}" if name in own else name: value
        for name, value in values.items()
    }
    return {**own, **named}


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The reports of a metrics file; a torn last line is left out.

    Args:
        path: The file. If there is none, there are no reports.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            report = _parsed(line)
            if report is not None:
                yield report


def crc32c_of(content: bytes, size_bytes: int) -> str | None:
    """The crc32c of the first bytes of a metrics file.

    Args:
        content: What is in it.
        size_bytes: How many; None is returned if it has fewer.
    """
    if len(content) < size_bytes:
        return None
    return f"{google_crc32c.value(content[:size_bytes]):08x}"


def damaged_lines(content: bytes) -> Iterator[int]:
    """The numbers, from 1, of whole lines that are no reports.

    Args:
        content: What is in a metrics file.
    """
    for number, line in enumerate(io.BytesIO(content), start=1):
        if line.endswith(b"\n") and _parsed(line) is None:
            yield number


def _kept(lines: list[bytes], step: int) -> int:
    """How many lines to keep: up to the last report of this step.

    A damaged line in between stays where it is: the reports behind it will
    not be made again.
    """
    kept = 0
    for index, line in enumerate(lines):
        report = _parsed(line)
        if report is not None and report["step"] > step:
            break
        if report is not None:
            kept = index + 1
    return kept


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
