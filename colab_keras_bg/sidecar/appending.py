"""A file that grows, kept up with at the far end.

Invariant: what lies there is what the file began with, whole lines of it, and
each byte is sent once: a file that was cut back, as the reports are when a run
goes on from an earlier step, is put anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from colab_keras_bg.errors import ConflictError, ObjectNotFoundError
from colab_keras_bg.storage.interface import Storage

__all__ = ["AppendedFile"]

_MOST_BYTES = 4 << 20  # At once.
_BLOCK_BYTES = 1 << 20


class AppendedFile:
    """Ships one file that is appended to.

    Attributes:
        replaced: Whether it was put anew since somebody has set this back.
    """

    def __init__(self, path: Path, remote: Storage, name: str) -> None:
        """Takes the file, which need not be there yet.

        Args:
            path: The file.
            remote: Where it is shipped to.
            name: Its name there.
        """
        self._path, self._remote, self._name = path, remote, name
        # What is there, as far as we know: how many bytes, and their crc32c.
        self._there: tuple[int, int] | None = None
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
            try:
                return self._ship(file)
            except ConflictError:  # Not what we remember.
                return self._ship(file)

    def _ship(self, file: BinaryIO) -> bool:
        size_bytes = _whole_lines(file)
        at, crc32c = self._there or self._look()
        if at > size_bytes or _crc32c_of(file, at) != crc32c:
            self._replace(file, size_bytes)
            return True
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
        try:
            found = self._remote.info(self._name)
        except ObjectNotFoundError:
            return 0, 0
        if found.crc32c is not None:
            return found.size_bytes, int(found.crc32c, 16)
        content = self._remote.read(self._name)
        return len(content), google_crc32c.value(content)


def _whole_lines(file: BinaryIO) -> int:
    """How many bytes of a file are whole lines."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _crc32c_of(file: BinaryIO, size_bytes: int) -> int:
    """Of the beginning of a file, read block by block."""
    file.seek(0)
    crc32c = 0
    for start in range(0, size_bytes, _BLOCK_BYTES):
        block = file.read(min(_BLOCK_BYTES, size_bytes - start))
        crc32c = google_crc32c.extend(crc32c, block)
    return crc32c
