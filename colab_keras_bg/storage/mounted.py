"""A folder that is mounted from elsewhere, such as Google Drive in Colab.

Invariant: files are written whole under a temporary name, closed, and renamed;
never again opened to write. What is not mounted is never taken for an empty
folder, and a call that hangs hangs nobody for longer than the limit.

What such a mount has taken it uploads later, and does not tell when: it
confirms nothing, and nothing here is called durable. It does not compare and
swap, either: what keeps two machines apart elsewhere is best effort here.

Overwriting and deleting fills the trash of Google Drive, which counts against
the quota; a file that is emptied first takes no space there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from colab_keras_bg.errors import (
    ConflictError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage.filesystem import PosixFileSystem
from colab_keras_bg.storage.interface import (
    Capabilities,
    ObjectInfo,
    Storage,
    check_name,
    check_prefix,
)
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.mounts import is_there as is_mounted_now
from colab_keras_bg.storage.pace import Pace
from colab_keras_bg.storage.patience import HangsError, Patience
from colab_keras_bg.storage.traffic import Traffic

__all__ = ["MountedStorage"]

_T = TypeVar("_T")
_BLOCK_BYTES = 4 << 20
# What a mount answers that has died under us.
_DEAD = frozenset({errno.ENOTCONN, errno.ESTALE, errno.ENODEV, errno.ENXIO})
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})


class MountedStorage(Storage):
    """Keeps objects as files below a folder of a mount.

    Attributes:
        traffic: How much was written and read.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        patience_secs: float = 60.0,
        is_there: Callable[[], bool] | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Takes a folder; nothing is touched yet.

        Args:
            directory: Where the objects lie; made when first needed, but not
                what it is mounted on.
            patience_secs: For how long a call may hang.
            is_there: Whether it is mounted now; what the kernel says if None.
            pace: Lets what is written go; None for as fast as can be.
        """
        path = Path(os.path.abspath(directory))
        self.traffic = Traffic()
        self._patience = Patience(patience_secs)
        self._files = LocalStorage(
            path,
            filesystem=_MountedFileSystem(
                self._patience, pace or Pace(), self.traffic
            ),
        )
        self._is_there = is_there or (lambda: is_mounted_now(path))

    @property
    def capabilities(self) -> Capabilities:
        """It outlives us, as far as it has uploaded; it tells nothing."""
        return Capabilities(
            survives_machine=True,
            mapped_reads=False,
            confirms=False,
            swaps=False,
            checksums=False,
            appends=False,
        )

    def describe(self) -> str:
        """The folder's absolute path."""
        return self._files.describe()

    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        """See `Storage.create`."""
        return self._called(lambda: self._files.create(name, chunks))

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        return self._called(lambda: self._files.replace(name, content))

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`; two at the same moment are not kept apart."""
        found = self.read(name) if self.exists(name) else None
        if found not in (expected, content):
            raise ConflictError(name, where=self.describe())
        made = self.replace(name, content)
        if self.read(name) != content:
            raise ConflictError(name, where=self.describe())
        return made

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`; the whole is written anew."""
        found = self.read(name) if self.exists(name) else b""
        if found[at:] == content and len(found) == at + len(content):
            return self.info(name) if found else self.replace(name, b"")
        if len(found) != at:
            raise ConflictError(name, where=self.describe())
        return self.replace(name, found + content)

    def read(self, name: str) -> bytes:
        """See `Storage.read`; block by block, so that it can be waited for."""
        check_name(name)

        def read() -> bytes:
            size_bytes = self._files.info(name).size_bytes
            if size_bytes <= _BLOCK_BYTES:  # It may be replaced meanwhile.
                content = self._files.read(name)
                self.traffic.add("read", received_bytes=len(content))
                return content
            blocks = []
            for start in range(0, size_bytes, _BLOCK_BYTES):
                blocks.append(self._files.read_range(name, start, _BLOCK_BYTES))
                self._patience.beat()
            content = b"".join(blocks)
            if len(content) < size_bytes:
                raise StorageUnavailableError(
                    f"{self.describe()} has read {len(content)} of "
                    f"{size_bytes} bytes of {name!r}"
                )
            self.traffic.add("read", received_bytes=len(content))
            return content

        return self._called(read)

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""

        def read() -> bytes:
            content = self._files.read_range(name, start, max(0, size_bytes))
            self.traffic.add("read", received_bytes=len(content))
            return content

        return self._called(read)

    def map(self, name: str) -> memoryview:
        """See `Storage.map`; a copy."""
        return memoryview(self.read(name))

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        return self._called(lambda: self._files.info(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        check_prefix(prefix)
        yield from self._called(lambda: [*self._files.list(prefix)])

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self._called(lambda: self._files.delete(name))

    def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`: a mount tells of its cache, if at all."""
        return None

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """See `Storage.sweep`."""
        return self._called(lambda: self._files.sweep(prefix))

    def _called(self, call: Callable[[], _T]) -> _T:
        """Calls, if it is mounted, and if it was so until the end."""

        def mounted() -> _T:
            self._check_there()
            try:
                return call()
            finally:
                # Of a mount that has gone meanwhile, what was seen was not it.
                self._check_there()

        try:
            return self._patience.call(mounted)
        except HangsError:
            raise StorageUnavailableError(
                f"{self.describe()} has not answered for "
                f"{self._patience.secs:.0f} s: the mount hangs. If that does "
                "not pass, mount it again."
            ) from None
        except StorageError as error:
            raise self._told(error) from error

    def _check_there(self) -> None:
        if not self._is_there():
            raise StorageRefusedError(
                self.describe(),
                cause="nothing is mounted there",
                advice=(
                    "Mount it: google.colab.drive.mount('/content/drive') in "
                    "a Colab notebook."
                ),
            )

    def _told(self, error: StorageError) -> StorageError:
        """The same, with what to do about it."""
        if error.errno in _DEAD:
            return StorageRefusedError(
                self.describe(),
                cause=f"the mount is dead ({os.strerror(error.errno)})",
                advice=(
                    "Mount it again: in a Colab notebook "
                    "google.colab.drive.flush_and_unmount(), then "
                    "google.colab.drive.mount('/content/drive')."
                ),
            )
        if error.errno == errno.EIO:
            return StorageUnavailableError(
                errno.EIO,
                f"{self.describe()} answers with an input/output error. A "
                "mounted Drive does so when its quota for today is used up, "
                "or when it is about to die",
            )
        return error


class _MountedFileSystem(PosixFileSystem):
    """What can be asked of a mount."""

    def __init__(
        self, patience: Patience, pace: Pace, traffic: Traffic
    ) -> None:
        self._patience, self._pace = patience, pace
        self._traffic = traffic

    def write(self, handle: int, data: bytes | memoryview) -> None:
        """See `FileSystem.write`; block by block."""
        view = memoryview(data)
        for start in range(0, len(view), _BLOCK_BYTES):
            block = view[start : start + _BLOCK_BYTES]
            self._pace.take(len(block))
            super().write(handle, block)
            self._patience.beat()
        self._traffic.add("write", sent_bytes=len(view))

    def fsync(self, handle: int) -> None:
        """See `FileSystem.fsync`; of what has none, nothing is expected."""
        with _unless(_UNSUPPORTED):
            super().fsync(handle)
        self._patience.beat()

    def fsync_directory(self, path: Path) -> None:
        """See `FileSystem.fsync_directory`."""
        with _unless(_UNSUPPORTED):
            super().fsync_directory(path)

    def link(self, source: Path, target: Path) -> None:
        """See `FileSystem.link`: there are no hard links."""
        if os.path.lexists(target):
            raise FileExistsError(str(target))
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See `FileSystem.unlink`; emptied first, under no object's name."""
        if not path.name.startswith("."):
            gone = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
            os.rename(path, gone)
            path = gone
        with contextlib.suppress(OSError):
            os.truncate(path, 0)
        os.unlink(path)


@contextlib.contextmanager
def _unless(numbers: frozenset[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
