"""A folder that is mounted from elsewhere, such as Google Drive in Colab.

Invariant: files are written whole under a temporary name, closed, and renamed;
never again opened to write. What is not mounted is never taken for an empty
folder, and a call that hangs hangs nobody for longer than the limit.

What such a mount has taken it uploads later, and does not tell when: it
confirms nothing, and nothing here is called durable. It does not compare and
swap, either: what keeps two machines apart elsewhere is best effort here. Nor
are there hard links: of two processes that create one name at the same moment
the later one wins, and only the threads of one are kept apart.

Deleting fills the trash of Google Drive, which counts against the quota; a file
that is emptied first takes no space there. It is emptied under a temporary
name: whenever the process dies, an object is whole or gone. What is replaced
is not emptied: the new one has to be in its place first.

A call that was given up may still come to its end. It can only be one of which
all content was written: the last step, a rename, was hanging. Until it has
ended nothing else is begun, so what is tried again finds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
import threading
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
from colab_keras_bg.storage.mounts import Mount
from colab_keras_bg.storage.pace import Pace
from colab_keras_bg.storage.patience import HangsError, Patience
from colab_keras_bg.storage.traffic import Traffic

__all__ = ["MountedStorage"]

_T = TypeVar("_T")
_BLOCK_BYTES = 4 << 20
_READS = 3  # Of what is replaced while it is read.
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
        self._files = _MountedFiles(
            path,
            filesystem=_MountedFileSystem(
                self._patience, pace or Pace(), self.traffic
            ),
            patience=self._patience,
        )
        self._is_there = is_there or Mount(path).is_there

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
        """See `Storage.create`; how long chunks take is not the mount's."""
        return self._called(
            lambda: self._files.create(name, self._made(chunks))
        )

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
        """See `Storage.read`."""
        check_name(name)

        def read() -> bytes:
            for _ in range(_READS):
                content = self._files.read(name)
                self.traffic.add("read", received_bytes=len(content))
                # Who deletes a file empties it, also for who has it open.
                if len(content) == self._files.info(name).size_bytes:
                    return content
            raise self._unsteady(name)

        return self._called(read)

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        check_name(name)

        def read() -> bytes:
            for _ in range(_READS):
                content = self._files.read_range(name, start, size_bytes)
                self.traffic.add("read", received_bytes=len(content))
                if len(content) >= size_bytes:
                    return content
                end = self._files.info(name).size_bytes
                if len(content) == max(0, min(size_bytes, end - start)):
                    return content
            raise self._unsteady(name)

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

        def listed() -> Iterator[ObjectInfo]:
            for info in self._files.list(prefix):
                self._patience.beat()
                yield info

        yield from self._called(lambda: [*listed()])

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
                result = call()
            except StorageError:
                self._check_there()
                raise
            # Of a mount that has gone meanwhile, what was seen was not it.
            self._check_there()
            return result

        try:
            return self._patience.call(mounted)
        except HangsError:
            raise StorageUnavailableError(
                f"{self.describe()} has not answered for "
                f"{self._patience.secs:.0f} s: the mount hangs. If that does "
                "not pass, mount it again."
            ) from None
        except StorageError as error:
            told = self._told(error)
            if told is error:
                raise
            raise told from error

    def _made(
        self, chunks: Iterable[bytes | memoryview]
    ) -> Iterator[bytes | memoryview]:
        """The chunks; while one is made, nothing is expected of the mount."""
        iterator = iter(chunks)
        while True:
            with self._patience.elsewhere():
                try:
                    chunk = next(iterator)
                except StopIteration:
                    return
            yield chunk

    def _unsteady(self, name: str) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"{name!r} in {self.describe()} has another size than was read of "
            f"it, {_READS} times: it is being replaced. Try again."
        )

    def _check_there(self) -> None:
        if not self._is_there():
            raise StorageRefusedError(
                self.describe(),
                cause="nothing is mounted there",
                advice=(
                    "Mount it: google.colab.drive.mount('/content/drive') in "
                    "a Colab notebook. A network folder that is no FUSE mount "
                    "is to be named in COLAB_KERAS_BG_MOUNTED_FOLDERS."
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


class _MountedFiles(LocalStorage):
    """Files that are read block by block, so that they can be waited for."""

    def __init__(
        self,
        directory: Path,
        *,
        filesystem: PosixFileSystem,
        patience: Patience,
    ) -> None:
        super().__init__(directory, filesystem=filesystem)
        self._patience = patience

    def read(self, name: str) -> bytes:
        """See `Storage.read`; of one file, whatever takes its name."""
        return self.read_range(name, 0, sys.maxsize)

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`; a mount may give less than there is."""
        blocks, left = [], max(0, size_bytes)
        with self._opened(name) as handle:
            while block := os.pread(handle, min(left, _BLOCK_BYTES), start):
                self._patience.beat()
                blocks.append(block)
                start, left = start + len(block), left - len(block)
        return b"".join(blocks)


class _MountedFileSystem(PosixFileSystem):
    """What can be asked of a mount."""

    def __init__(
        self, patience: Patience, pace: Pace, traffic: Traffic
    ) -> None:
        self._patience, self._pace = patience, pace
        self._traffic = traffic
        self._naming = threading.Lock()

    def write(self, handle: int, data: bytes | memoryview) -> None:
        """See `FileSystem.write`; block by block."""
        view = memoryview(data)
        for start in range(0, len(view), _BLOCK_BYTES):
            block = view[start : start + _BLOCK_BYTES]
            with self._patience.elsewhere():
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
        with self._naming:
            try:
                os.lstat(target)
            except FileNotFoundError:  # Any other leaves open what is there.
                self._patience.beat()
                os.rename(source, target)
            else:
                raise FileExistsError(str(target))

    def replace(self, source: Path, target: Path) -> None:
        """See `FileSystem.replace`."""
        self._patience.beat()
        super().replace(source, target)

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
