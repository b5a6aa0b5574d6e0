"""File systems that fail at a chosen call: the power goes, or the space.

Each numbers the calls that change something, from 0, so that a test can make
every one of them the last:

    files = PowerCutFileSystem(directory, dies_at=7)
    with contextlib.suppress(PowerCut):
        LocalStorage(directory, filesystem=files).replace("HEAD", b"12")
    for aftermath in aftermaths(seeds=5):
        files.cut(aftermath)
        assert LocalStorage(directory).read("HEAD") in (b"11", b"12")

Invariant: after the chosen call of a `PowerCutFileSystem` nothing changes any
more, whatever is tried, until the test says what is left.
"""

from __future__ import annotations

import contextlib
import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from colab_keras_bg.storage.filesystem import FileSystem, PosixFileSystem
from colab_keras_bg.testing.unsynced_disk import (
    EXTREMES,
    Aftermath,
    UnsyncedDisk,
    aftermaths,
)

__all__ = [
    "EXTREMES",
    "Aftermath",
    "Call",
    "FaultyFileSystem",
    "NumberedFileSystem",
    "PowerCut",
    "PowerCutFileSystem",
    "aftermaths",
]

_T = TypeVar("_T")

# What still works on a disk that is full: all that needs no new block.
_FREEING = frozenset({"close", "unlink", "rmdir"})


class PowerCut(BaseException):
    """Not an Exception: no `except Exception` can survive a power cut."""


class Call(NamedTuple):
    """A call that a file system was asked for.

    Attributes:
        operation: The name of the method.
        name: The last part of the path that it was about.
    """

    operation: str
    name: str


class NumberedFileSystem(ABC):
    """A `FileSystem` that passes its calls on to another, and numbers them.

    Attributes:
        calls: The calls so far; the number of each is its index.
    """

    def __init__(self, files: FileSystem) -> None:
        """Takes the file system that does the work."""
        self.calls: list[Call] = []
        self._files = files
        self._names: dict[int, str] = {}

    @abstractmethod
    def _at(self, number: int, call: Call, work: Callable[[], _T]) -> _T:
        """Does the work of a call, or does not."""

    def mkdir(self, path: Path) -> None:
        """See `FileSystem.mkdir`."""
        self._call("mkdir", path.name, lambda: self._files.mkdir(path))

    def create(self, path: Path) -> int:
        """See `FileSystem.create`."""
        handle = self._call(
            "create", path.name, lambda: self._files.create(path)
        )
        self._names[handle] = path.name
        return handle

    def extend(self, path: Path) -> int:
        """See `FileSystem.extend`."""
        handle = self._call(
            "extend", path.name, lambda: self._files.extend(path)
        )
        self._names[handle] = path.name
        return handle

    def write(self, handle: int, data: bytes | memoryview) -> None:
        """See `FileSystem.write`."""
        self._call(
            "write",
            self._names[handle],
            lambda: self._files.write(handle, data),
        )

    def fsync(self, handle: int) -> None:
        """See `FileSystem.fsync`."""
        self._call(
            "fsync", self._names[handle], lambda: self._files.fsync(handle)
        )

    def close(self, handle: int) -> None:
        """See `FileSystem.close`."""
        self._call(
            "close", self._names[handle], lambda: self._files.close(handle)
        )

    def link(self, source: Path, target: Path) -> None:
        """See `FileSystem.link`."""
        self._call(
            "link", target.name, lambda: self._files.link(source, target)
        )

    def replace(self, source: Path, target: Path) -> None:
        """See `FileSystem.replace`."""
        self._call(
            "replace", target.name, lambda: self._files.replace(source, target)
        )

    def unlink(self, path: Path) -> None:
        """See `FileSystem.unlink`."""
        self._call("unlink", path.name, lambda: self._files.unlink(path))

    def rmdir(self, path: Path) -> None:
        """See `FileSystem.rmdir`."""
        self._call("rmdir", path.name, lambda: self._files.rmdir(path))

    def fsync_directory(self, path: Path) -> None:
        """See `FileSystem.fsync_directory`."""
        self._call(
            "fsync_directory",
            path.name,
            lambda: self._files.fsync_directory(path),
        )

    def _call(self, operation: str, name: str, work: Callable[[], _T]) -> _T:
        call = Call(operation, name)
        self.calls.append(call)
        return self._at(len(self.calls) - 1, call, work)


class PowerCutFileSystem(NumberedFileSystem):
    """A file system whose power goes at a call.

    That call may still have had its effect, but was not confirmed: it raises
    `PowerCut`, and so does every later one, without doing anything. Syncs do
    not have theirs.
    """

    def __init__(self, directory: Path, *, dies_at: int | None = None) -> None:
        """Takes an existing directory, all of it synced.

        Args:
            directory: What the storage under test lies in. Until the cut,
                nothing but this object may change it.
            dies_at: The number of the fatal call; None if there is none.
        """
        self._disk = UnsyncedDisk(directory)
        self._dies_at = dies_at
        super().__init__(self._disk)

    def cut(self, aftermath: Aftermath) -> None:
        """Cuts the power, if it is still there, and says what that leaves.

        Args:
            aftermath: Which of the possible states the directory is brought
                into. May be called again with another.
        """
        self._dies_at = -1
        self._disk.lose(aftermath)

    def restart(self) -> None:
        """Lets another process go on: the first was killed, the power stays.

        What was not synced is there to be seen, and still not synced.
        """
        self._disk.close_all()
        self._names.clear()
        self._dies_at = None

    def _at(self, number: int, call: Call, work: Callable[[], _T]) -> _T:
        if self._dies_at is None or number < self._dies_at:
            return work()
        if number == self._dies_at and not call.operation.startswith("fsync"):
            with contextlib.suppress(OSError):
                work()
        raise PowerCut(f"at call {number}: {call.operation} of {call.name}")


class FaultyFileSystem(NumberedFileSystem):
    """A file system of which one call fails, or all from there on."""

    def __init__(
        self,
        *,
        fails_at: int | None,
        error: int = errno.ENOSPC,
        lasting: bool = False,
        files: FileSystem | None = None,
    ) -> None:
        """Takes the call and the error.

        Args:
            fails_at: The number of the call that fails; None if none does.
            error: How: an `errno`, such as ENOSPC, EDQUOT or EIO.
            lasting: Whether later calls fail as well, but for those that free
                space: a disk that is full stays full.
            files: What does the work; the real one if None.
        """
        super().__init__(files or PosixFileSystem())
        self._fails_at = fails_at
        self._error = error
        self._lasting = lasting

    def write(self, handle: int, data: bytes | memoryview) -> None:
        """See `FileSystem.write`; what fails may have written a part."""
        number = len(self.calls)
        if self._fails(number, "write"):
            self._files.write(handle, data[: len(data) // 2])
        super().write(handle, data)

    def _at(self, number: int, call: Call, work: Callable[[], _T]) -> _T:
        if not self._fails(number, call.operation):
            return work()
        if call.operation == "close":
            work()  # As the kernel does: the descriptor is gone either way.
        raise OSError(self._error, os.strerror(self._error), call.name)

    def _fails(self, number: int, operation: str) -> bool:
        if self._fails_at is None or number < self._fails_at:
            return False
        return number == self._fails_at or (
            self._lasting and operation not in _FREEING
        )
