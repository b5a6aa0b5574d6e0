"""Objects as files of one local directory.

Invariant: an object's own name appears only after its content is synced.
The order of writes, and why each sync is there:

1. parent directories, each synced into its parent: a synced file in a
   directory that a power cut forgets is lost with it;
2. a temporary file (a leading dot: no object's name has one), written and
   synced: the name must never lead to blocks that were not written;
3. a hard link to the final name, which fails if the name is taken (`create`),
   or an atomic rename over it (`replace`);
4. the directory synced: only then may a caller rely on the new name.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from colab_keras_bg.errors import (
    NoSpaceError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from colab_keras_bg.storage.filesystem import FileSystem, PosixFileSystem
from colab_keras_bg.storage.interface import (
    Capabilities,
    ObjectInfo,
    Storage,
    check_name,
)

__all__ = ["LocalStorage"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class LocalStorage(Storage):
    """Keeps objects as files below a directory, made when first needed."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        filesystem: FileSystem | None = None,
    ) -> None:
        """Takes a directory, which need not exist yet.

        Args:
            directory: Where the objects lie.
            filesystem: What carries out the changes; a test's double.
        """
        self.directory = Path(os.path.abspath(directory))
        self._files = filesystem or PosixFileSystem()

    @property
    def capabilities(self) -> Capabilities:
        """A disk of this machine goes with the machine."""
        return Capabilities(survives_machine=False, mapped_reads=True)

    def describe(self) -> str:
        """The directory's absolute path."""
        return str(self.directory)

    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        """See `Storage.create`."""
        path = self._path(name)
        if path.exists():
            raise ObjectExistsError(name, where=self.describe())
        linked = False
        try:
            with (
                self._translated(name),
                self._written(path, chunks) as temporary,
            ):
                try:
                    self._files.link(temporary, path)
                except FileExistsError:
                    raise ObjectExistsError(
                        name, where=self.describe()
                    ) from None
                linked = True
        except StorageError:
            if linked:  # Its folder could not be synced: it is not created.
                with contextlib.suppress(OSError):
                    self._files.unlink(path)
            raise
        return self.info(name)

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        path = self._path(name)
        with (
            self._translated(name),
            self._written(path, [content]) as temporary,
        ):
            self._files.replace(temporary, path)
        return self.info(name)

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        with self._translated(name, StorageUnavailableError):
            return self._path(name).read_bytes()

    def map(self, name: str) -> memoryview:
        """See `Storage.map`."""
        with (
            self._translated(name, StorageUnavailableError),
            self._path(name).open("rb") as file,
        ):
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            )

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        with self._translated(name, StorageUnavailableError):
            size_bytes = self._path(name).stat().st_size
        return ObjectInfo(name, size_bytes=size_bytes)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.directory
        if not self.directory.exists():
            return
        for path in self._files_below(start):
            name = path.relative_to(self.directory).as_posix()
            if name.startswith(prefix):
                # A file may go while we look: then it is not there.
                with contextlib.suppress(ObjectNotFoundError):
                    yield self.info(name)

    def delete(self, name: str) -> None:
        """See `Storage.delete`; empty parent directories go too."""
        path = self._path(name)
        with self._translated(name):
            self._files.unlink(path)
            self._files.fsync_directory(path.parent)
        self._remove_empty(path.parent)

    def sweep(self, prefix: str = "") -> list[str]:
        """Removes what writers that died left unfinished.

        Only the one writer of this directory may call it.

        Args:
            prefix: Only below this folder; everywhere if empty.

        Returns:
            The paths removed, relative to the storage.
        """
        swept = []
        start = self._path(prefix) if prefix else self.directory
        for path in list(self._files_below(start, unfinished=True)):
            with self._translated(path.name):
                self._files.unlink(path)
            swept.append(path.relative_to(self.directory).as_posix())
            self._remove_empty(path.parent)
        return swept

    @staticmethod
    def is_full(error: OSError) -> bool:
        """Whether an error of the system means that there is no space."""
        return error.errno in _FULL

    def _path(self, name: str) -> Path:
        return self.directory / check_name(name)

    def _files_below(
        self, start: Path, *, unfinished: bool = False
    ) -> Iterator[Path]:
        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise StorageUnavailableError(
                    error.errno, f"cannot list {start}: {error.strerror}"
                )

        for folder, _, files in os.walk(start, onerror=failed):
            for file in files:
                if file.startswith(".") == unfinished and (
                    not unfinished or file.endswith(".tmp")
                ):
                    yield Path(folder, file)

    @contextlib.contextmanager
    def _written(
        self, path: Path, chunks: Iterable[bytes | memoryview]
    ) -> Iterator[Path]:
        """A synced temporary file beside `path`; its folder synced after."""
        self._make_directory(path.parent)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
        try:
            handle = self._files.create(temporary)
            try:
                for chunk in chunks:
                    self._files.write(handle, chunk)
                self._files.fsync(handle)
            finally:
                self._files.close(handle)
            yield temporary
        finally:
            # Also after the link; after a rename it is gone already.
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(temporary)
        self._files.fsync_directory(path.parent)

    def _make_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self._make_directory(path.parent)
        self._files.mkdir(path)
        self._files.fsync_directory(path.parent)

    def _remove_empty(self, path: Path) -> None:
        while path != self.directory:
            try:
                self._files.rmdir(path)
            except OSError:
                return  # Not empty, or not ours to remove.
            path = path.parent

    @contextlib.contextmanager
    def _translated(
        self, name: str, otherwise: type[StorageError] = StorageError
    ) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except FileNotFoundError:
            raise ObjectNotFoundError(name, where=self.describe()) from None
        except OSError as error:
            if self.is_full(error):
                raise NoSpaceError(name, where=self.describe()) from error
            raise otherwise(
                error.errno,
                f"{error.strerror}: {name!r} in {self.describe()}",
            ) from error
