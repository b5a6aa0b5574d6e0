"""Where the folders of a run lie in Google Drive.

Invariant: of several folders of one name in one folder the oldest counts, for
everybody; whoever has made a younger one takes it back while it is empty.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from colab_keras_bg.errors import StorageRefusedError
from colab_keras_bg.storage.drive_errors import AbsentError
from colab_keras_bg.storage.drive_files import DriveFiles
from colab_keras_bg.storage.drive_found import Found, quoted

__all__ = ["DriveFolders"]

# No name is as long as an id, or few are.
_LEAST_ID = 19


class DriveFolders:
    """The folders below one that has to be there."""

    def __init__(
        self, files: DriveFiles, where: str, folder: str, path: str
    ) -> None:
        """Takes an address; nothing is asked yet.

        Args:
            files: Asks Drive.
            where: The storage, for people.
            folder: The name, or the id, of the folder that has to be there.
            path: Where the storage lies below it; names with `/` between.
        """
        self._files, self._where = files, where
        self._folder, self._path = folder, path
        self._known: dict[str, str] = {}  # Ids, by paths of names.
        self._lock = threading.RLock()

    def at(self, path: str) -> str | None:
        """The id of the folder at a path; None if it is not there.

        Args:
            path: Names with `/` between, in the storage; empty for its own.

        Raises:
            StorageRefusedError: If the first folder is not there.
        """
        return self._at(path, make=False)

    def made(self, path: str) -> str:
        """The same; made, with those above it, if it is not there."""
        found = self._at(path, make=True)
        assert found is not None  # noqa: S101 - it was made
        return found

    def know(self, path: str, id: str) -> None:
        """Takes note of what a list has shown."""
        self._known[path] = id

    def forget(self) -> None:
        """Looks for all of them anew: somebody has moved or deleted them."""
        with self._lock:
            self._known.clear()

    def named(self, name: str, parent: str) -> list[Found]:
        """What is called so in a folder, files and folders.

        Args:
            name: The name.
            parent: The folder's id.
        """
        query = (
            f"name = {quoted(name)} and {quoted(parent)} in parents and "
            "trashed = false"
        )
        try:
            # Drive may compare names without regard to case.
            found = [f for f in self._files.find(query) if f.name == name]
        except AbsentError:  # The folder itself is gone.
            self.forget()
            return []
        return found

    def _at(self, path: str, *, make: bool) -> str | None:
        with self._lock:
            if path in self._known:
                return self._known[path]
            if path:
                above, _, last = path.rpartition("/")
                parent = self._at(above, make=make)
                parts: Sequence[str] = [last]
            else:
                parent, parts = self._root(), self._path.split("/")
            for part in filter(None, parts):
                if parent is None:
                    return None
                parent = self._in(parent, part, make=make)
            if parent is not None:
                self._known[path] = parent
            return parent

    def _in(self, parent: str, name: str, *, make: bool) -> str | None:
        found = [f for f in self.named(name, parent) if f.is_folder]
        if found or not make:
            ages = sorted(found, key=lambda one: one.age)
            return ages[0].id if ages else None
        made = self._files.make_folder(
            self._files.new_id(), name, parent=parent
        )
        same = [f for f in self.named(name, parent) if f.is_folder]
        first = min([*same, made], key=lambda one: one.age)
        if first.id != made.id:  # Another was quicker; ours is empty.
            with contextlib.suppress(AbsentError):
                self._files.delete(made.id)
        return first.id

    def _root(self) -> str:
        """The id of the folder that has to be there."""
        name = self._folder
        kind = "mimeType = 'application/vnd.google-apps.folder'"
        base = f"name = {quoted(name)} and {kind} and trashed = false"
        for where in ("'root' in parents", "sharedWithMe"):
            found = [
                one
                for one in self._files.find(f"{base} and {where}")
                if one.name == name
            ]
            if found:
                return min(found, key=lambda one: one.age).id
        if drive := self._files.shared_drive(name):
            return drive
        if len(name) >= _LEAST_ID:
            with contextlib.suppress(AbsentError):
                one = self._files.get(name)
                if one.is_folder and not one.trashed:
                    return one.id
        raise StorageRefusedError(
            self._where,
            cause=f"there is no folder {name!r} in this account's Drive",
            advice=(
                "Make it, or share it with the account, or correct the "
                "address; the folders below it are made as they are needed."
            ),
        )
