"""Uploads in one request, with metadata, and resumable.

Invariant: an object shows when the last byte of its upload has come, its
checksums are right and its preconditions hold, and not before. Until then a
resumable upload keeps whole multiples of 256 KiB of what came.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from colab_keras_bg.testing.loopback.answers import ApiError
from colab_keras_bg.testing.loopback.body import BLOCK_BYTES, Body
from colab_keras_bg.testing.loopback.chunks import Chunk, even, skipping
from colab_keras_bg.testing.loopback_gcs.buckets import Buckets
from colab_keras_bg.testing.loopback_gcs.content import Expected, Growing
from colab_keras_bg.testing.loopback_gcs.objects import (
    Preconditions,
    StoredObject,
)

__all__ = ["Session", "Sessions"]


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
                for piece in even(skipping(body.blocks(), again_bytes)):
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
