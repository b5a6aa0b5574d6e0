"""Where the folders of a run lie in Google Drive.

Invariant: of several folders of one name in one folder all are read, and the
oldest is written into, by everybody. So what was written while lists did not
show yet that there is a folder is not lost. Where a folder lies is not
believed for longer than a minute.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence

from colab_keras_bg.errors import StorageRefusedError
from colab_keras_bg.storage.drive_errors import AbsentError
from colab_keras_bg.storage.drive_files import DriveFiles
from colab_keras_bg.storage.drive_found import FOLDER, Found, any_of, quoted

__all__ = ["BELIEVED_SECS", "DriveFolders"]

BELIEVED_SECS = 60.0

_IS_FOLDER = f"mimeType = {quoted(FOLDER)} and trashed = false"
# No name is as long as an id, or few are.
_LEAST_ID = 19


class DriveFolders:
    """The folders below one that has to be there."""

    def __init__(
        self,
        files: DriveFiles,
        where: str,
        folder: str,
        path: str,
        *,
        clock: Callable[[], float],
    ) -> None:
        """Takes an address; nothing is asked yet.

        Args:
            files: Asks Drive.
            where: The storage, for people.
            folder: The name, or the id, of the folder that has to be there.
            path: Where the storage lies below it; names with `/` between.
            clock: Seconds that only grow.
        """
        self._files, self._where = files, where
        self._folder, self._path = folder, path
        self._clock = clock
        # Ids and when they were found, by paths below the first folder.
        self._known: dict[str, tuple[tuple[str, ...], float]] = {}
        self._lock = threading.RLock()

    def at(self, path: str) -> tuple[str, ...]:
        """The ids of the folders at a path, the oldest first.

        Args:
            path: Names with `/` between, in the storage; empty for its own.

        Returns:
            Those ids; none if there is no such folder.

        Raises:
            StorageRefusedError: If the first folder is not there.
        """
        with self._lock:
            return self._at(self._whole(path), make=False)

    def made(self, path: str) -> tuple[str, ...]:
        """The same; made, with those above it, if it is not there."""
        with self._lock:
            return self._at(self._whole(path), make=True)

    def know(self, path: str, *ids: str) -> None:
        """Takes note of what a list has shown, the oldest first."""
        with self._lock:
            self._known[self._whole(path)] = ids, self._clock()

    def forget(self) -> None:
        """Looks for all of them anew: somebody has moved or deleted them."""
        with self._lock:
            self._known.clear()

    def are_there(self, path: str) -> bool:
        """Whether it still holds what is known of a path.

        What is not found in a folder that somebody has removed may lie in one
        that was made since. If so, what was known is forgotten.

        Args:
            path: Names with `/` between, in the storage.
        """
        with self._lock:
            path = self._whole(path)
            while path and path not in self._known:
                path = path.rpartition("/")[0]
            ids, _ = self._known.get(path, ((), 0.0))
            # What lies in a folder in the trash is in the trash, too.
            if ids and all(self._is_there(id) for id in ids):
                return True
            self._known.clear()
            return False

    def named(self, name: str, parents: Sequence[str]) -> list[Found]:
        """What is called so in some folders: files and folders.

        Args:
            name: The name.
            parents: The folders' ids.

        Raises:
            AbsentError: If none of them is there.
        """
        try:
            return self._named(name, parents)
        except AbsentError:
            if len(parents) == 1:
                raise
        # A younger one was taken back; what lies in the others is there.
        there = []
        for parent in parents:
            with contextlib.suppress(AbsentError):
                there.append(self._named(name, [parent]))
        if not there:
            raise AbsentError(name)
        return list(itertools.chain(*there))

    def _named(self, name: str, parents: Sequence[str]) -> list[Found]:
        query = f"name = {quoted(name)} and {any_of(parents)}"
        found = self._files.find(f"{query} and trashed = false")
        # Drive may compare names without regard to case.
        return [one for one in found if one.name == name]

    def _whole(self, path: str) -> str:
        return "/".join(part for part in (self._path, path) if part)

    def _is_there(self, id: str) -> bool:
        try:
            return not self._files.get(id).trashed
        except AbsentError:
            return False

    def _at(self, path: str, *, make: bool) -> tuple[str, ...]:
        before, found_at = self._known.get(path, ((), 0.0))
        if before and self._clock() - found_at < BELIEVED_SECS:
            return before
        above, _, name = path.rpartition("/")
        if not path:
            found: tuple[str, ...] = (self._root(),)
        elif parents := self._at(above, make=make):
            found = self._in(parents, name, before)
            if not found and make:
                found = self._made(parents, name)
                # To be looked at again: another may have made one meanwhile.
                self._known[path] = found, self._clock() - BELIEVED_SECS
                return found
        else:
            return ()
        if found:
            self._known[path] = found, self._clock()
        return found

    def _in(
        self, parents: Sequence[str], name: str, before: Sequence[str]
    ) -> tuple[str, ...]:
        found = self._listed(parents, name)
        for id in set(before) - found.keys():
            # Lists may not show yet what we have made.
            with contextlib.suppress(AbsentError):
                one = self._files.get(id)
                if not one.trashed and one.name == name:
                    found[id] = one
        return tuple(one.id for one in sorted(found.values(), key=_age))

    def _made(self, parents: Sequence[str], name: str) -> tuple[str, ...]:
        id = self._files.new_id()
        made = self._files.make_folder(id, name, parent=parents[0])
        try:
            found = {id: made, **self._listed(parents, name)}
        except AbsentError:
            self._take_back(id)
            raise
        is_oldest = id == min(found.values(), key=_age).id
        # Another was quicker. All are read, but a person would see two.
        if not is_oldest and self._take_back(id):
            del found[id]
        return tuple(one.id for one in sorted(found.values(), key=_age))

    def _take_back(self, id: str) -> bool:
        """Deletes a folder that we have made, if nothing lies in it."""
        query = f"{any_of([id])} and trashed = false"
        with contextlib.suppress(AbsentError):
            if any(True for _ in self._files.find(query)):
                return False
            self._files.delete(id)
        return True

    def _listed(self, parents: Sequence[str], name: str) -> dict[str, Found]:
        return {
            one.id: one for one in self.named(name, parents) if one.is_folder
        }

    def _root(self) -> str:
        """The id of the folder that has to be there."""
        name = self._folder
        query = f"name = {quoted(name)} and {_IS_FOLDER}"
        if mine := self._called(name, f"{query} and 'root' in parents"):
            return self._within_drive(min(mine, key=_age))
        shared = self._called(name, f"{query} and sharedWithMe")
        if len(shared) > 1:
            raise StorageRefusedError(
                self._where,
                cause=f"{len(shared)} folders {name!r} are shared with you",
                advice=(
                    "Give the id of the one that is meant, which its address "
                    "in the browser ends with."
                ),
            )
        if shared:
            return self._within_drive(shared[0])
        if drive := self._files.shared_drive(name):
            self._files.drive = drive
            return drive
        if len(name) >= _LEAST_ID:
            with contextlib.suppress(AbsentError):
                one = self._files.get(name)
                if one.is_folder and not one.trashed:
                    return self._within_drive(one)
        raise StorageRefusedError(
            self._where,
            cause=f"there is no folder {name!r} in this account's Drive",
            advice=(
                "Make it, or share it with the account, or correct the "
                "address; the folders below it are made as they are needed."
            ),
        )

    def _called(self, name: str, query: str) -> list[Found]:
        found = self._files.find(query, everywhere=True)
        return [one for one in found if one.name == name]

    def _within_drive(self, folder: Found) -> str:
        self._files.drive = folder.drive
        return folder.id


def _age(found: Found) -> tuple[str, str]:
    return found.age
