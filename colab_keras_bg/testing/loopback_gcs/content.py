"""Bytes as the service keeps them, with the checksums that it states.

Invariant: content is never copied and never changes: composing strings the
pieces of its sources together, and combines their checksums.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

from colab_keras_bg.testing.loopback.answers import ApiError

__all__ = [
    "Content",
    "Expected",
    "Growing",
    "combined_crc32c",
    "composed",
    "content_of",
]

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected.
_ONE = 1 << 31  # x^0, reflected.
_BYTE = 1 << 23  # x^8: what one byte more multiplies a checksum by.


@dataclass(frozen=True)
class Content:
    """What an object holds.

    Attributes:
        pieces: Its bytes, in order.
        size_bytes: How many.
        crc32c: Their CRC-32C.
        component_count: How many uploads it was composed of; None if it was
            uploaded as it is.
    """

    pieces: tuple[bytes, ...] = field(repr=False)
    size_bytes: int
    crc32c: int
    component_count: int | None = None

    @property
    def stated_crc32c(self) -> str:
        """The CRC-32C as the service states it."""
        return _base64(self.crc32c.to_bytes(4, "big"))

    def stated_md5(self) -> str:
        """The MD5 as the service states it, computed anew."""
        hasher = hashlib.md5(usedforsecurity=False)
        for piece in self.pieces:
            hasher.update(piece)
        return _base64(hasher.digest())

    def slice(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """The bytes from one offset to before another, without copying."""
        offset = 0
        for piece in self.pieces:
            end = offset + len(piece)
            if end > start and offset < stop:
                view = memoryview(piece)
                yield view[max(0, start - offset) : stop - offset]
            offset = end


@dataclass(frozen=True)
class Expected:
    """The checksums that an uploader says its content has, if any."""

    crc32c: str | None = None
    md5: str | None = None

    @classmethod
    def stated_in(
        cls, header: str | None, fields: Mapping[str, Any]
    ) -> Expected:
        """Takes them from an `x-goog-hash` header and an object's fields."""
        stated = {"crc32c": fields.get("crc32c"), "md5": fields.get("md5Hash")}
        for part in (header or "").split(","):
            kind, _, value = part.strip().partition("=")
            stated[kind] = value
        return cls(stated["crc32c"], stated["md5"])

    def check(self, content: Content) -> None:
        """Compares.

        Raises:
            ApiError: 400, if they are not those of the content.
        """
        if self.crc32c and self.crc32c != content.stated_crc32c:
            raise ApiError.invalid(
                f'Provided CRC32C "{self.crc32c}" doesn\'t match calculated '
                f'CRC32C "{content.stated_crc32c}".'
            )
        if self.md5 and self.md5 != (md5 := content.stated_md5()):
            raise ApiError.invalid(
                f'Provided MD5 hash "{self.md5}" doesn\'t match calculated '
                f'MD5 hash "{md5}".'
            )


class Growing:
    """Content that is still coming in.

    Attributes:
        size_bytes: What has come.
    """

    def __init__(self) -> None:
        """Starts with none."""
        self.size_bytes = 0
        self._pieces: list[bytes] = []
        self._crc32c = 0

    def add(self, block: bytes) -> None:
        """Takes the next bytes."""
        self._pieces.append(block)
        self.size_bytes += len(block)
        self._crc32c = google_crc32c.extend(self._crc32c, block)

    def content(self) -> Content:
        """All that has come."""
        return Content(tuple(self._pieces), self.size_bytes, self._crc32c)


def content_of(blocks: Iterable[bytes]) -> Content:
    """All of what comes in, in blocks."""
    growing = Growing()
    for block in blocks:
        growing.add(block)
    return growing.content()


def composed(parts: Iterable[Content]) -> Content:
    """The parts one after the other."""
    pieces: list[bytes] = []
    size_bytes, crc32c, count = 0, 0, 0
    for part in parts:
        pieces += part.pieces
        size_bytes += part.size_bytes
        crc32c = combined_crc32c(crc32c, part.crc32c, part.size_bytes)
        count += part.component_count or 1
    return Content(tuple(pieces), size_bytes, crc32c, count)


def combined_crc32c(first: int, second: int, second_bytes: int) -> int:
    """The CRC-32C of two strings of bytes, one after the other.

    Args:
        first: That of the first.
        second: That of the second.
        second_bytes: How long the second is.
    """
    factor, square = _ONE, _BYTE
    while second_bytes:
        if second_bytes & 1:
            factor = _product(square, factor)
        square = _product(square, square)
        second_bytes >>= 1
    return _product(factor, first) ^ second


def _product(a: int, b: int) -> int:
    """The product of two polynomials modulo Castagnoli's, all reflected."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
