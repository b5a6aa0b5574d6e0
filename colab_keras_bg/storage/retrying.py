"""A storage that tries again what may succeed the next time.

Invariant: an answer that was lost is not taken for a failure. What a second
try finds done already is compared with what was asked, and is success if it
is that. What waits for a person (`StorageRefusedError`) is raised at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import google_crc32c

from colab_keras_bg.errors import (
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage.interface import Capabilities, ObjectInfo, Storage

__all__ = ["Backoff", "RetryingStorage"]

_T = TypeVar("_T")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Backoff:
    """How long to wait between tries.

    Attributes:
        first_secs: At most so long before the second try; then twice that.
        most_secs: Never longer than this.
        deadline_secs: No try begins later than this after the first.
    """

    first_secs: float = 0.5
    most_secs: float = 16.0
    deadline_secs: float = 120.0

    def waits(self, draw: random.Random) -> Iterator[float]:
        """The seconds before each further try: full jitter.

        Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        bound = self.first_secs
        while True:
            yield draw.uniform(0, bound)
            bound = min(2 * bound, self.most_secs)


class RetryingStorage(Storage):
    """Tries each call of another storage until a deadline."""

    def __init__(
        self,
        storage: Storage,
        *,
        backoff: Backoff = Backoff(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        seed: int | None = None,
    ) -> None:
        """Wraps a storage.

        Args:
            storage: The one that does the work.
            backoff: How long to wait between tries.
            clock: Seconds that only grow.
            sleep: Waits so many seconds; may raise to give up.
            seed: What the waits are drawn from; the system's if None.
        """
        self._storage = storage
        self._backoff = backoff
        self._clock, self._sleep = clock, sleep
        self._draw = random.Random(seed)  # noqa: S311 - no secret

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
        """See `Storage.create`.

        What can be read only once, as a generator, is tried only once.
        """
        if isinstance(chunks, Iterator):
            return self._storage.create(name, chunks)
        return self._created(
            name, chunks, lambda: self._storage.create(name, chunks)
        )

    def upload(self, name: str, path: Path) -> ObjectInfo:
        """See `Storage.upload`."""
        return self._created(
            name, _Blocks(path), lambda: self._storage.upload(name, path)
        )

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        return self._tried(lambda _: self._storage.replace(name, content))

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`; a second try knows its own first."""
        return self._tried(
            lambda _: self._storage.swap(name, content, expected=expected)
        )

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`; a second try knows its own first."""
        return self._tried(lambda _: self._storage.append(name, content, at=at))

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        return self._tried(lambda _: self._storage.read(name))

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        return self._tried(
            lambda _: self._storage.read_range(name, start, size_bytes)
        )

    def map(self, name: str) -> memoryview:
        """See `Storage.map`."""
        return self._tried(lambda _: self._storage.map(name))

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        return self._tried(lambda _: self._storage.info(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`; begun anew if it breaks, each object once."""
        seen: set[str] = set()

        def rest() -> Iterator[ObjectInfo]:
            for info in self._storage.list(prefix):
                if info.name not in seen:
                    seen.add(info.name)
                    yield info

        listing = rest()
        end = object()

        def following(again: bool) -> ObjectInfo | object:
            nonlocal listing
            if again:  # What raised has ended.
                listing = rest()
            return next(listing, end)

        while (found := self._tried(following)) is not end:
            assert isinstance(found, ObjectInfo)  # noqa: S101 - or the end
            yield found

    def delete(self, name: str) -> None:
        """See `Storage.delete`; gone at a second try is deleted."""

        def delete(again: bool) -> None:
            try:
                self._storage.delete(name)
            except ObjectNotFoundError:
                if not again:
                    raise

        self._tried(delete)

    def close(self) -> None:
        """See `Storage.close`."""
        self._storage.close()

    def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`."""
        return self._storage.free_bytes()

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """See `Storage.sweep`."""
        return self._tried(lambda _: self._storage.sweep(prefix))

    def _created(
        self,
        name: str,
        chunks: Iterable[bytes | memoryview],
        create: Callable[[], ObjectInfo],
    ) -> ObjectInfo:
        def tried(again: bool) -> ObjectInfo:
            try:
                return create()
            except ObjectExistsError:
                if again and self._holds(name, chunks):
                    return self._storage.info(name)
                raise

        return self._tried(tried)

    def _holds(self, name: str, chunks: Iterable[bytes | memoryview]) -> bool:
        """Whether an object is what we have sent."""
        found = self._storage.info(name)
        if found.crc32c is not None:
            crc32c, size_bytes = 0, 0
            for chunk in chunks:
                crc32c = google_crc32c.extend(crc32c, bytes(chunk))
                size_bytes += len(chunk)
            return (f"{crc32c:08x}", size_bytes) == (
                found.crc32c,
                found.size_bytes,
            )
        place = 0
        for chunk in chunks:
            if self._storage.read_range(name, place, len(chunk)) != chunk:
                return False
            place += len(chunk)
        return found.size_bytes == place

    def _tried(self, call: Callable[[bool], _T]) -> _T:
        """Calls until it succeeds; tells it whether it was called before."""
        begun = self._clock()
        again = False
        for wait_secs in self._backoff.waits(self._draw):
            try:
                return call(again)
            except (StorageRefusedError, ConflictError):
                raise
            except StorageUnavailableError:
                used = self._clock() - begun
                if used + wait_secs > self._backoff.deadline_secs:
                    raise
            again = True
            self._sleep(wait_secs)
        raise AssertionError("the waits have no end")


class _Blocks:
    """A file's content in blocks, as often as it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            yield from iter(lambda: file.read(_BLOCK_BYTES), b"")
