"""The console of a run, read from wherever the run lies.

Invariant: reading changes nothing. Each line comes once, in the order in
which it was stored, attempt by attempt; what was dropped is said in its
place. On the machine of the run itself, what is not stored yet is read from
what was written.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from colab_keras_bg.errors import ObjectNotFoundError
from colab_keras_bg.journal.attempts import attempt_directory
from colab_keras_bg.journal.console_log import LogFile, log_files, parsed
from colab_keras_bg.journal.console_pump import end_of, read_notes
from colab_keras_bg.journal.raw_console import RawConsole, raw_consoles
from colab_keras_bg.journal.terminal import TerminalLines
from colab_keras_bg.storage.interface import Storage

__all__ = ["ConsoleLine", "ConsoleReader"]

_BLOCK_BYTES = 1 << 20


class ConsoleLine(NamedTuple):
    """A line that was printed.

    Attributes:
        attempt: By which attempt.
        when: In seconds since 1970; None if that is not known.
        text: What was printed, without the line's end.
    """

    attempt: int
    when: float | None
    text: bytes


class ConsoleReader:
    """Reads on from where it has come to, as often as it is asked."""

    def __init__(
        self,
        storage: Storage,
        *,
        wanted: Callable[[int], bool] = lambda attempt: True,
    ) -> None:
        """Begins at the beginning.

        Args:
            storage: The run's objects.
            wanted: Whether an attempt is to be read.
        """
        self._storage, self._wanted = storage, wanted
        # By attempt: the file that is read, how much of it was, a cut line.
        self._at: dict[int, tuple[LogFile, int, bytes]] = {}

    def lines(self) -> Iterator[ConsoleLine]:
        """What has come since.

        Raises:
            StorageUnavailableError: If it cannot be read.
        """
        for attempt, files in sorted(self._found().items()):
            yield from self._new(attempt, files)

    def all_lines(self, directory: Path) -> Iterator[ConsoleLine]:
        """What has come, with what this machine has not stored yet.

        Args:
            directory: The run's local directory.

        Raises:
            StorageUnavailableError: If it cannot be read.
        """
        raws: dict[int, list[RawConsole]] = defaultdict(list)
        for raw in raw_consoles(directory):
            if self._wanted(raw.attempt):
                raws[raw.attempt].append(raw)
        found = self._found()
        for attempt in sorted({*raws, *found}):
            if attempt not in raws:
                yield from self._new(attempt, found[attempt])
                continue
            end, unfinished = _not_stored(raws[attempt])
            files = self._found().get(attempt, [])  # No less than that.
            if files:
                yield from self._new(attempt, _up_to(end, files))
            yield from unfinished

    def unfinished(self, directory: Path) -> Iterator[ConsoleLine]:
        """What was written on this machine and is not stored yet.

        Args:
            directory: The run's local directory.
        """
        for raw in raw_consoles(directory):
            if not self._wanted(raw.attempt):
                continue
            yield from _not_stored_of(raw, read_notes(raw))

    def open_line(self, directory: Path) -> bytes:
        """What stands on the line that this machine is printing now.

        Args:
            directory: The run's local directory.

        Returns:
            Its present state; empty if it has just begun.
        """
        for raw in reversed(raw_consoles(directory)):
            if self._wanted(raw.attempt):
                screen = _screen_after(raw, read_notes(raw))
                return screen.open.rpartition(b"\n")[2]
        return b""

    def _found(self) -> dict[int, list[tuple[LogFile, int]]]:
        """The files of each attempt, in order, and how large they are."""
        sizes: dict[int, dict[str, int]] = defaultdict(dict)
        for info in self._storage.list("attempts/"):
            parts = info.name.split("/")
            if (
                len(parts) == 3
                and parts[1].isdecimal()
                and self._wanted(int(parts[1]))
            ):
                sizes[int(parts[1])][parts[2]] = info.size_bytes
        return {
            attempt: [(file, found[file.name]) for file in files]
            for attempt, found in sizes.items()
            if (files := log_files(found))
        }

    def _new(
        self, attempt: int, files: list[tuple[LogFile, int]]
    ) -> Iterator[ConsoleLine]:
        file, read, cut = self._at.get(attempt, (files[0][0], 0, b""))
        for one, size_bytes in files:
            if one < file:
                continue
            if one != file:
                yield from self._missing(attempt, one, file.offset + read)
                file, read, cut = one, 0, b""
            name = f"{attempt_directory(attempt)}/{one.name}"
            while read < size_bytes and (
                block := self._block(name, read, size_bytes - read)
            ):
                read += len(block)
                *lines, cut = (cut + block).split(b"\n")
                self._at[attempt] = file, read, cut
                for line in lines:
                    yield ConsoleLine(attempt, *parsed(line))
            self._at[attempt] = file, read, cut

    def _block(self, name: str, start: int, most_bytes: int) -> bytes:
        with contextlib.suppress(ObjectNotFoundError):
            return self._storage.read_range(
                name, start, min(most_bytes, _BLOCK_BYTES)
            )
        return b""  # Dropped meanwhile.

    def _missing(
        self, attempt: int, file: LogFile, expected: int
    ) -> Iterator[ConsoleLine]:
        if (lost := file.offset - expected) > 0:
            text = f"[colab-keras-bg] {lost / 1e6:,.1f} MB were dropped here"
            yield ConsoleLine(attempt, None, text.encode())


def _not_stored(
    raws: Sequence[RawConsole],
) -> tuple[int | None, list[ConsoleLine]]:
    """Up to where an attempt is stored, and what it has written beyond that.

    Returns:
        The first in bytes of the whole, or None if nobody has begun to store
        it.
    """
    while True:
        notes = [read_notes(raw) for raw in raws]
        lines = [
            line
            for raw, noted in zip(raws, notes, strict=True)
            for line in _not_stored_of(raw, noted)
        ]
        if notes == [read_notes(raw) for raw in raws]:
            ends = [end_of(noted["log"]) for noted in notes if "log" in noted]
            return max(ends, default=None), lines
        # It was stored meanwhile: once more.


def _not_stored_of(
    raw: RawConsole, notes: Mapping[str, Any]
) -> Iterator[ConsoleLine]:
    screen = TerminalLines(notes.get("lines"))
    when: float | None = None
    with contextlib.suppress(OSError), raw.path.open("rb") as file:
        when = os.fstat(file.fileno()).st_mtime
        file.seek(int(notes.get("at", 0)))
        while block := file.read(_BLOCK_BYTES):
            for text in screen.feed(block).split(b"\n")[:-1]:
                yield ConsoleLine(raw.attempt, when, text)
    for text in screen.finish().split(b"\n")[:-1]:
        yield ConsoleLine(raw.attempt, when, text)


def _screen_after(raw: RawConsole, notes: Mapping[str, Any]) -> TerminalLines:
    """The screen as it is once all that was written is on it."""
    screen = TerminalLines(notes.get("lines"))
    with contextlib.suppress(OSError), raw.path.open("rb") as file:
        file.seek(int(notes.get("at", 0)))
        while block := file.read(_BLOCK_BYTES):
            screen.feed(block)
    return screen


def _up_to(
    end: int | None, files: list[tuple[LogFile, int]]
) -> list[tuple[LogFile, int]]:
    """The files without what was stored after something was looked at."""
    if end is None:
        return files
    return [
        (file, min(size_bytes, end - file.offset))
        for file, size_bytes in files
        if file.offset < end
    ]
