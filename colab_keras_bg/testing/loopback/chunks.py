"""How the bodies of uploads are put together, in requests and over them.

Invariant: what cannot be meant is answered with 400, before anything is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from colab_keras_bg.testing.loopback.answers import ApiError
from colab_keras_bg.testing.loopback.body import BLOCK_BYTES

__all__ = ["Chunk", "even", "json_object", "related_parts", "skipping"]

_RANGE = re.compile(r"bytes (?:\*|(\d+)-(\d+))/(?:\*|(\d+))")


class Chunk(NamedTuple):
    """Which bytes of a resumable upload a request carries.

    Attributes:
        start: The offset of the first; None if it carries none and asks.
        size_bytes: How many; None if that is not said.
        total: The size of the whole; None if that is not known.
    """

    start: int | None
    size_bytes: int | None
    total: int | None

    @classmethod
    def stated_in(cls, header: str | None) -> Chunk:
        """Takes it from a `Content-Range`; without one, it is the whole.

        Raises:
            ApiError: 400, if the header makes no sense.
        """
        if header is None:
            return cls(0, None, None)
        match = _RANGE.fullmatch(header.strip())
        if not match:
            raise ApiError.invalid(f"Invalid Content-Range: {header!r}")
        first, last, total = (
            None if g is None else int(g) for g in match.groups()
        )
        if first is None or last is None:
            return cls(None, 0, total)
        if last < first or (total is not None and last >= total):
            raise ApiError.invalid(f"Invalid Content-Range: {header!r}")
        return cls(first, last - first + 1, total)

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        if self.start is None:
            return False
        return self.size_bytes is None or (
            self.start + self.size_bytes == self.total
        )


def json_object(text: bytes) -> dict[str, Any]:
    """The JSON object that a body is; an empty one if there is none.

    Raises:
        ApiError: 400, if it is something else.
    """
    try:
        value = json.loads(text or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ApiError.invalid("Parse Error: a JSON object is expected.")
    return value


def related_parts(
    content_type: str, text: bytes
) -> tuple[dict[str, Any], str | None, bytes]:
    """The parts of a multipart upload.

    Args:
        content_type: The request's, with the boundary.
        text: The request's body.

    Returns:
        The object's metadata, the media type of its content, its content.

    Raises:
        ApiError: 400, if it is not of that form.
    """
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    mark = b"--" + (found[1].encode() if found else b"")
    # Some clients end lines as files do; the services take both.
    line = b"\r\n" if mark + b"\r\n" in text else b"\n"
    parts = (line + text).split(line + mark, 2)
    content, end, _ = parts[-1].rpartition(line + mark + b"--")
    if not found or len(parts) < 3 or not end:
        raise ApiError.invalid("A multipart body of two parts is expected.")
    _, _, fields = parts[1].partition(line + line)
    head, _, media = content.partition(line + line)
    media_type = re.search(rb"(?im)^content-type:\s*(.+?)\s*$", head)
    return (
        json_object(fields),
        media_type[1].decode() if media_type else None,
        media,
    )


def skipping(blocks: Iterable[bytes], skip_bytes: int) -> Iterator[bytes]:
    """Blocks without their first bytes: those that were kept before."""
    for block in blocks:
        kept = block[skip_bytes:] if skip_bytes else block
        skip_bytes = max(0, skip_bytes - len(block))
        if kept:
            yield kept


def even(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Blocks in pieces of `BLOCK_BYTES`; only one that ends well ends odd."""
    held = b""
    for block in blocks:
        held = held + block if held else block
        while len(held) >= BLOCK_BYTES:
            yield held[:BLOCK_BYTES]
            held = held[BLOCK_BYTES:]
    if held:
        yield held
