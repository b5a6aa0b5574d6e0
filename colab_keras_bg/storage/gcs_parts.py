"""Large files to Google Cloud Storage: parts side by side, put together.

Invariant: the object is made by the last `compose`, whole, under the
precondition that there is none. A part's name tells what it is a part of, and
its crc32c is compared before it is used again, so that an upload that was
interrupted goes on where it was, in another process, too.

Source: https://cloud.google.com/storage/docs/composite-objects
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import google_crc32c
from google.api_core.exceptions import (
    GoogleAPICallError,
    from_http_response,
)
from google.cloud.storage.blob import Blob
from google.cloud.storage.bucket import Bucket
from requests import RequestException

from colab_keras_bg.storage.pace import Pace

__all__ = ["PARTS", "PartUpload"]

PARTS = ".parts"

_MOST_SOURCES = 32  # The service composes no more at once.
_WHOLE_BYTES = 16 << 20  # Up to here one request is quicker than parts.
_LEAST_BYTES, _MOST_BYTES = 8 << 20, 64 << 20
_BLOCK_BYTES = 256 << 10


@dataclass(frozen=True)
class _Part:
    """A piece of a file: where it begins, and how long it is."""

    blob: Blob
    start: int
    size_bytes: int


class _Body:
    """The bytes of a part, read as they are sent; never all in memory."""

    def __init__(self, handle: int, part: _Part, pace: Pace) -> None:
        self._handle, self._part, self._pace = handle, part, pace
        self.crc32c = 0

    def __len__(self) -> int:
        return self._part.size_bytes

    def __iter__(self) -> Iterator[bytes]:
        place = self._part.start
        end = place + self._part.size_bytes
        self.crc32c = 0
        while place < end:
            block = os.pread(
                self._handle, min(_BLOCK_BYTES, end - place), place
            )
            if not block:
                raise OSError("the file has become shorter while it was sent")
            self.crc32c = google_crc32c.extend(self.crc32c, block)
            place += len(block)
            self._pace.take(len(block))
            yield block


class PartUpload:
    """Sends files in parts to one bucket."""

    def __init__(
        self,
        bucket: Bucket,
        session: Any,
        endpoint: str,
        *,
        prefix: str,
        connections: int,
        timeout: tuple[float, float],
        pace: Pace,
    ) -> None:
        """Takes what the client sends by.

        Args:
            bucket: The bucket.
            session: The client's session, with its credentials.
            endpoint: The address of the service.
            prefix: What the parts' names begin with, ending in `/`.
            connections: How many parts are sent at once.
            timeout: Seconds to connect, and between two bytes.
            pace: Lets what is sent go.
        """
        self._bucket, self._session = bucket, session
        self._url = (
            f"{endpoint}/upload/storage/v1/b/{quote(bucket.name, safe='')}/o"
        )
        self._prefix = prefix
        self._connections = connections
        self._timeout, self._pace = timeout, pace

    def upload(self, blob: Blob, handle: int, size_bytes: int) -> None:
        """Creates an object from a file, verified as it arrives.

        Args:
            blob: The object to make.
            handle: A descriptor of the file.
            size_bytes: Its size, more than 0.

        Raises:
            PreconditionFailed: If the name is taken.
        """
        if size_bytes <= _WHOLE_BYTES:
            whole = _Part(blob, 0, size_bytes)
            self._post(blob, _Body(handle, whole, self._pace))
            return
        parts = self._cut(blob.name, size_bytes)
        found = {one.name: one for one in self._list(_stem(blob.name))}
        pool = ThreadPoolExecutor(self._connections)
        try:
            list(
                pool.map(
                    lambda part: self._send(
                        handle, part, found.get(part.blob.name)
                    ),
                    parts,
                )
            )
        finally:
            pool.shutdown(cancel_futures=True)
        made = [part.blob for part in parts]
        spare = list(made)
        while len(made) > _MOST_SOURCES:
            made = [
                self._joined(made[at : at + _MOST_SOURCES])
                for at in range(0, len(made), _MOST_SOURCES)
            ]
            spare += made
        self._compose(blob, made, generation=0)
        self._discard(spare)

    def append(self, before: Blob, after: Blob, content: bytes) -> None:
        """Puts an object together with new content behind it.

        Args:
            before: The object as it is.
            after: The same name; knows what it has become afterwards.
            content: What to add.

        Raises:
            PreconditionFailed: If it has changed meanwhile.
        """
        part = self._bucket.blob(f"{self._prefix}{secrets.token_hex(8)}")
        self._pace.take(len(content))
        part.upload_from_string(
            content,
            content_type="application/octet-stream",
            if_generation_match=0,
            checksum="crc32c",
            retry=None,
            timeout=self._timeout,
        )
        try:
            self._compose(
                after, [before, part], generation=int(before.generation)
            )
        finally:
            self._discard([part])

    def sweep(self) -> list[str]:
        """Deletes all parts; returns their names."""
        found = self._list("")
        self._discard(found)
        return [blob.name for blob in found]

    def _list(self, stem: str) -> list[Blob]:
        return list(
            self._bucket.list_blobs(
                prefix=self._prefix + stem, retry=None, timeout=self._timeout
            )
        )

    def _cut(self, name: str, size_bytes: int) -> Sequence[_Part]:
        each = -(-size_bytes // _MOST_SOURCES)
        each = min(max(each, _LEAST_BYTES), _MOST_BYTES)
        stem = _stem(name)
        return [
            _Part(
                self._bucket.blob(
                    f"{self._prefix}{stem}-{size_bytes}-{start}-{each}"
                ),
                start,
                min(each, size_bytes - start),
            )
            for start in range(0, size_bytes, each)
        ]

    def _send(self, handle: int, part: _Part, found: Blob | None) -> None:
        """Sends a part, unless it has arrived already."""
        if found is not None:
            known = _Body(handle, part, Pace())
            for _ in known:  # To know its checksum.
                pass
            if _is(found, known.crc32c, part.size_bytes):
                part.blob._set_properties(found._properties)
                return
            found.delete(retry=None, timeout=self._timeout)
        self._post(part.blob, _Body(handle, part, self._pace))

    def _post(self, blob: Blob, body: _Body) -> None:
        """Sends a body as it is read, which the client's own uploads do not.

        They hold what they send in memory.
        """
        answer = self._session.request(
            "POST",
            self._url,
            params={
                "uploadType": "media",
                "name": blob.name,
                "ifGenerationMatch": "0",
            },
            data=body,
            headers={"Content-Type": "application/octet-stream"},
            timeout=self._timeout,
        )
        if not answer.ok:
            raise from_http_response(answer)
        blob._set_properties(answer.json())
        if not _is(blob, body.crc32c, len(body)):
            blob.delete(retry=None, timeout=self._timeout)
            raise ConnectionError(f"{blob.name} has not arrived as it was sent")

    def _joined(self, sources: Sequence[Blob]) -> Blob:
        """Parts put together to a larger one."""
        blob = self._bucket.blob(f"{self._prefix}{secrets.token_hex(8)}")
        self._compose(blob, sources, generation=0)
        return blob

    def _compose(
        self, blob: Blob, sources: Sequence[Blob], *, generation: int
    ) -> None:
        blob.content_type = "application/octet-stream"
        blob.compose(
            sources,
            if_generation_match=generation,
            if_source_generation_match=[int(s.generation) for s in sources],
            retry=None,
            timeout=self._timeout,
        )

    def _discard(self, blobs: Sequence[Blob]) -> None:
        """Deletes parts as far as that goes; `sweep` does the rest."""
        for start in range(0, len(blobs), 100):  # No more in one batch.
            with (
                contextlib.suppress(GoogleAPICallError, RequestException),
                self._bucket.client.batch(raise_exception=False),
            ):
                for blob in blobs[start : start + 100]:
                    blob.delete(retry=None)


def _stem(name: str) -> str:
    """What the names of an object's parts begin with."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _is(blob: Blob, crc32c: int, size_bytes: int) -> bool:
    told = int.from_bytes(base64.b64decode(blob.crc32c), "big")
    return told == crc32c and int(blob.size) == size_bytes
