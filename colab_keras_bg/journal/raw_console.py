"""What an attempt writes to its descriptors 1 and 2, as it writes it.

Invariant: writers only ever append to an ordinary file, so no reader can
block or break them, and what they have written is there whatever happens to
them. What has been read is given back to the disk, as holes: offsets never
move.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "RawConsole", "raw_consoles"]

# A leading dot: no object of the run has such a name.
FOLDER = ".console"

_NAME = re.compile(r"(\d{4,9})(-err)?\.raw")
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_PAGE_BYTES = 4096
# Whoever shows it may be a little behind whoever stores it.
_LEFT_BYTES = 1 << 20
# Printing goes on for a while when the disk is full.
_RESERVED_BYTES = 1 << 20


@dataclass(frozen=True)
class RawConsole:
    """The raw output of one attempt.

    Attributes:
        path: Its file.
        attempt: The attempt's number.
    """

    path: Path
    attempt: int

    @classmethod
    def of(
        cls, directory: Path, attempt: int, *, errors_apart: bool = False
    ) -> RawConsole:
        """The file of an attempt; it need not be there.

        Args:
            directory: The run's local directory.
            attempt: The attempt's number.
            errors_apart: Whether it is that of descriptor 2 alone.
        """
        apart = "-err" if errors_apart else ""
        path = directory / FOLDER / f"{attempt:04d}{apart}.raw"
        return cls(path, attempt)

    @property
    def notes(self) -> Path:
        """Where whoever stores it writes down how far that has come."""
        return self.path.with_suffix(".json")

    def open(self) -> int:
        """A descriptor to append to; the file is made if it is missing.

        Raises:
            OSError: If that cannot be.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(
            self.path,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
            0o666,
        )
        self.reserve()
        return handle

    def size_bytes(self) -> int:
        """How much has been written; 0 if there is no file."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def reserve(self) -> None:
        """Keeps some disk for what comes next, if the file system can."""
        with contextlib.suppress(OSError), _opened(self.path) as handle:
            end = os.fstat(handle).st_size
            _fallocate(handle, _KEEP_SIZE, end, _RESERVED_BYTES)

    def give_back(self, end: int) -> None:
        """Frees the disk that what was read takes, if the system can.

        Args:
            end: Up to where it was read.
        """
        end = (end - _LEFT_BYTES) // _PAGE_BYTES * _PAGE_BYTES
        if end > 0:
            with contextlib.suppress(OSError), _opened(self.path) as handle:
                _fallocate(handle, _PUNCH_HOLE | _KEEP_SIZE, 0, end)

    def remove(self) -> None:
        """Removes the file, and the notes on it."""
        for path in (self.path, self.notes):
            path.unlink(missing_ok=True)


def raw_consoles(directory: Path) -> list[RawConsole]:
    """The raw output that is there, in the order of attempts.

    Args:
        directory: The run's local directory.
    """
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(directory / FOLDER):
            if match := _NAME.fullmatch(name):
                path = directory / FOLDER / name
                found.append(RawConsole(path, int(match[1])))
    # Of one attempt, what went to descriptor 1 first.
    return sorted(found, key=lambda raw: (raw.attempt, len(raw.path.name)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _fallocate(handle: int, mode: int, start: int, size_bytes: int) -> None:
    """The system call, which Python has only without its mode.

    Raises:
        OSError: If it is not there, or the file system cannot.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    offset = ctypes.c_int64
    if call(handle, mode, offset(start), offset(size_bytes)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
