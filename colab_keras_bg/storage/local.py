"""Objects as files of one local directory.

Invariant: an object's own name appears only after its content is synced.
The order of writes, and why each sync is there:

1. parent directories, each synced into its parent: a synced file in a
   directory that a power cut forgets is lost with it. One that is there
   already is synced once all the same: whoever made it may have died between;
2. a temporary file (a leading dot: no object's name has one), written and
   synced: the name must never lead to blocks that were not written;
3. a hard link to the final name, which fails if the name is taken (`create`),
   or an atomic rename over it (`replace`);
4. the directory synced: only then may a caller rely on the new name.

An object is a regular file: what lies there as a folder, a symbolic link or a
pipe is none, and is never followed or waited for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from colab_keras_bg.errors import (
    ConflictError,
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
    check_prefix,
    is_name,
)

__all__ = ["LocalStorage"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_UNFINISHED = re.compile(r"\..+[.-][0-9a-f]{8,12}\.tmp")


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
        self._anchored: set[Path] = set()  # Their names are synced.

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
        taken = ObjectExistsError(name, where=self.describe())
        if os.path.lexists(path):  # Before anything is written in vain.
            raise taken
        with self._writing(name):
            temporary, size_bytes = self._write_beside(path, chunks)
            made = [temporary]
            try:
                try:
                    self._files.link(temporary, path)
                except FileExistsError:
                    raise taken from None
                made.append(path)
                with contextlib.suppress(FileNotFoundError):  # Renamed.
                    self._files.unlink(temporary)
                self._files.fsync_directory(path.parent)
            except BaseException:
                self._take_back(*made)
                raise
        return ObjectInfo(name, size_bytes=size_bytes)

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        path = self._path(name)
        with self._writing(name):
            temporary, size_bytes = self._write_beside(path, [content])
            try:
                self._files.replace(temporary, path)
            except BaseException:
                self._take_back(temporary)
                raise
            self._files.fsync_directory(path.parent)
        return ObjectInfo(name, size_bytes=size_bytes)

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`; a lock on the folder keeps others out."""
        path = self._path(name)
        with self._writing(name):
            self._make_directory(path.parent)
        with self._alone_in(path.parent):
            found = self.read(name) if self.exists(name) else None
            if found not in (expected, content):
                raise ConflictError(name, where=self.describe())
            return self.replace(name, content)

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`; a power cut may leave a part of it."""
        path = self._path(name)
        before = self.info(name).size_bytes if self.exists(name) else 0
        if before == at and not before:
            self.replace(name, content)
        elif before == at:
            with self._writing(name):
                handle = self._files.extend(path)
                try:
                    self._files.write(handle, content)
                    self._files.fsync(handle)
                finally:
                    self._files.close(handle)
        elif before != at + len(content) or (
            self.read_range(name, at, len(content)) != content
        ):
            raise ConflictError(name, where=self.describe())
        return self.info(name)

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        with (
            self._opened(name) as handle,
            open(handle, "rb", closefd=False) as file,
        ):
            return file.read()

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        with self._opened(name) as handle:
            return os.pread(handle, size_bytes, start)

    def map(self, name: str) -> memoryview:
        """See `Storage.map`."""
        with self._opened(name) as handle:
            if os.fstat(handle).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_READ))

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        with self._reading(name):
            found = os.lstat(self._path(name))
            if not stat.S_ISREG(found.st_mode):
                raise ObjectNotFoundError(name, where=self.describe())
        return ObjectInfo(name, size_bytes=found.st_size)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        folder = check_prefix(prefix).rpartition("/")[0]
        for path, files in self._walk(self.directory / folder):
            for file in files:
                name = (path / file).relative_to(self.directory).as_posix()
                if not name.startswith(prefix) or not is_name(name):
                    continue
                try:
                    found = self.info(name)
                except ObjectNotFoundError:
                    continue  # Gone while we look, or no object.
                yield found

    def delete(self, name: str) -> None:
        """See `Storage.delete`; empty parent directories go too."""
        path = self._path(name)
        self.info(name)
        with self._writing(name):
            try:
                self._files.unlink(path)
            except FileNotFoundError:
                raise ObjectNotFoundError(name, where=self.describe()) from None
            self._files.fsync_directory(path.parent)
        self._remove_empty(path.parent)

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """See `Storage.sweep`.

        Below a given folder empty folders go too. Without one they stay: the
        directory may hold somebody else's.
        """
        start = self._path(prefix) if prefix else self.directory
        swept = []
        for path, files in reversed([*self._walk(start)]):
            if not path.is_dir():
                continue  # It was empty but for what lay below it.
            unfinished = [f for f in files if _UNFINISHED.fullmatch(f)]
            with self._writing(prefix or path.name):
                for file in unfinished:
                    with contextlib.suppress(FileNotFoundError):
                        self._files.unlink(path / file)
                    name = (path / file).relative_to(self.directory)
                    swept.append(name.as_posix())
                if prefix:
                    self._files.fsync_directory(path)
            if prefix or unfinished:
                self._remove_empty(path)
        return tuple(swept)

    def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`; quotas do not show."""
        for path in (self.directory, *self.directory.parents):
            with contextlib.suppress(OSError):
                found = os.statvfs(path)
                return found.f_bavail * found.f_frsize
        return None

    @staticmethod
    def is_full(error: OSError) -> bool:
        """Whether an error of the system means that there is no space."""
        return error.errno in _FULL

    def _path(self, name: str) -> Path:
        return self.directory / check_name(name)

    def _walk(self, start: Path) -> Iterator[tuple[Path, Sequence[str]]]:
        """The folders that can hold objects, with their files' names."""

        def failed(error: OSError) -> None:
            if isinstance(error, FileNotFoundError) and not (
                os.path.islink(error.filename)
            ):
                return  # It is not there. A link that leads nowhere may be.
            raise StorageUnavailableError(
                error.errno, f"cannot list {error.filename}: {error.strerror}"
            ) from None

        for folder, folders, files in os.walk(start, onerror=failed):
            folders[:] = filter(is_name, folders)
            yield Path(folder), files

    def _write_beside(
        self, path: Path, chunks: Iterable[bytes | memoryview]
    ) -> tuple[Path, int]:
        """Writes a synced temporary file; returns it and its size."""
        temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
        size_bytes = 0
        try:
            self._make_directory(path.parent)
            handle = self._files.create(temporary)
            try:
                for chunk in chunks:
                    self._files.write(handle, chunk)
                    size_bytes += len(chunk)
                self._files.fsync(handle)
            finally:
                self._files.close(handle)
        except BaseException:
            self._take_back(temporary)
            raise
        return temporary, size_bytes

    def _take_back(self, *paths: Path) -> None:
        """Removes what a failed call has made, as far as it can be."""
        parent = paths[0].parent
        for path in reversed(paths):
            with contextlib.suppress(OSError):
                self._files.unlink(path)
        with contextlib.suppress(OSError):
            self._files.fsync_directory(parent)
        self._remove_empty(parent)

    def _make_directory(self, path: Path) -> None:
        """Makes sure of a directory, and that its name survives."""
        missing = not path.is_dir()
        if not missing and (
            path in self._anchored or path in self.directory.parents
        ):
            return
        if missing or path != self.directory:
            self._make_directory(path.parent)
        if missing:
            self._files.mkdir(path)
        try:
            self._files.fsync_directory(path.parent)
        except PermissionError:
            # Whose parent is closed to us, was made by another, long ago.
            if missing:
                raise
        self._anchored.add(path)

    def _remove_empty(self, path: Path) -> None:
        """Removes a folder and those above it, as long as they are empty."""
        while path != self.directory and path not in self.directory.parents:
            try:
                self._files.rmdir(path)
            except FileNotFoundError:
                pass  # It could not be made, but one above it may have been.
            except OSError:
                return  # Not empty, or not ours to remove.
            self._anchored.discard(path)
            path = path.parent

    @contextlib.contextmanager
    def _alone_in(self, folder: Path) -> Iterator[None]:
        """Keeps other processes of this storage out of a folder's swaps."""
        with self._writing(folder.name):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """A descriptor of an object's file."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with self._reading(name):
            handle = os.open(self._path(name), flags)
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise ObjectNotFoundError(name, where=self.describe())
                yield handle
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            if error.errno in _ABSENT:
                raise ObjectNotFoundError(name, where=self.describe()) from None
            raise StorageUnavailableError(
                error.errno, self._sentence(name, error)
            ) from error

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            if self.is_full(error):
                raise NoSpaceError(name, where=self.describe()) from error
            raise StorageError(
                error.errno, self._sentence(name, error)
            ) from error

    def _sentence(self, name: str, error: OSError) -> str:
        return f"{error.strerror}: {name!r} in {self.describe()}"
