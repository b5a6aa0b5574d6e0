"""One live writer for a local directory.

Invariant: the lock is the kernel's (`flock`), so it is gone the moment its
last holder is, however that one ended; what is written in the file is only
for people to read. A forked child lets go of it at once: a data worker that
outlives its trainer must not hold the run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from colab_keras_bg.errors import RunHeldError

__all__ = ["DirectoryLock"]

_NAME = ".lock"
_open_locks: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


class DirectoryLock:
    """An exclusive lock on a directory, held by this process."""

    def __init__(self, handle: int) -> None:
        """Takes an open, locked descriptor; see `acquire` and `inherit`."""
        self._handle: int | None = handle
        _open_locks.add(self)

    @classmethod
    def acquire(
        cls,
        directory: Path,
        *,
        holder: str,
        patience_secs: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> DirectoryLock:
        """Takes the lock.

        Args:
            directory: An existing directory.
            holder: Who we are, for whoever comes next.
            patience_secs: How long to wait for a holder that is just dying.
            clock: Seconds that only grow.
            sleep: Waits.

        Raises:
            RunHeldError: If another live process holds it.
            OSError: If the lock file cannot be opened.
        """
        handle = os.open(
            directory / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        give_up = clock() + patience_secs
        try:
            while not _try_lock(handle):
                if clock() >= give_up:
                    found = os.pread(handle, 4096, 0).decode(errors="replace")
                    raise RunHeldError(
                        str(directory), holder=_readable(found)
                    )
                sleep(0.05)
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"holder": holder}).encode(), 0)
        except BaseException:
            os.close(handle)
            raise
        return cls(handle)

    @classmethod
    def inherit(cls, handle: int) -> DirectoryLock:
        """Shares the lock of the parent, which passed us its descriptor."""
        os.set_inheritable(handle, False)
        return cls(handle)

    @property
    def handle(self) -> int:
        """The descriptor, to pass on to a child that shares the lock.

        Raises:
            ValueError: If the lock was released.
        """
        if self._handle is None:
            raise ValueError("The lock was released.")
        return self._handle

    def release(self) -> None:
        """Lets go; the directory is free when all that share it have."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @staticmethod
    def holder_of(directory: Path) -> str | None:
        """Who holds the lock of a directory now; None if nobody does."""
        try:
            handle = os.open(directory / _NAME, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _try_lock(handle, fcntl.LOCK_SH):
                return None
            found = os.pread(handle, 4096, 0).decode(errors="replace")
            return _readable(found)
        finally:
            os.close(handle)


def _try_lock(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            return True  # A file system without locks: nothing can be told.
        raise
    return True


def _readable(content: str) -> str:
    try:
        return str(json.loads(content)["holder"])[:200]
    except (ValueError, KeyError, TypeError):
        return "unknown"


def _release_in_child() -> None:
    for lock in list(_open_locks):
        with contextlib.suppress(OSError):
            lock.release()


os.register_at_fork(after_in_child=_release_in_child)
