"""The files and folders of a Drive.

Invariant: names are not unique, ids are, and an id is never used twice. What
lies in a folder that was trashed is trashed; what was deleted is gone with all
that lay in it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from colab_keras_bg.testing.loopback.answers import ApiError

__all__ = ["FOLDER", "Files", "StoredFile"]

FOLDER = "application/vnd.google-apps.folder"


@dataclass(frozen=True)
class StoredFile:
    """A file or a folder.

    Attributes:
        id: What it is known by.
        name: What it is called.
        mime_type: Its media type; `FOLDER` of a folder.
        parent: The id of the folder that it lies in; empty of a root.
        content: Its bytes; None of a folder, or of a document of Google's.
        created: When it was made, in seconds since 1970.
        modified: When it was changed last.
        version: Grows with every change.
        trashed: Whether it was put in the trash itself.
        shared: Whether it is another's, and shared with this account.
        md5: The MD5 of its content, as the service states it.
    """

    id: str
    name: str
    mime_type: str = "application/octet-stream"
    parent: str = ""
    content: bytes | None = field(default=None, repr=False)
    created: float = 0.0
    modified: float = 0.0
    version: int = 1
    trashed: bool = False
    shared: bool = False
    md5: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether other files may lie in it."""
        return self.mime_type == FOLDER


class Files:
    """All that there is; for any thread.

    Attributes:
        root: The id of My Drive.
        quota_bytes: How much may be kept; None for as much as there is.
        visible_after_secs: How long after it was made a file shows in lists.
    """

    def __init__(
        self,
        *,
        quota_bytes: int | None = None,
        visible_after_secs: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Starts with an empty My Drive."""
        self.quota_bytes = quota_bytes
        self.visible_after_secs = visible_after_secs
        self._clock = clock
        self._lock = threading.RLock()
        self._files: dict[str, StoredFile] = {}
        self._used: set[str] = set()
        self.root = self.add(StoredFile("", "My Drive", FOLDER)).id

    @staticmethod
    def new_id() -> str:
        """One that was never used."""
        return f"1{secrets.token_urlsafe(24)}"

    def add(self, file: StoredFile) -> StoredFile:
        """Takes a file.

        Args:
            file: The file; with an empty id, it gets one.

        Raises:
            ApiError: 409 if its id was used, 404 if its parent is not there,
                403 if there is no space.
        """
        with self._lock:
            self.check_free(file.id)
            if file.parent:
                self.get(file.parent)
            self._check_space(len(file.content or b""))
            now = self._clock()
            file = replace(
                file,
                id=file.id or self.new_id(),
                # As exactly as the service tells it.
                created=round(file.created or now, 3),
                modified=now,
                md5=_md5(file.content),
            )
            self._used.add(file.id)
            self._files[file.id] = file
            return file

    def check_free(self, id: str) -> None:
        """Refuses an id that was ever used.

        Raises:
            ApiError: 409, if it was.
        """
        with self._lock:
            if id in self._used:
                raise ApiError(
                    409,
                    "A file already exists with the provided ID.",
                    "fileIdInUse",
                )

    def get(self, id: str) -> StoredFile:
        """A file by its id.

        Raises:
            ApiError: 404, if there is none.
        """
        with self._lock:
            if id == "root":
                id = self.root
            try:
                return self._files[id]
            except KeyError:
                raise ApiError(
                    404, f"File not found: {id}.", "notFound"
                ) from None

    def change(self, id: str, **changes: Any) -> StoredFile:
        """Changes a file.

        Args:
            id: Which.
            **changes: Attributes of `StoredFile`.

        Raises:
            ApiError: 404 if it is not there, 403 if there is no space.
        """
        with self._lock:
            file = self.get(id)
            if changes.get("content") is not None:
                self._check_space(
                    len(changes["content"]) - len(file.content or b"")
                )
            file = replace(
                file,
                **changes,
                modified=self._clock(),
                version=file.version + 1,
                md5=_md5(changes.get("content", file.content)),
            )
            self._files[file.id] = file
            return file

    def delete(self, id: str) -> None:
        """Removes a file, for good, with all that lies in it.

        Raises:
            ApiError: 404, if it is not there.
        """
        with self._lock:
            file = self.get(id)
            for child in [
                f for f in self._files.values() if f.parent == file.id
            ]:
                self.delete(child.id)
            del self._files[file.id]

    def is_trashed(self, file: StoredFile) -> bool:
        """Whether it, or a folder that it lies in, is in the trash."""
        with self._lock:
            while not file.trashed:
                if file.parent not in self._files:
                    return False
                file = self._files[file.parent]
            return True

    def visible(self) -> Sequence[StoredFile]:
        """What lists show now."""
        with self._lock:
            made_before = self._clock() - self.visible_after_secs
            return [f for f in self._files.values() if f.created <= made_before]

    def usage_bytes(self) -> int:
        """How much is kept, the trash included."""
        with self._lock:
            return sum(
                len(file.content or b"") for file in self._files.values()
            )

    def at(self, path: str) -> list[StoredFile]:
        """All files of a path below My Drive that are not in the trash.

        Args:
            path: Names with `/` between.
        """
        with self._lock:
            found = [self._files[self.root]]
            for name in filter(None, path.split("/")):
                parents = {file.id for file in found}
                found = [
                    file
                    for file in self._files.values()
                    if file.parent in parents
                    and file.name == name
                    and not self.is_trashed(file)
                ]
            return found

    def tree(self) -> Mapping[str, StoredFile]:
        """Files by their paths below My Drive; of several, the oldest."""
        with self._lock:
            return dict(
                sorted(self._below(self.root, ""), key=lambda one: one[0])
            )

    def _below(
        self, parent: str, path: str
    ) -> Iterator[tuple[str, StoredFile]]:
        files = [f for f in self._files.values() if f.parent == parent]
        for file in sorted(
            files, key=lambda f: (f.created, f.id), reverse=True
        ):
            if file.trashed:
                continue
            if file.is_folder:
                yield from self._below(file.id, f"{path}{file.name}/")
            else:
                yield path + file.name, file

    def _check_space(self, more_bytes: int) -> None:
        quota = self.quota_bytes
        if (
            quota is not None
            and more_bytes > 0
            and (self.usage_bytes() + more_bytes > quota)
        ):
            raise ApiError(
                403,
                "The user's Drive storage quota has been exceeded.",
                "storageQuotaExceeded",
            )


def _md5(content: bytes | None) -> str:
    return hashlib.md5(content or b"", usedforsecurity=False).hexdigest()
