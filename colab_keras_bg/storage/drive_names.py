"""Which files of Google Drive the names of a run mean.

Invariant: of several files of one name the oldest counts, for everybody. That
there is none is only said while the folder that would hold it is there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from colab_keras_bg.errors import StorageUnavailableError
from colab_keras_bg.storage.drive_errors import AbsentError
from colab_keras_bg.storage.drive_files import DriveFiles
from colab_keras_bg.storage.drive_folders import BELIEVED_SECS, DriveFolders
from colab_keras_bg.storage.drive_found import Found, any_of
from colab_keras_bg.storage.interface import is_name

__all__ = ["DriveNames"]

_FOLDERS_AT_ONCE = 20  # A longer query would not stand in an address.
_TRIES = 3
_Level = dict[str, list[Found]]


class DriveNames:
    """Finds files by name; threads may share it."""

    def __init__(
        self,
        files: DriveFiles,
        folders: DriveFolders,
        where: str,
        *,
        clock: Callable[[], float],
    ) -> None:
        """Knows nothing yet.

        Args:
            files: Asks Drive.
            folders: Knows where folders are.
            where: The storage, for people.
            clock: Seconds that only grow.
        """
        self._files, self._folders = files, folders
        self._where, self._clock = where, clock
        self._known: dict[str, tuple[Found, float]] = {}
        self._lock = threading.Lock()

    def known(self, name: str) -> Found | None:
        """What a name meant less than a minute ago, without asking."""
        found, at = self._known.get(name, (None, 0.0))
        return found if self._clock() - at < BELIEVED_SECS else None

    def learn(self, name: str, found: Found, *, listed: bool = False) -> None:
        """Takes note of what a name means now.

        Args:
            name: The name.
            found: The file.
            listed: Whether a list has shown that no older one has the name.
        """
        with self._lock:
            known, at = self._known.get(name, (None, 0.0))
            if listed or known is None or known.id != found.id:
                at = self._clock()
            self._known[name] = found, at

    def forget(self, name: str | None = None) -> None:
        """Forgets what a name means; or where anything is."""
        with self._lock:
            if name is not None:
                self._known.pop(name, None)
                return
            self._known.clear()
        self._folders.forget()

    def find(self, name: str, *, surely: bool = True) -> Found | None:
        """The file of a name as it is now; None if there is none.

        Args:
            name: The name.
            surely: Whether it matters that there is none.

        Raises:
            StorageRefusedError: If the first folder is not there.
        """
        if known := self.known(name):
            if found := self._again(known):
                self.learn(name, found)
                return found
            self.forget(name)
        same = self.all(name, surely=surely)
        if not same:
            return None
        self.learn(name, same[0], listed=True)
        return same[0]

    def all(self, name: str, *, surely: bool = True) -> Sequence[Found]:
        """All files of a name, the oldest first.

        Args:
            name: The name.
            surely: Whether it matters that there is none.
        """
        path, _, last = name.rpartition("/")
        for _ in range(_TRIES):
            with contextlib.suppress(AbsentError):
                found = self._in(self._folders.at(path), last)
                known, _ = self._known.get(name, (None, 0.0))
                # Lists may not show yet what we have made.
                if known and known.id not in (one.id for one in found):
                    found += filter(None, [self._again(known)])
                if found or not surely:
                    return sorted(found, key=lambda one: one.age)
                if self._folders.are_there(path):
                    return []
            self.forget()
        raise self._changing()

    def below(self, prefix: str) -> Iterator[tuple[str, Sequence[Found]]]:
        """All names that begin with a prefix, with all of their files.

        Args:
            prefix: The beginning of a name.
        """
        path = prefix.rpartition("/")[0]
        for _ in range(_TRIES):
            some = False
            ids = self._folders.at(path)
            level = dict.fromkeys(ids, f"{path}/" if path else "")
            while level:
                files, folders = self._listed(level)
                for name, found in files.items():
                    if name.startswith(prefix):
                        some = True
                        yield name, found
                level = {}
                for name, found in folders.items():
                    inner = f"{name}/"
                    if inner.startswith(prefix) or prefix.startswith(inner):
                        level |= dict.fromkeys((f.id for f in found), inner)
            if some or self._folders.are_there(path):
                return
        raise self._changing()

    def _in(self, parents: Sequence[str], name: str) -> list[Found]:
        if not parents:
            return []
        found = self._folders.named(name, parents)
        return [one for one in found if one.size_bytes is not None]

    def _again(self, known: Found) -> Found | None:
        """The same file as it is now; None if it was moved or removed."""
        try:
            found = self._files.get(known.id)
        except AbsentError:
            return None
        is_same = (found.name, found.parent) == (known.name, known.parent)
        return found if is_same and not found.trashed else None

    def _listed(self, level: Mapping[str, str]) -> tuple[_Level, _Level]:
        """Files and folders in some folders, by name, the oldest first."""
        files: _Level = {}
        folders: _Level = {}
        ids = list(level)
        for start in range(0, len(ids), _FOLDERS_AT_ONCE):
            some = any_of(ids[start : start + _FOLDERS_AT_ONCE])
            try:
                for found in self._files.find(f"{some} and trashed = false"):
                    name = level.get(found.parent, "") + found.name
                    if found.parent in level and _is_part(found.name):
                        if found.is_folder:
                            folders.setdefault(name, []).append(found)
                        elif found.size_bytes is not None:
                            files.setdefault(name, []).append(found)
            except AbsentError:
                self.forget()
                raise self._changing() from None
        for same in (*files.values(), *folders.values()):
            same.sort(key=lambda one: one.age)
        for name, same in folders.items():
            self._folders.know(name, *(one.id for one in same))
        return files, folders

    def _changing(self) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"folders of {self._where} were removed while they were read"
        )


def _is_part(name: str) -> bool:
    """Whether a name is one of ours; on Drive it may hold a `/`."""
    return is_name(name) and "/" not in name
