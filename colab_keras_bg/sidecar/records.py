"""The small files of a run, as they were last.

Invariant: a file is sent only when it has changed, and never more than one
write a second goes to one name: object stores refuse more. `DONE` goes last.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from colab_keras_bg.errors import ObjectNotFoundError
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage

__all__ = ["ShippedRecords"]

_RUN = "run.json"
_NAMES = (_RUN, "status.json", "report.html")
_ATTEMPT = re.compile(r"attempts/[0-9]{4,9}/attempt\.json")
_DONE = "DONE"


class ShippedRecords:
    """Ships what is rewritten as a whole."""

    def __init__(self, spool: LocalStorage, remote: Storage) -> None:
        """Takes both ends.

        Args:
            spool: The local end.
            remote: The far end.
        """
        self._spool, self._remote = spool, remote
        self._there: dict[str, bytes | None] = {}

    def lacks_run(self) -> bool:
        """Whether the file that is to be there before any other is not."""
        return self._there.get(_RUN) is None and self._spool.exists(_RUN)

    def ship(self, *, but_for: Sequence[str] = ()) -> None:
        """Sends what has changed.

        Args:
            but_for: Names that are left for later.

        Raises:
            StorageError: If something cannot be sent now.
        """
        for name in self._names():
            if name not in but_for:
                self._ship(name)
        if _DONE not in but_for:
            self._ship(_DONE)
        elif not self._spool.exists(_DONE):
            self._ship(_DONE)  # It is not done after all.

    def _names(self) -> Iterator[str]:
        yield from _NAMES
        for info in self._spool.list("attempts/"):
            if _ATTEMPT.fullmatch(info.name):
                yield info.name

    def _ship(self, name: str) -> None:
        try:
            content: bytes | None = self._spool.read(name)
        except ObjectNotFoundError:
            content = None
        if name not in self._there:
            self._there[name] = self._look(name)
        if content == self._there[name]:
            return
        known = self._there.pop(name)
        if content is not None:
            self._remote.replace(name, content)
        elif known is not None and name == _DONE:
            with contextlib.suppress(ObjectNotFoundError):
                self._remote.delete(name)
        self._there[name] = content

    def _look(self, name: str) -> bytes | None:
        try:
            return self._remote.read(name)
        except ObjectNotFoundError:
            return None
