"""Objects as files of a folder of Google Drive, by its REST API.

Invariant: names are not unique there, so of several files of one name the
oldest counts, for everybody; who has made a younger one takes it back. There
is no compare-and-swap: two that swap at the same moment may both succeed, and
this storage says so.

The layout is that of the names, in real folders: a person sees the run in the
browser, and a mounted Drive sees the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from colab_keras_bg.errors import (
    ConflictError,
    NoSpaceError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage.drive_found import Found, Sums
from colab_keras_bg.storage.interface import (
    Capabilities,
    ObjectInfo,
    Storage,
    check_name,
    check_prefix,
)
from colab_keras_bg.storage.pace import Pace

try:
    from colab_keras_bg.storage.drive_errors import AbsentError
    from colab_keras_bg.storage.drive_files import DriveFiles
    from colab_keras_bg.storage.drive_folders import DriveFolders
    from colab_keras_bg.storage.drive_names import DriveNames
except ModuleNotFoundError as _error:  # pragma: no cover - another environment
    raise StorageRefusedError(
        "drive://",
        cause=f"the package {_error.name} is not installed",
        advice='Install it: pip install "colab_keras_bg[drive]".',
    ) from _error

__all__ = ["DriveStorage"]

_ENDPOINT = "COLAB_KERAS_BG_DRIVE_ENDPOINT"
_SMALL_BYTES = 1 << 20
_QUOTA_SECS = 60.0
_TRIES = 3
_LOCKS = 64


class DriveStorage(Storage):
    """Keeps objects below a folder of Google Drive.

    Attributes:
        traffic: How much was asked of it so far.
    """

    def __init__(
        self,
        folder: str,
        path: str = "",
        *,
        endpoint: str | None = None,
        credentials: Any = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes an address; nothing is asked yet.

        Args:
            folder: A folder that is there: its name, in My Drive, shared with
                the account, or of a shared drive; or its id.
            path: Below that, made when it is first needed; names with `/`
                between.
            endpoint: The service's address, if it is not Google's. The
                environment's COLAB_KERAS_BG_DRIVE_ENDPOINT is taken, too.
            credentials: Those of google-auth; the environment's if None.
            pace: Lets what is sent go; None for as fast as can be.
            clock: Seconds that only grow.

        Raises:
            StorageRefusedError: If there are no credentials.
        """
        self._url = f"drive://{folder}/{path}".rstrip("/")
        self._files = DriveFiles(
            self._url,
            endpoint=endpoint or os.environ.get(_ENDPOINT),
            credentials=credentials,
            pace=pace,
        )
        self.traffic = self._files.traffic
        self._folders = DriveFolders(
            self._files, self._url, folder, path, clock=clock
        )
        self._names = DriveNames(
            self._files, self._folders, self._url, clock=clock
        )
        # Ids of which the answer was lost, by name and MD5.
        self._tried: dict[tuple[str, str], str] = {}
        self._free: tuple[float, int | None] | None = None
        self._clock = clock
        self._locks = [threading.RLock() for _ in range(_LOCKS)]

    @property
    def capabilities(self) -> Capabilities:
        """It outlives us and tells checksums; it neither swaps nor appends."""
        return Capabilities(
            survives_machine=True,
            mapped_reads=False,
            swaps=False,
            checksums=True,
            appends=False,
        )

    def describe(self) -> str:
        """The URL."""
        return self._url

    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        """See `Storage.create`; of two at once, the later gives way."""
        check_name(name)
        with tempfile.SpooledTemporaryFile(max_size=_SMALL_BYTES) as file:
            for chunk in chunks:
                file.write(chunk)
            with self._locked(name):
                return self._create(name, file)  # type: ignore[arg-type]

    def upload(self, name: str, path: Path) -> ObjectInfo:
        """See `Storage.upload`."""
        check_name(name)
        with path.open("rb") as file, self._locked(name):
            return self._create(name, file)

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        with self._locked(name):
            found = self._names.known(name) or self._find(name, surely=False)
            if found is None:
                with contextlib.suppress(ObjectExistsError):
                    return self._create(name, BytesIO(content))
                found = self._existing(name)
            return self._info(name, self._changed(name, found, content))

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`; two at the same moment are not kept apart."""
        with self._locked(name):
            # Not what is known: another may have made an older one.
            found = next(iter(self._names.all(name)), None)
            present = None if found is None else self._content(name, found)
            if found and present == content:
                return self._info(name, found)
            if present != expected:
                raise ConflictError(name, where=self._url)
            if found is None:
                try:
                    return self._create(name, BytesIO(content))
                except ObjectExistsError:
                    raise ConflictError(name, where=self._url) from None
            made = self._changed(name, found, content)
            now = self._find(name)
            if now is None or (now.id, now.md5) != (made.id, made.md5):
                raise ConflictError(name, where=self._url)
            return self._info(name, made)

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`; all of it is sent again."""
        with self._locked(name):
            found = self._find(name)
            present = b"" if found is None else self._content(name, found)
            is_done = len(present) == at + len(content)
            if found and is_done and present[at:] == content:
                return self._info(name, found)
            if len(present) != at:
                raise ConflictError(name, where=self._url)
            return self.replace(name, present + content)

    def read(self, name: str) -> bytes:
        """See `Storage.read`; compared with the MD5 that Drive tells."""
        check_name(name)
        return self._content(name, self._existing(name))

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        check_name(name)
        found = self._existing(name)
        wanted = min(size_bytes, (found.size_bytes or 0) - start)
        if wanted <= 0:
            return b""
        try:
            content = self._files.download(found.id, start, wanted)
        except AbsentError:
            self._names.forget(name)
            raise StorageUnavailableError(
                f"{name!r} was removed from {self._url} while it was read"
            ) from None
        if len(content) != wanted:
            raise StorageUnavailableError(
                f"{self._url} has sent {len(content)} bytes of {name!r} "
                f"instead of {wanted}"
            )
        return content

    def map(self, name: str) -> memoryview:
        """See `Storage.map`; a copy."""
        return memoryview(self.read(name))

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        return self._info(name, self._existing(check_name(name)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`; a request for every twenty folders."""
        for name, found in self._names.below(check_prefix(prefix)):
            yield self._info(name, found[0])

    def delete(self, name: str) -> None:
        """See `Storage.delete`; for good, and younger ones of the name, too."""
        with self._locked(name):
            found = self._names.all(name)
            self._names.forget(name)
            if not found:
                raise ObjectNotFoundError(name, where=self._url)
            # So that no younger one ever counts.
            for one in reversed(found):
                self._remove(one.id)

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """See `Storage.sweep`: younger files of a name, which never count."""
        super().sweep(prefix)
        swept = []
        for name, found in self._names.below(f"{prefix}/" if prefix else ""):
            for one in found[1:]:
                self._remove(one.id)
                swept.append(name)
        return tuple(swept)

    def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`; asked once a minute."""
        now = self._clock()
        if self._free is None or now - self._free[0] > _QUOTA_SECS:
            free = None
            with contextlib.suppress(StorageUnavailableError):
                free = self._files.free_bytes()
            self._free = now, free
        return self._free[1]

    def close(self) -> None:
        """See `Storage.close`."""
        self._files.close()

    def _create(self, name: str, file: BinaryIO) -> ObjectInfo:
        sums = Sums.of(file)
        attempt = (name, sums.md5)
        tried = self._tried.get(attempt)
        present = self._find(name, surely=False)
        if present is not None and present.id != tried:
            raise ObjectExistsError(name, where=self._url)
        made = self._made(name, file, sums, attempt)
        same = self._names.all(name, surely=False)
        first = min([*same, made], key=lambda one: one.age)
        self._tried.pop(attempt, None)
        self._names.learn(name, first, listed=True)
        if first.id != made.id:  # Another was quicker.
            self._remove(made.id)
            raise ObjectExistsError(name, where=self._url)
        return self._info(name, made)

    def _made(
        self, name: str, file: BinaryIO, sums: Sums, attempt: tuple[str, str]
    ) -> Found:
        path, _, last = name.rpartition("/")
        for _ in range(_TRIES):
            # A second try that finds the id used knows that it was the first.
            id = self._tried.get(attempt) or self._files.new_id()
            self._tried[attempt] = id
            try:
                parent = self._folders.made(path)[0]
                made = self._files.upload(
                    file, sums, id=id, name=last, parent=parent
                )
            except AbsentError:
                self._names.forget()  # The folder is made anew.
                continue
            except (NoSpaceError, StorageRefusedError):
                self._tried.pop(attempt, None)
                raise
            if not made.trashed:
                return made
            del self._tried[attempt]
            self._remove(id)
            self._names.forget()
        raise self._removed(name)

    def _changed(self, name: str, found: Found, content: bytes) -> Found:
        """A file with other content."""
        file = BytesIO(content)
        try:
            made = self._files.upload(
                file, Sums.of(file), id=found.id, name=name, parent=None
            )
        except AbsentError:
            raise self._removed(name) from None
        if made.trashed:
            raise self._removed(name)
        self._names.learn(name, made)
        return made

    def _content(self, name: str, found: Found) -> bytes:
        """The content of a file of which something is known."""
        for _ in range(_TRIES):  # It may be replaced meanwhile.
            with contextlib.suppress(AbsentError):
                content = self._files.download(found.id)
                if _md5_of(content) == found.md5:
                    return content
                now = self._existing(name)
                if (_md5_of(content), found.id) == (now.md5, now.id):
                    return content
            self._names.forget(name)
            found = self._existing(name)
        raise StorageUnavailableError(
            f"{self._url} has not sent {name!r} as it says that it is"
        )

    def _find(self, name: str, *, surely: bool = True) -> Found | None:
        return self._names.find(check_name(name), surely=surely)

    def _existing(self, name: str) -> Found:
        found = self._find(name)
        if found is None:
            raise ObjectNotFoundError(name, where=self._url)
        return found

    def _remove(self, id: str) -> None:
        with contextlib.suppress(AbsentError):
            self._files.delete(id)

    def _removed(self, name: str) -> StorageUnavailableError:
        """What to say of a folder that is gone; a next try makes it."""
        self._names.forget()
        return StorageUnavailableError(
            f"{name!r} was not written to {self._url}: its folder was removed "
            "meanwhile"
        )

    def _locked(self, name: str) -> threading.RLock:
        """Keeps two threads from writing one name, and few other names."""
        return self._locks[hash(check_name(name)) % len(self._locks)]

    @staticmethod
    def _info(name: str, found: Found) -> ObjectInfo:
        return ObjectInfo(
            name,
            size_bytes=found.size_bytes or 0,
            crc32c=found.crc32c,
            md5=found.md5,
        )


def _md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
