"""`attempts/NNNN/console.log`: what an attempt has printed, with its times.

Invariant: each line begins with the time at which it was there, in UTC. Files
only grow. Of more than an attempt may keep, the middle goes: the beginning
stays in `console.log`, the newest in `console-OFFSET.log`, whose names say
where in the whole each begins, so that what is missing is known in place.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from colab_keras_bg.journal.attempts import attempt_directory

__all__ = [
    "LIMIT_BYTES",
    "ConsoleLog",
    "LogFile",
    "log_files",
    "parsed",
    "stamp",
]

LIMIT_BYTES = 64 << 20

_HEAD = "console.log"
_NAME = re.compile(r"(?:console|console-(\d{15}))\.log")
_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)", re.S)
# Half for the beginning, half for the end, in so many files.
_PARTS = 8


class LogFile(NamedTuple):
    """One file of a console.

    Attributes:
        offset: Where in the whole it begins.
        name: Its name, below the attempt's folder.
    """

    offset: int
    name: str


class ConsoleLog:
    """Writes the console of one attempt."""

    def __init__(
        self,
        directory: Path,
        attempt: int,
        *,
        limit_bytes: int = LIMIT_BYTES,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Begins, or goes on where another process has stopped.

        What that one has written beyond its `state` is dropped; without a
        state, nothing is.

        Args:
            directory: The run's local directory.
            attempt: The attempt's number.
            limit_bytes: How much of it is kept, about.
            state: What `state` was.

        Raises:
            OSError: If it cannot be written.
        """
        self._folder = directory / attempt_directory(attempt)
        self._limit_bytes = limit_bytes
        self._folder.mkdir(parents=True, exist_ok=True)
        found = state or self._end_of_what_is_there()
        offset = int(found.get("offset", 0))
        name = _HEAD if offset == 0 else f"console-{offset:015d}.log"
        self._file = LogFile(offset, name)
        self._size_bytes = int(found.get("size_bytes", 0))
        self._drop_beyond()

    @property
    def state(self) -> dict[str, Any]:
        """What another process needs to go on from here, as JSON values."""
        return {"offset": self._file.offset, "size_bytes": self._size_bytes}

    def append(self, lines: bytes, *, when: float) -> None:
        r"""Adds lines.

        Args:
            lines: Whole lines, each with its `\n`.
            when: The time that they get, in seconds since 1970.

        Raises:
            OSError: If they cannot be written.
        """
        if not lines:
            return
        prefix = stamp(when)
        text = prefix + lines[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
        self._write(text)
        if self._size_bytes >= self._most_bytes:
            self._begin_another(when)

    @property
    def _most_bytes(self) -> int:
        half = self._limit_bytes // 2
        return half if self._file.offset == 0 else half // _PARTS

    def _write(self, text: bytes) -> None:
        with (self._folder / self._file.name).open("ab", buffering=0) as file:
            if file.write(text) != len(text):
                # It is written again, as a whole.
                file.truncate(self._size_bytes)
                raise OSError("only a part of the console could be written")
        self._size_bytes += len(text)

    def _begin_another(self, when: float) -> None:
        if self._file.offset == 0:
            half = self._limit_bytes // 2 / 1e6
            self._write(
                stamp(when)
                + b"[colab-keras-bg] the first %.0f MB end here; the last "
                b"%.0f MB of what follows are in console-*.log\n" % (half, half)
            )
        offset = self._file.offset + self._size_bytes
        self._file = LogFile(offset, f"console-{offset:015d}.log")
        self._size_bytes = 0
        for old in self._files()[1:-_PARTS]:
            (self._folder / old.name).unlink(missing_ok=True)

    def _end_of_what_is_there(self) -> dict[str, Any]:
        there = self._files()
        if not there:
            return {}
        content = (self._folder / there[-1].name).read_bytes()
        return {
            "offset": there[-1].offset,
            "size_bytes": content.rfind(b"\n") + 1,
        }

    def _files(self) -> Sequence[LogFile]:
        return log_files(path.name for path in self._folder.iterdir())

    def _drop_beyond(self) -> None:
        for other in self._files():
            if other.offset > self._file.offset:
                (self._folder / other.name).unlink()
        with (
            contextlib.suppress(FileNotFoundError),
            (self._folder / self._file.name).open("r+b") as file,
        ):
            # It may be shorter than it was noted: after a power cut.
            self._size_bytes = min(self._size_bytes, file.seek(0, io.SEEK_END))
            file.truncate(self._size_bytes)


def log_files(names: Iterable[str]) -> Sequence[LogFile]:
    """The files of a console, in order.

    Args:
        names: What is in an attempt's folder.
    """
    found = []
    for name in names:
        if match := _NAME.fullmatch(name):
            found.append(LogFile(int(match[1] or 0), name))
    return sorted(found)


def stamp(when: float) -> bytes:
    """A time as lines begin with it, and the space behind it.

    Args:
        when: In seconds since 1970.
    """
    seconds, milliseconds = divmod(int(when * 1000), 1000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{milliseconds:03d}Z ".encode()


def parsed(line: bytes) -> tuple[float | None, bytes]:
    r"""The time of a line, and what was printed.

    Args:
        line: A line of a console, without its `\n`.

    Returns:
        The time in seconds since 1970, or None if the line has none.
    """
    if match := _LINE.fullmatch(line):
        with contextlib.suppress(ValueError):
            when = datetime.fromisoformat(match[1].decode())
            return when.astimezone(UTC).timestamp(), match[2]
    return None, line
