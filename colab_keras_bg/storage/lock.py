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
from collections.abc import Callable, Iterator
from pathlib import Path

from colab_keras_bg.errors import (
    RunHeldError,
    StorageError,
    StorageUnavailableError,
)

__all__ = ["DirectoryLock"]

_NAME = ".lock"
# A link in the lock's place must not get us to write elsewhere, nor a pipe to
# wait.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
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
            StorageError: If the lock file cannot be opened or written.
        """
        with _translated(directory, StorageError):
            handle = os.open(
                directory / _NAME, os.O_RDWR | os.O_CREAT | _SAFELY, 0o666
            )
            give_up = clock() + patience_secs
            try:
                while not _try_lock(handle):
                    if clock() >= give_up:
                        raise RunHeldError(
                            str(directory), holder=_holder(handle)
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
        """Who holds the lock of a directory now; None if nobody does.

        Raises:
            StorageUnavailableError: If that cannot be told.
        """
        with _translated(directory, StorageUnavailableError):
            try:
                handle = os.open(directory / _NAME, os.O_RDONLY | _SAFELY)
            except FileNotFoundError:
                return None
            try:
                if _try_lock(handle, fcntl.LOCK_SH):
                    return None
                return _holder(handle)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _translated(
    directory: Path, otherwise: type[StorageError]
) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise otherwise(
            error.errno, f"{error.strerror}: the lock {directory / _NAME}"
        ) from error


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


def _holder(handle: int) -> str:
    """What the lock's file says, if it can be read."""
    try:
        content = json.loads(os.pread(handle, 4096, 0))
        return str(content["holder"])[:200]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "unknown"


def _release_in_child() -> None:
    for lock in list(_open_locks):
        with contextlib.suppress(OSError):
            lock.release()


os.register_at_fork(after_in_child=_release_in_child)
