"""The server as a test uses it.

Invariant: its files outlive its network: `stop` and `start` change what can
be reached, never what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from colab_keras_bg.testing.loopback.faults import Faults
from colab_keras_bg.testing.loopback.process import SpawnedServer
from colab_keras_bg.testing.loopback.server import LoopbackServer
from colab_keras_bg.testing.loopback_drive.files import (
    FOLDER,
    Files,
    StoredFile,
)
from colab_keras_bg.testing.loopback_drive.service import Service

__all__ = ["LoopbackDrive", "SpawnedLoopbackDrive"]

_ENDPOINT = "COLAB_KERAS_BG_DRIVE_ENDPOINT"


class LoopbackDrive(LoopbackServer):
    """A server of the Drive API on 127.0.0.1, in threads of this process.

    A context manager: it listens from `__enter__` to `__exit__`.

    Attributes:
        faults: What goes wrong.
    """

    def __init__(
        self,
        folders: Iterable[str] = (),
        *,
        shared: Iterable[str] = (),
        drives: Iterable[str] = (),
        port: int = 0,
        faults: Faults | None = None,
        quota_bytes: int | None = None,
        owns_space: bool = True,
        visible_after_secs: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes a port, and does not listen yet.

        Args:
            folders: Folders of My Drive that there are.
            shared: Folders of others that are shared with this account.
            drives: Shared drives.
            port: The port; any free one if 0.
            faults: What goes wrong; nothing if None.
            quota_bytes: How much may be kept, the trash included; None for
                as much as there is.
            owns_space: Whether files may be kept outside shared drives; a
                service account has no space of its own.
            visible_after_secs: How long after it was made a file shows in
                lists.
            clock: The time, as seconds since 1970.
        """
        self._files = Files(
            quota_bytes=quota_bytes,
            visible_after_secs=visible_after_secs,
            clock=clock,
        )
        for name in folders:
            self.add_folder(name)
        for name in shared:
            self._files.add(StoredFile("", name, FOLDER, shared=True))
        made = {
            name: self._files.add(StoredFile("", name, FOLDER)).id
            for name in drives
        }
        self._service = Service(self._files, drives=made, owns_space=owns_space)
        super().__init__(self._service, port=port, faults=faults)

    @staticmethod
    def spawn(*arguments: str) -> SpawnedLoopbackDrive:
        """Starts one in a process of its own.

        Args:
            *arguments: Of `python -m colab_keras_bg.testing.loopback_drive`.
        """
        return SpawnedLoopbackDrive(*arguments)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that lead our Drive storage here."""
        return {_ENDPOINT: self.url}

    @property
    def quota_bytes(self) -> int | None:
        """How much may be kept; may be set."""
        return self._files.quota_bytes

    @quota_bytes.setter
    def quota_bytes(self, quota_bytes: int | None) -> None:
        self._files.quota_bytes = quota_bytes

    def accept(self, *tokens: str) -> None:
        """Answers only requests that carry one of these bearer tokens."""
        self._service.tokens = set(tokens)

    def files(self) -> Mapping[str, StoredFile]:
        """Files by their paths below My Drive, as they are now.

        Of several of one name it is the oldest.
        """
        return self._files.tree()

    def at(self, path: str) -> list[StoredFile]:
        """All files and folders of one path below My Drive.

        Args:
            path: Names with `/` between.
        """
        return self._files.at(path)

    def add_folder(self, name: str, *, parent: str = "root") -> StoredFile:
        """Makes a folder, as a person does in the browser.

        Args:
            name: Its name.
            parent: The id of the folder that it lies in.
        """
        where = self._files.get(parent).id
        return self._files.add(StoredFile("", name, FOLDER, where))

    def add_file(
        self,
        name: str,
        content: bytes | None,
        *,
        parent: str = "root",
        mime_type: str = "application/octet-stream",
    ) -> StoredFile:
        """Makes a file, beside others of its name.

        Args:
            name: Its name.
            content: Its bytes; None of a document of Google's.
            parent: The id of the folder that it lies in.
            mime_type: Its media type.
        """
        where = self._files.get(parent).id
        return self._files.add(StoredFile("", name, mime_type, where, content))

    def trash(self, id: str) -> None:
        """Puts a file or a folder in the trash, as a person does."""
        self._files.change(id, trashed=True)

    def delete(self, id: str) -> None:
        """Removes a file or a folder for good."""
        self._files.delete(id)


class SpawnedLoopbackDrive(SpawnedServer):
    """A `LoopbackDrive` in another process, until it is closed."""

    def __init__(self, *arguments: str) -> None:
        """Starts it.

        Args:
            *arguments: Of `python -m colab_keras_bg.testing.loopback_drive`.

        Raises:
            RuntimeError: If it does not start.
        """
        super().__init__("colab_keras_bg.testing.loopback_drive", *arguments)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that lead our Drive storage there."""
        return {_ENDPOINT: self.url}
