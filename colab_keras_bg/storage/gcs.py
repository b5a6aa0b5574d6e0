"""Objects in a bucket of Google Cloud Storage.

Invariant: every write carries a precondition or is meant to replace, and is
believed only when the service has answered with the size and the crc32c of
what was sent. The client's own retries are off: it is told here what may be
sent again, and `RetryingStorage` does it.

Large files go as parts by several connections, put together by `compose`;
parts lie below `.parts/`, where no object's name can lead.
"""

from __future__ import annotations

import base64
import contextlib
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import google.auth
import google.auth.exceptions
import google_crc32c
from google.api_core.exceptions import (
    PreconditionFailed,
    RequestRangeNotSatisfiable,
)
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage as gcs
from google.cloud.storage.blob import Blob

from colab_keras_bg.errors import (
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage.gcs_errors import LOGIN, translated
from colab_keras_bg.storage.gcs_parts import PARTS, PartUpload
from colab_keras_bg.storage.interface import (
    Capabilities,
    ObjectInfo,
    Storage,
    check_name,
    check_prefix,
    is_name,
)
from colab_keras_bg.storage.pace import Pace
from colab_keras_bg.storage.traffic import Traffic

__all__ = ["GcsStorage"]

_TIMEOUT_SECS = (10.0, 60.0)  # To connect; between two bytes.
_SMALL_BYTES = 1 << 20  # Held in memory to be sent.
_FIELDS = "items(name,size,crc32c,md5Hash),nextPageToken"


class GcsStorage(Storage):
    """Keeps objects below a prefix of a bucket."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        connections: int = 4,
        endpoint: str | None = None,
        credentials: Any = None,
        pace: Pace | None = None,
    ) -> None:
        """Takes an address; nothing is sent yet but for the credentials.

        Args:
            bucket: The bucket's name.
            prefix: What the names of all objects in it begin with: a path
                without `/` at its ends; empty for the whole bucket.
            connections: How many parts of a file are sent at once.
            endpoint: The service's address, if it is not Google's. The
                environment's STORAGE_EMULATOR_HOST is taken, too.
            credentials: Those of google-auth; the environment's if None.
            pace: Lets what is sent go; None for as fast as can be.

        Raises:
            StorageRefusedError: If there are no credentials.
        """
        self._url = f"gs://{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self.traffic = Traffic()
        options = {"api_endpoint": endpoint} if endpoint else None
        if endpoint and credentials is None:
            credentials = AnonymousCredentials()
        try:
            # No request of ours needs a project.
            self._client = gcs.Client(
                project="none", credentials=credentials, client_options=options
            )
        except google.auth.exceptions.GoogleAuthError as error:
            raise StorageRefusedError(
                self._url, cause="there are no credentials", advice=LOGIN
            ) from error
        # What it would ask of the bucket in threads of its own, for traces, is
        # nobody's wish, needs another permission, and outlives us.
        self._client._bucket_metadata_cache = None
        # The session that the client itself sends by: for counting, and for
        # bodies that it would hold in memory.
        self._session = self._client._http
        self._session.hooks["response"].append(self.traffic.count)
        self._bucket = self._client.bucket(bucket)
        self._pace = pace or Pace()
        self._parts = PartUpload(
            self._bucket,
            self._session,
            self._client.api_endpoint,
            prefix=f"{self._prefix}{PARTS}/",
            connections=connections,
            timeout=_TIMEOUT_SECS,
            pace=self._pace,
        )
        self._seen: dict[str, tuple[bytes, int]] = {}  # Content, generation.
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """It outlives us, compares and swaps, and tells checksums."""
        return Capabilities(
            survives_machine=True, mapped_reads=False, checksums=True
        )

    def describe(self) -> str:
        """The URL."""
        return self._url

    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        """See `Storage.create`."""
        check_name(name)
        with tempfile.SpooledTemporaryFile(max_size=_SMALL_BYTES) as file:
            for chunk in chunks:
                file.write(chunk)
            size_bytes = file.tell()
            if size_bytes <= _SMALL_BYTES:
                file.seek(0)
                return self._create_small(name, file.read())
            file.rollover()
            return self._create_large(name, file.fileno(), size_bytes)

    def upload(self, name: str, path: Path) -> ObjectInfo:
        """See `Storage.upload`."""
        check_name(name)
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            if size_bytes <= _SMALL_BYTES:
                return self._create_small(name, file.read())
            return self._create_large(name, file.fileno(), size_bytes)

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`."""
        with self._translated(check_name(name)):
            return self._put(name, content, generation=None)

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`; by the object's generation."""
        check_name(name)
        for _ in range(2):  # What we remember, then what is there.
            found = self._seen.get(name) or self._look(name)
            known = found[0] if found else None
            if known == content and found:
                return self.info(name)
            if known == expected:
                with (
                    contextlib.suppress(PreconditionFailed),
                    self._translated(name),
                ):
                    return self._put(
                        name, content, generation=found[1] if found else 0
                    )
            self._forget(name)
        raise ConflictError(name, where=self.describe())

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`; by composing the object with a new part."""
        check_name(name)
        before = self._blob(name)
        try:
            with self._translated(name):
                self._reload(before)
        except ObjectNotFoundError:
            if at:
                raise ConflictError(name, where=self.describe()) from None
            with (
                contextlib.suppress(PreconditionFailed),
                self._translated(name),
            ):
                return self._put(name, content, generation=0)
            raise ConflictError(name, where=self.describe()) from None
        if before.size == at + len(content) and (
            self.read_range(name, at, len(content)) == content
        ):
            return self._info(before)
        if before.size != at:
            raise ConflictError(name, where=self.describe())
        crc32c = google_crc32c.extend(int(_hex(before.crc32c), 16), content)
        after = self._blob(name)
        with contextlib.suppress(PreconditionFailed), self._translated(name):
            self._parts.append(before, after, content)
            info = self._info(after)
            if info.crc32c != f"{crc32c:08x}":
                raise self._not_as_sent(name, info)
            return info
        raise ConflictError(name, where=self.describe())

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        with self._translated(check_name(name)):
            content: bytes = self._blob(name).download_as_bytes(
                raw_download=True,
                checksum="crc32c",
                retry=None,
                timeout=_TIMEOUT_SECS,
            )
            return content

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        check_name(name)
        if size_bytes <= 0:
            return b""
        try:
            with self._translated(name):
                content: bytes = self._blob(name).download_as_bytes(
                    start=start,
                    end=start + size_bytes - 1,
                    raw_download=True,
                    checksum=None,
                    retry=None,
                    timeout=_TIMEOUT_SECS,
                )
        except RequestRangeNotSatisfiable:
            return b""
        if len(content) < size_bytes:
            # The end of the object, or of the connection: an answer that was
            # cut off may look whole.
            rest = self.info(name).size_bytes - start
            if len(content) != min(size_bytes, rest):
                raise StorageUnavailableError(
                    f"{self._url} has sent {len(content)} bytes of {name!r} "
                    f"instead of {min(size_bytes, rest)}"
                )
        return content

    def map(self, name: str) -> memoryview:
        """See `Storage.map`; a copy."""
        return memoryview(self.read(name))

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        blob = self._blob(check_name(name))
        with self._translated(name):
            self._reload(blob)
        return self._info(blob)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`."""
        start = self._prefix + check_prefix(prefix)
        with self._translated(prefix):
            for blob in self._client.list_blobs(
                self._bucket,
                prefix=start,
                fields=_FIELDS,
                retry=None,
                timeout=_TIMEOUT_SECS,
            ):
                info = self._info(blob)
                if is_name(info.name):
                    yield info

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self._forget(name)
        with self._translated(check_name(name)):
            self._blob(name).delete(retry=None, timeout=_TIMEOUT_SECS)

    def close(self) -> None:
        """See `Storage.close`: the connections."""
        self._client.close()

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """See `Storage.sweep`: parts that were never put together."""
        super().sweep(prefix)
        with self._translated(PARTS):
            swept = self._parts.sweep()
        return tuple(name.removeprefix(self._prefix) for name in swept)

    def _create_small(self, name: str, content: bytes) -> ObjectInfo:
        try:
            with self._translated(name):
                return self._put(name, content, generation=0)
        except PreconditionFailed:
            raise ObjectExistsError(name, where=self.describe()) from None

    def _create_large(
        self, name: str, handle: int, size_bytes: int
    ) -> ObjectInfo:
        if self.exists(name):  # Before anything is sent in vain.
            raise ObjectExistsError(name, where=self.describe())
        blob = self._blob(name)
        try:
            with self._translated(name):
                self._parts.upload(blob, handle, size_bytes)
        except PreconditionFailed:
            raise ObjectExistsError(name, where=self.describe()) from None
        info = self._info(blob)
        if info.size_bytes != size_bytes:
            with contextlib.suppress(StorageUnavailableError):
                self.delete(name)  # It was ours: the precondition held.
            raise self._not_as_sent(name, info)
        return info

    def _put(
        self, name: str, content: bytes, *, generation: int | None
    ) -> ObjectInfo:
        """Sends a small object, verified by the service as it arrives."""
        blob = self._blob(name)
        self._forget(name)
        self._pace.take(len(content))
        blob.upload_from_string(
            content,
            content_type="application/octet-stream",
            if_generation_match=generation,
            checksum="crc32c",
            retry=None,
            timeout=_TIMEOUT_SECS,
        )
        info = self._info(blob)
        crc32c = f"{google_crc32c.value(content):08x}"
        if info.size_bytes != len(content) or info.crc32c != crc32c:
            raise self._not_as_sent(name, info)
        with self._lock:
            self._seen = {name: (content, int(blob.generation))}
        return info

    def _look(self, name: str) -> tuple[bytes, int] | None:
        """The content and generation of a small object."""
        blob = self._blob(name)
        try:
            with self._translated(name):
                content = blob.download_as_bytes(
                    raw_download=True,
                    checksum="crc32c",
                    retry=None,
                    timeout=_TIMEOUT_SECS,
                )
        except ObjectNotFoundError:
            return None
        return content, int(blob.generation)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._seen.pop(name, None)

    def _not_as_sent(
        self, name: str, info: ObjectInfo
    ) -> StorageUnavailableError:
        return StorageUnavailableError(
            f"{name!r} has arrived in {self.describe()} as {info.size_bytes} "
            f"bytes with crc32c {info.crc32c}, which is not what was sent"
        )

    def _blob(self, name: str) -> Blob:
        return self._bucket.blob(self._prefix + name)

    def _reload(self, blob: Blob) -> None:
        blob.reload(retry=None, timeout=_TIMEOUT_SECS)
        self._info(blob)  # Raises if the answer was none.

    def _info(self, blob: Blob) -> ObjectInfo:
        return ObjectInfo(
            blob.name.removeprefix(self._prefix),
            size_bytes=int(blob.size or 0),
            crc32c=_hex(blob.crc32c),
            md5=_hex(blob.md5_hash) if blob.md5_hash else None,
        )

    def _translated(self, name: str) -> contextlib.AbstractContextManager[None]:
        return translated(self._url, name, bucket=self._bucket.name)


def _hex(checksum: str) -> str:
    """A checksum as the service tells it, base64, in hexadecimal digits."""
    return base64.b64decode(checksum).hex()
