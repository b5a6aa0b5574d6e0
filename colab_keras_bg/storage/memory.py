"""A storage in memory: the most awkward that keeps the promise.

Invariant: it allows nothing that the interface does not promise: it lists
backwards, hands out copies and consumes its chunks before it looks at the
name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from colab_keras_bg.errors import ObjectExistsError, ObjectNotFoundError
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
        if check_name(name) in self._objects:
            raise ObjectExistsError(name, where=self.describe())
        return self.replace(name, content)

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        self._objects[check_name(name)] = bytes(content)
        return self.info(name)

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        try:
            return self._objects[check_name(name)]
        except KeyError:
            raise ObjectNotFoundError(name, where=self.describe()) from None

    def map(self, name: str) -> memoryview:
        """See `Storage.map`."""
        return memoryview(self.read(name))

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        return ObjectInfo(name, size_bytes=len(self.read(name)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        check_prefix(prefix)
        for name, content in sorted(self._objects.items(), reverse=True):
            if name.startswith(prefix):
                yield ObjectInfo(name, size_bytes=len(content))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self.read(name)
        del self._objects[name]
