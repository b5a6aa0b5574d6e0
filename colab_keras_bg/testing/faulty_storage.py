"""A storage of which chosen calls fail, before or after they had their effect.

Invariant: what it says is what happened, or nothing is said: a call that
raises may have been carried out, as with a network. It passes everything on
to another storage, and numbers the calls that go to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from colab_keras_bg.errors import StorageUnavailableError
from colab_keras_bg.storage.interface import Capabilities, ObjectInfo, Storage

__all__ = ["FaultyStorage"]

_T = TypeVar("_T")


class FaultyStorage(Storage):
    """Passes calls on, but for those that a test wants to fail.

    Attributes:
        calls: The calls so far: each method's name with the object's.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        fails: Callable[[int, str], str | None] = lambda number, call: None,
        error: Callable[[], BaseException] | None = None,
    ) -> None:
        """Takes the storage that does the work.

        Args:
            storage: Does the work.
            fails: Asked with each call's number and text, such as `"create
                a/b"`: `"before"` or `"after"` its effect, or None.
            error: Makes what is raised; a `StorageUnavailableError` if None.
        """
        self._storage = storage
        self.fails = fails
        self._error = error or (
            lambda: StorageUnavailableError("the network is gone")
        )
        self._lock = threading.Lock()
        self.calls: list[str] = []

    @property
    def capabilities(self) -> Capabilities:
        """Those of the storage that does the work."""
        return self._storage.capabilities

    def describe(self) -> str:
        """See `Storage.describe`."""
        return self._storage.describe()

    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        """See `Storage.create`."""
        return self._call(
            f"create {name}", lambda: self._storage.create(name, chunks)
        )

    def upload(self, name: str, path: Path) -> ObjectInfo:
        """See `Storage.upload`."""
        return self._call(
            f"upload {name}", lambda: self._storage.upload(name, path)
        )

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        return self._call(
            f"replace {name}", lambda: self._storage.replace(name, content)
        )

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`."""
        return self._call(
            f"swap {name}",
            lambda: self._storage.swap(name, content, expected=expected),
        )

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`."""
        return self._call(
            f"append {name}",
            lambda: self._storage.append(name, content, at=at),
        )

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        return self._call(f"read {name}", lambda: self._storage.read(name))

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        return self._call(
            f"read_range {name}",
            lambda: self._storage.read_range(name, start, size_bytes),
        )

    def map(self, name: str) -> memoryview:
        """See `Storage.map`."""
        return self._call(f"map {name}", lambda: self._storage.map(name))

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        return self._call(f"info {name}", lambda: self._storage.info(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`; fails when it is begun to be read."""
        yield from self._call(
            f"list {prefix}", lambda: self._storage.list(prefix)
        )

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self._call(f"delete {name}", lambda: self._storage.delete(name))

    def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`; never fails."""
        return self._storage.free_bytes()

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """See `Storage.sweep`."""
        return self._call(
            f"sweep {prefix}", lambda: self._storage.sweep(prefix)
        )

    def _call(self, call: str, work: Callable[[], _T]) -> _T:
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
        fault = self.fails(number, call)
        if fault == "before":
            raise self._error()
        done = work()
        if fault == "after":
            raise self._error()
        return done
