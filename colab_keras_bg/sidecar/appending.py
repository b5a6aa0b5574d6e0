"""A file that grows, kept up with at the far end.

Invariant: what lies there is what the file began with, whole parts of it, and
each byte is sent once: a file that was cut back, as the reports are when a run
goes on from an earlier step, is put anew. One that has not changed is not read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from colab_keras_bg.errors import ConflictError, ObjectNotFoundError
from colab_keras_bg.storage.interface import ObjectInfo, Storage

__all__ = ["AppendedFile", "Boundary", "end_of_bytes", "end_of_lines"]

_MOST_BYTES = 4 << 20  # At once.
_BLOCK_BYTES = 1 << 20
# A file that has just changed may change once more in the same moment.
_SURE_NANOSECS = 2_000_000_000

# Where the last part ends that a file has whole, given where one begins.
Boundary = Callable[[BinaryIO, int], int]


def end_of_lines(file: BinaryIO, start: int) -> int:
    """Where the last whole line ends.

    Args:
        file: The file.
        start: Where a line begins, or will.
    """
    end = file.seek(0, os.SEEK_END)
    while end > start:
        block_start = max(start, end - _BLOCK_BYTES)
        file.seek(block_start)
        newline = file.read(end - block_start).rfind(b"\n")
        if newline >= 0:
            return block_start + newline + 1
        end = block_start
    return start


def end_of_bytes(file: BinaryIO, start: int) -> int:
    """Where a file ends that is not made of parts.

    Args:
        file: The file.
        start: Not looked at.
    """
    return file.seek(0, os.SEEK_END)


class AppendedFile:
    """Ships one file that is appended to.

    Attributes:
        replaced: Whether it was put anew since somebody has set this back.
    """

    def __init__(
        self,
        path: Path,
        remote: Storage,
        name: str,
        *,
        boundary: Boundary = end_of_lines,
        found: ObjectInfo | None = None,
        is_new: bool = False,
    ) -> None:
        """Takes the file, which need not be there yet.

        Args:
            path: The file.
            remote: Where it is shipped to.
            name: Its name there.
            boundary: Where it may be cut.
            found: What was found there of that name, if that is known.
            is_new: Whether nothing was.
        """
        self._path, self._remote, self._name = path, remote, name
        self._boundary, self._found = boundary, found
        # What is there, as far as we know: how many bytes, and their crc32c.
        self._there: tuple[int, int] | None = (0, 0) if is_new else None
        self._seen: tuple[int, int, int] | None = None
        self.replaced = False

    @property
    def there(self) -> tuple[int, str]:
        """How many bytes are there, and their crc32c in hexadecimal digits."""
        size_bytes, crc32c = self._there or (0, 0)
        return size_bytes, f"{crc32c:08x}"

    def ship(self) -> bool:
        """Sends what has come.

        Returns:
            Whether there was any.

        Raises:
            StorageError: If it cannot be sent now.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return False
        with file:
            status = os.fstat(file.fileno())
            seen = status.st_ino, status.st_size, status.st_mtime_ns
            if seen == self._seen:
                return False
            self._seen, now = None, time.time_ns()
            try:
                sent = self._ship(file)
            except ConflictError:  # Not what we remember.
                sent = self._ship(file)
        if now - status.st_mtime_ns > _SURE_NANOSECS:
            self._seen = seen
        return sent

    def _ship(self, file: BinaryIO) -> bool:
        at, crc32c = self._there or self._look()
        end = file.seek(0, os.SEEK_END)
        if at > end or _crc32c_of(file, at) != crc32c:
            self._replace(file, self._boundary(file, 0))
            return True
        size_bytes = self._boundary(file, at)
        sent = at < size_bytes
        self._append(file, at, size_bytes, crc32c)
        return sent

    def _append(
        self, file: BinaryIO, at: int, size_bytes: int, crc32c: int
    ) -> None:
        file.seek(at)
        while at < size_bytes:
            block = file.read(min(_MOST_BYTES, size_bytes - at))
            self._there = None  # If the answer is lost, nothing is known.
            self._remote.append(self._name, block, at=at)
            at += len(block)
            crc32c = google_crc32c.extend(crc32c, block)
            self._there = at, crc32c

    def _replace(self, file: BinaryIO, size_bytes: int) -> None:
        file.seek(0)
        content = file.read(size_bytes)
        self._there = None
        self.replaced = True
        self._remote.replace(self._name, content)
        self._there = len(content), google_crc32c.value(content)

    def _look(self) -> tuple[int, int]:
        found, self._found = self._found, None
        try:
            found = found or self._remote.info(self._name)
        except ObjectNotFoundError:
            return 0, 0
        if found.crc32c is not None:
            return found.size_bytes, int(found.crc32c, 16)
        content = self._remote.read(self._name)
        return len(content), google_crc32c.value(content)


def _crc32c_of(file: BinaryIO, size_bytes: int) -> int:
    """Of the beginning of a file, read block by block."""
    file.seek(0)
    crc32c = 0
    for start in range(0, size_bytes, _BLOCK_BYTES):
        block = file.read(min(_BLOCK_BYTES, size_bytes - start))
        crc32c = google_crc32c.extend(crc32c, block)
    return crc32c
