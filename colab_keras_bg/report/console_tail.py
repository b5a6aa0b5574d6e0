"""The last lines of a console, without reading the rest.

Invariant: what is read is bounded, whatever was printed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from colab_keras_bg.journal.attempts import attempt_directory
from colab_keras_bg.journal.console_log import log_files, parsed
from colab_keras_bg.journal.console_reading import ConsoleLine, ConsoleReader
from colab_keras_bg.journal.raw_console import raw_consoles
from colab_keras_bg.storage.tails import tail_lines
from colab_keras_bg.stored_run import StoredRun

__all__ = ["console_tail"]

_TAIL_BYTES = 256 << 10
_MOST_RAW_BYTES = 64 << 20


def console_tail(stored: StoredRun, *, most: int) -> Sequence[ConsoleLine]:
    """The newest lines of a run, of the newest attempts that printed any.

    Args:
        stored: The run.
        most: How many lines.

    Raises:
        StorageUnavailableError: If they cannot be read.
    """
    names: dict[int, list[str]] = defaultdict(list)
    for info in stored.storage.list("attempts/"):
        parts = info.name.split("/")
        if len(parts) == 3 and parts[1].isdecimal():
            names[int(parts[1])].append(parts[2])
    found: list[ConsoleLine] = []
    if not stored.is_remote:
        found = _unfinished(stored)[-most:]
    for attempt in sorted(names, reverse=True):
        for file in reversed(log_files(names[attempt])):
            if len(found) >= most:
                return found[-most:]
            lines = tail_lines(
                stored.storage,
                f"{attempt_directory(attempt)}/{file.name}",
                most_bytes=_TAIL_BYTES,
            )
            found = [
                ConsoleLine(attempt, *parsed(line)) for line in lines
            ] + found
    return found[-most:]


def _unfinished(stored: StoredRun) -> list[ConsoleLine]:
    """What is not stored yet, if somebody sees to that it soon will be."""
    directory = Path(stored.address)
    sizes = (raw.size_bytes() for raw in raw_consoles(directory))
    if sum(sizes) > _MOST_RAW_BYTES:
        return []
    return list(ConsoleReader(stored.storage).unfinished(directory))
