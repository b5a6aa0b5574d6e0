"""Uploads in one request, with metadata, and resumable.

Invariant: an object shows when the last byte of its upload has come, its
checksums are right and its preconditions hold, and not before. Until then a
resumable upload keeps whole multiples of 256 KiB of what came.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from colab_keras_bg.testing.loopback_gcs.answers import ApiError
from colab_keras_bg.testing.loopback_gcs.body import BLOCK_BYTES, Body
from colab_keras_bg.testing.loopback_gcs.buckets import Buckets
from colab_keras_bg.testing.loopback_gcs.content import Expected, Growing
from colab_keras_bg.testing.loopback_gcs.objects import (
    Preconditions,
    StoredObject,
)

__all__ = ["Chunk", "Session", "Sessions", "json_object", "related_parts"]

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


@dataclass
class Session:
    """A resumable upload.

    Attributes:
        bucket: Where the object will be.
        name: What it will be called.
        preconditions: What must hold at the beginning and at the end.
        fields: The object's metadata.
        total: The size it will have, if that is known.
        hashes: The `x-goog-hash` of the first request, if it had one.
        kept: What has come and is kept.
        stored: The object, once it is there, without its bytes.
    """

    bucket: str
    name: str
    preconditions: Preconditions
    fields: Mapping[str, Any]
    total: int | None = None
    hashes: str | None = None
    kept: Growing = field(default_factory=Growing)
    stored: StoredObject | None = None
    _gone: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(
        self, chunk: Chunk, body: Body, hashes: str | None, buckets: Buckets
    ) -> StoredObject | None:
        """Takes a chunk, or a question.

        Args:
            chunk: Which bytes come.
            body: Those bytes.
            hashes: The `x-goog-hash` of the request, if it has one.
            buckets: Where the object goes.

        Returns:
            The object, if it is there now; None if more must come.

        Raises:
            ApiError: If the chunk does not fit, or the object may not be.
        """
        with self._lock:
            self._check_alive()
            if self.stored:
                return self.stored
            self._check_fits(chunk, body)
            if chunk.start is not None:
                again_bytes = self.kept.size_bytes - chunk.start
                for piece in _even(_skipping(body.blocks(), again_bytes)):
                    self.kept.add(piece)
            if chunk.is_last or self.kept.size_bytes == self.total:
                self._finish(hashes or self.hashes, buckets)
            return self.stored

    def cancel(self) -> None:
        """Forgets it.

        Raises:
            ApiError: 410, if it was forgotten before.
        """
        with self._lock:
            self._check_alive()
            self._forget()

    def _finish(self, hashes: str | None, buckets: Buckets) -> None:
        content = self.kept.content()
        try:
            if self.total not in (None, content.size_bytes):
                raise ApiError.invalid(
                    f"{content.size_bytes} bytes came instead of {self.total}."
                )
            Expected.stated_in(hashes, self.fields).check(content)
        except ApiError:
            self._forget()
            raise
        stored = buckets.insert(
            self.bucket, self.name, content, self.fields, self.preconditions
        )
        # What is replaced later must not be held by the upload that made it.
        self.stored = replace(stored, data=replace(content, pieces=()))
        self.kept = Growing()

    def _forget(self) -> None:
        self._gone = True
        self.kept = Growing()

    def _check_alive(self) -> None:
        if self._gone:
            raise ApiError(410, "The upload was cancelled or failed.", "gone")

    def _check_fits(self, chunk: Chunk, body: Body) -> None:
        if chunk.total is not None:
            if self.total not in (None, chunk.total):
                raise ApiError.invalid(
                    f"The size was to be {self.total}, not {chunk.total}."
                )
            self.total = chunk.total
        if chunk.start is None:
            return
        if None not in (chunk.size_bytes, body.size_bytes) and (
            chunk.size_bytes != body.size_bytes
        ):
            raise ApiError.invalid("Content-Range and Content-Length differ.")
        if chunk.start > self.kept.size_bytes:
            raise ApiError.invalid(
                f"Bytes from {chunk.start} came; those from "
                f"{self.kept.size_bytes} are missing."
            )
        if not chunk.is_last and (chunk.size_bytes or 0) % BLOCK_BYTES:
            raise ApiError.invalid(
                "Invalid request. The number of bytes uploaded is required "
                "to be a multiple of 262144, except for the final request. "
                f"The request contained {chunk.size_bytes} bytes."
            )


class Sessions:
    """The resumable uploads that were begun."""

    def __init__(self) -> None:
        """Starts with none."""
        self._sessions: dict[str, Session] = {}

    def begin(self, session: Session) -> str:
        """Takes a new one, and gives its name."""
        name = uuid.uuid4().hex
        self._sessions[name] = session
        return name

    def find(self, name: str) -> Session:
        """A session by its name.

        Raises:
            ApiError: 404, if there is none.
        """
        try:
            return self._sessions[name]
        except KeyError:
            raise ApiError.not_found("No such upload.") from None


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
    parts = (b"\r\n" + text).split(b"\r\n" + mark, 2)
    content, end, _ = parts[-1].rpartition(b"\r\n" + mark + b"--")
    if not found or len(parts) < 3 or not end:
        raise ApiError.invalid("A multipart body of two parts is expected.")
    _, _, fields = parts[1].partition(b"\r\n\r\n")
    head, _, media = content.partition(b"\r\n\r\n")
    media_type = re.search(rb"(?im)^content-type:\s*(.+?)\s*$", head)
    return (
        json_object(fields),
        media_type[1].decode() if media_type else None,
        media,
    )


def _skipping(blocks: Iterable[bytes], skip_bytes: int) -> Iterator[bytes]:
    """Blocks without their first bytes: those that were kept before."""
    for block in blocks:
        kept = block[skip_bytes:] if skip_bytes else block
        skip_bytes = max(0, skip_bytes - len(block))
        if kept:
            yield kept


def _even(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Blocks in pieces of `BLOCK_BYTES`; only one that ends well ends odd."""
    held = b""
    for block in blocks:
        held = held + block if held else block
        while len(held) >= BLOCK_BYTES:
            yield held[:BLOCK_BYTES]
            held = held[BLOCK_BYTES:]
    if held:
        yield held
