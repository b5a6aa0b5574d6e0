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
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from colab_keras_bg.errors import (
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage.drive_found import Found, Sums, any_of
from colab_keras_bg.storage.interface import (
    Capabilities,
    ObjectInfo,
    Storage,
    check_name,
    check_prefix,
    is_name,
)
from colab_keras_bg.storage.pace import Pace

try:
    from colab_keras_bg.storage.drive_errors import AbsentError
    from colab_keras_bg.storage.drive_files import DriveFiles
    from colab_keras_bg.storage.drive_folders import DriveFolders
except ModuleNotFoundError as _error:  # pragma: no cover - another environment
    raise StorageRefusedError(
        "drive://",
        cause=f"the package {_error.name} is not installed",
        advice='Install it: pip install "colab_keras_bg[drive]".',
    ) from _error

__all__ = ["DriveStorage"]

_ENDPOINT = "COLAB_KERAS_BG_DRIVE_ENDPOINT"
_SMALL_BYTES = 1 << 20
_FOLDERS_AT_ONCE = 20
_QUOTA_SECS = 60.0


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
        self._folders = DriveFolders(self._files, self._url, folder, path)
        self._known: dict[str, str] = {}  # Ids of files, by name.
        # Ids of which the answer was lost, by name and MD5.
        self._tried: dict[tuple[str, str], str] = {}
        self._free: tuple[float, int | None] | None = None
        self._lock = threading.RLock()

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
            return self._create(name, file)  # type: ignore[arg-type]

    def upload(self, name: str, path: Path) -> ObjectInfo:
        """See `Storage.upload`."""
        check_name(name)
        with path.open("rb") as file:
            return self._create(name, file)

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        found = self._find(check_name(name))
        if found is None:
            with contextlib.suppress(ObjectExistsError):
                return self._create(name, BytesIO(content))
            found = self._existing(name)
        try:
            file = BytesIO(content)
            made = self._files.upload(
                file, Sums.of(file), id=found.id, name=name, parent=None
            )
        except AbsentError:
            self._forget()
            raise StorageUnavailableError(
                f"{name!r} was deleted in {self._url} while it was replaced"
            ) from None
        return self._info(name, self._checked(made))

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`; two at the same moment are not kept apart."""
        check_name(name)
        present: bytes | None = None
        with contextlib.suppress(ObjectNotFoundError):
            present = self.read(name)
        if present not in (expected, content):
            raise ConflictError(name, where=self._url)
        made = self.replace(name, content)
        if self.read(name) != content:
            raise ConflictError(name, where=self._url)
        return made

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`; all of it is sent again."""
        check_name(name)
        present = b""
        is_there = self.exists(name)
        if is_there:
            present = self.read(name)
        if (
            is_there
            and present[at:] == content
            and (len(present) == at + len(content))
        ):
            return self.info(name)
        if len(present) != at:
            raise ConflictError(name, where=self._url)
        return self.replace(name, present + content)

    def read(self, name: str) -> bytes:
        """See `Storage.read`; compared with the MD5 that Drive tells."""
        check_name(name)
        for _ in range(3):  # It may be replaced between the two requests.
            found = self._existing(name)
            try:
                content = self._files.download(found.id)
            except AbsentError:
                self._forget()
                continue
            if _md5_of(content) == found.md5:
                return content
        raise StorageUnavailableError(
            f"{self._url} has not sent {name!r} as it says that it is"
        )

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
            self._forget()
            raise ObjectNotFoundError(name, where=self._url) from None
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
        path = check_prefix(prefix).rpartition("/")[0]
        start = self._folders.at(path)
        if start is None:
            return
        waiting = {start: f"{path}/" if path else ""}
        while waiting:
            some = dict(list(waiting.items())[:_FOLDERS_AT_ONCE])
            for name, found in sorted(self._children(some).items()):
                if found.is_folder:
                    self._folders.know(name, found.id)
                    if f"{name}/".startswith(prefix) or prefix.startswith(
                        f"{name}/"
                    ):
                        waiting[found.id] = f"{name}/"
                elif found.size_bytes is not None and name.startswith(prefix):
                    yield self._info(name, found)
            for id in some:
                del waiting[id]

    def delete(self, name: str) -> None:
        """See `Storage.delete`; for good, and younger ones of the name, too."""
        found = self._same(check_name(name))
        self._forget(name)
        if not found:
            raise ObjectNotFoundError(name, where=self._url)
        for one in sorted(found, key=lambda f: f.age, reverse=True):
            with contextlib.suppress(AbsentError):
                self._files.delete(one.id)

    def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`; asked once a minute."""
        now = time.monotonic()
        if self._free is None or now - self._free[0] > _QUOTA_SECS:
            self._free = now, self._files.free_bytes()
        return self._free[1]

    def close(self) -> None:
        """See `Storage.close`."""
        self._files.close()

    # Files.

    def _create(self, name: str, file: BinaryIO) -> ObjectInfo:
        sums = Sums.of(file)
        attempt = (name, sums.md5)
        tried = self._tried.get(attempt)
        present = self._find(name)
        if present is not None and present.id != tried:
            raise ObjectExistsError(name, where=self._url)
        path, _, last = name.rpartition("/")
        parent = self._folders.made(path)
        id = self._tried.setdefault(attempt, tried or self._files.new_id())
        made = self._files.upload(file, sums, id=id, name=last, parent=parent)
        if made.trashed:
            self._tried.pop(attempt, None)
        self._checked(made)
        same = self._same(name)
        first = min([*same, made], key=lambda one: one.age)
        self._tried.pop(attempt, None)
        if first.id != id:  # Another was quicker.
            with contextlib.suppress(AbsentError):
                self._files.delete(id)
            raise ObjectExistsError(name, where=self._url)
        self._known[name] = id
        return self._info(name, made)

    def _existing(self, name: str) -> Found:
        found = self._find(name)
        if found is None:
            raise ObjectNotFoundError(name, where=self._url)
        return found

    def _find(self, name: str) -> Found | None:
        """The file of a name that counts; None if there is none."""
        known = self._known.get(name)
        if known is not None:
            with contextlib.suppress(AbsentError):
                found = self._files.get(known)
                if not found.trashed:
                    return found
            self._forget()  # Somebody has moved or deleted things.
        same = self._same(name)
        if not same:
            return None
        found = min(same, key=lambda one: one.age)
        self._known[name] = found.id
        return found

    def _same(self, name: str) -> Sequence[Found]:
        """All files of a name."""
        path, _, last = name.rpartition("/")
        parent = self._folders.at(path)
        if parent is None:
            return []
        found = self._folders.named(last, parent)
        return [one for one in found if one.size_bytes is not None]

    def _children(self, folders: dict[str, str]) -> dict[str, Found]:
        """What lies in folders, by name; of several, the oldest."""
        query = f"{any_of(list(folders))} and trashed = false"
        oldest: dict[str, Found] = {}
        try:
            for found in self._files.find(query):
                name = folders.get(found.parent, "") + found.name
                if not is_name(name) or found.parent not in folders:
                    continue
                if name not in oldest or found.age < oldest[name].age:
                    oldest[name] = found
        except AbsentError:
            self._forget()
            raise StorageUnavailableError(
                f"a folder in {self._url} was deleted while it was listed"
            ) from None
        return oldest

    def _checked(self, made: Found) -> Found:
        """The same, if it did not land in the trash."""
        if made.trashed:
            self._forget()
            raise StorageUnavailableError(
                f"the folder {self._url} was put in the trash; it is made anew"
            )
        return made

    def _forget(self, name: str | None = None) -> None:
        """Forgets where a file is; or where anything is."""
        with self._lock:
            if name is not None:
                self._known.pop(name, None)
                return
            self._known.clear()
            self._folders.forget()

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
