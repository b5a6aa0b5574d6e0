"""A storage in memory: the most awkward that keeps the promise.

Invariant: it allows nothing that the interface does not promise: it lists
backwards, hands out copies and consumes its chunks before it looks at the
name.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from colab_keras_bg.errors import (
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
)
from colab_keras_bg.storage.interface import (
    Capabilities,
    ObjectInfo,
    Storage,
    check_name,
    check_prefix,
)

__all__ = ["MemoryStorage"]


class MemoryStorage(Storage):
    """Keeps objects in a dictionary, for tests."""

    def __init__(self) -> None:
        """Starts empty."""
        self._objects: dict[str, bytes] = {}
        self._lock = threading.RLock()

    @property
    def capabilities(self) -> Capabilities:
        """It survives nothing and copies every read."""
        return Capabilities(survives_machine=False, mapped_reads=False)

    def describe(self) -> str:
        """It has no address."""
        return "memory"

    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        """See `Storage.create`."""
        content = b"".join(bytes(chunk) for chunk in chunks)
        with self._lock:
            if check_name(name) in self._objects:
                raise ObjectExistsError(name, where=self.describe())
            return self.replace(name, content)

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        with self._lock:
            self._objects[check_name(name)] = bytes(content)
            return self.info(name)

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`."""
        with self._lock:
            if self._objects.get(check_name(name)) not in (expected, content):
                raise ConflictError(name, where=self.describe())
            return self.replace(name, content)

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`."""
        with self._lock:
            before = self._objects.get(check_name(name), b"")
            if before[at:] == content and len(before) == at + len(content):
                return self.replace(name, before)
            if len(before) != at:
                raise ConflictError(name, where=self.describe())
            return self.replace(name, before + content)

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        try:
            return self._objects[check_name(name)]
        except KeyError:
            raise ObjectNotFoundError(name, where=self.describe()) from None

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        return self.read(name)[start : start + size_bytes]

    def map(self, name: str) -> memoryview:
        """See `Storage.map`."""
        return memoryview(self.read(name))

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        with self._lock:
            return ObjectInfo(name, size_bytes=len(self.read(name)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        check_prefix(prefix)
        for name, content in sorted(self._objects.items(), reverse=True):
            if name.startswith(prefix):
                yield ObjectInfo(name, size_bytes=len(content))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        with self._lock:
            self.read(name)
            del self._objects[name]
