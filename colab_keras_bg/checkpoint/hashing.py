"""Checksums of what is written, taken while it is written.

Invariant: content is compared by 128 bits (xxh3), and carries the crc32c
that object stores compute themselves, so that both ends can be compared
without reading back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import xxhash

__all__ = [
    "BLOCK_BYTES",
    "Digest",
    "Hasher",
    "blocks",
    "content_hash",
    "tensor_hash",
]

# Small, so that no thread waits long for the interpreter.
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Digest:
    """The size and checksums of a file.

    Attributes:
        size_bytes: Its size.
        crc32c: Its CRC-32C (Castagnoli), 8 hexadecimal digits.
        xxh3_128: Its XXH3 hash of 128 bits, 32 hexadecimal digits.
    """

    size_bytes: int
    crc32c: str
    xxh3_128: str


class Hasher:
    """Computes a `Digest` of chunks as they pass by."""

    def __init__(self) -> None:
        """Starts with no content."""
        self._size_bytes = 0
        self._crc32c = 0
        self._xxh3_128 = xxhash.xxh3_128()

    def update(self, chunk: bytes | memoryview) -> None:
        """Adds a chunk of bytes."""
        self._size_bytes += len(chunk)
        self._crc32c = google_crc32c.extend(self._crc32c, _buffer(chunk))
        self._xxh3_128.update(chunk)

    def passing(
        self, chunks: Iterable[bytes | memoryview]
    ) -> Iterator[bytes | memoryview]:
        """Hands chunks on, adding each."""
        for chunk in chunks:
            self.update(chunk)
            yield chunk

    def digest(self) -> Digest:
        """The digest of all chunks so far."""
        return Digest(
            size_bytes=self._size_bytes,
            crc32c=f"{self._crc32c:08x}",
            xxh3_128=self._xxh3_128.hexdigest(),
        )


def _buffer(chunk: bytes | memoryview) -> Any:
    """What the C function takes: bytes, or an array, but no memoryview."""
    if isinstance(chunk, bytes):
        return chunk
    import numpy as np  # Who only ships files does without.

    return np.frombuffer(chunk, dtype=np.uint8)


def blocks(data: bytes | memoryview) -> Iterator[memoryview]:
    """Cuts bytes into blocks that are hashed and written in one go each."""
    view = memoryview(data)
    for start in range(0, len(view), BLOCK_BYTES):
        yield view[start : start + BLOCK_BYTES]


def content_hash(data: bytes | memoryview) -> str:
    """The XXH3 hash of 128 bits, as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def tensor_hash(dtype: str, shape: tuple[int, ...], data: memoryview) -> str:
    """The XXH3 hash of 128 bits of what a tensor is, and of its bytes.

    Args:
        dtype: Its dtype's name in the file.
        shape: Its shape.
        data: Its bytes.
    """
    hasher = xxhash.xxh3_128(f"{dtype}{list(shape)}\n".encode())
    hasher.update(data)
    return hasher.hexdigest()
