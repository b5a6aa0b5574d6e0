"""The few system calls a local storage is made of, as one value.

Invariant: everything that `LocalStorage` changes on disk goes through a
`FileSystem`, so that a test can count the calls, cut the power at any of
them and forget what was never synced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import Protocol

__all__ = ["FileSystem", "PosixFileSystem"]

# What file systems answer that sync files and have no call for directories.
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP})
_naming = threading.Lock()


class FileSystem(Protocol):
    """What a local storage needs of a file system."""

    def mkdir(self, path: Path) -> None:
        """Makes one directory; its parent exists. It may exist already."""

    def create(self, path: Path) -> int:
        """Creates and opens a new, empty file; returns a handle.

        FileExistsError if the name is taken.
        """

    def extend(self, path: Path) -> int:
        """Opens an existing file to append to it; returns a handle."""

    def write(self, handle: int, data: bytes | memoryview) -> None:
        """Appends all of `data` to an open file."""

    def fsync(self, handle: int) -> None:
        """Returns when what was written will survive a power cut."""

    def close(self, handle: int) -> None:
        """Gives the handle back."""

    def link(self, source: Path, target: Path) -> None:
        """Gives a file a second name; FileExistsError if that is taken.

        Where a file can have only one name it has the new one afterwards.
        """

    def replace(self, source: Path, target: Path) -> None:
        """Renames atomically, in place of what there is."""

    def unlink(self, path: Path) -> None:
        """Removes a name."""

    def rmdir(self, path: Path) -> None:
        """Removes an empty directory."""

    def fsync_directory(self, path: Path) -> None:
        """Returns when the names in a directory will survive a power cut."""


class PosixFileSystem:
    """The real one."""

    def mkdir(self, path: Path) -> None:
        """See `FileSystem.mkdir`."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)

    def create(self, path: Path) -> int:
        """See `FileSystem.create`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(path, flags, 0o666)

    def extend(self, path: Path) -> int:
        """See `FileSystem.extend`."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags)

    def write(self, handle: int, data: bytes | memoryview) -> None:
        """See `FileSystem.write`."""
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]

    def fsync(self, handle: int) -> None:
        """See `FileSystem.fsync`."""
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """See `FileSystem.close`."""
        os.close(handle)

    def link(self, source: Path, target: Path) -> None:
        """See `FileSystem.link`; where links do not exist, renames."""
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            # FUSE mounts have no hard links (Errno 38 or 95 or 1). The name
            # is looked at first, one thread at a time; two processes at once
            # are kept apart above.
            with _naming:
                try:
                    os.lstat(target)
                except FileNotFoundError:  # Other errors leave it open.
                    os.rename(source, target)
                else:
                    raise FileExistsError(str(target)) from None

    def replace(self, source: Path, target: Path) -> None:
        """See `FileSystem.replace`."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """See `FileSystem.unlink`."""
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        """See `FileSystem.rmdir`."""
        os.rmdir(path)

    def fsync_directory(self, path: Path) -> None:
        """See `FileSystem.fsync_directory`; a no-op where there is none."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        finally:
            os.close(handle)
