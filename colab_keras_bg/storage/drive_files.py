"""The few requests that a storage on Google Drive is made of.

Invariant: what is made has an id that was asked for before, so that a second
try makes no second file; what has arrived is compared, by size and MD5, with
what was sent, and removed if it is something else. Nothing is tried again
here but the parts of a large file, which goes on where it was.

Source: https://developers.google.com/workspace/drive/api/reference/rest/v3
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any, BinaryIO

import google.auth
import google.auth.exceptions
import google_auth_httplib2
from googleapiclient.discovery import build_from_document
from googleapiclient.discovery_cache import get_static_doc
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaIoBaseUpload

from colab_keras_bg.errors import StorageRefusedError, StorageUnavailableError
from colab_keras_bg.storage.drive_errors import (
    LOGIN,
    AbsentError,
    TakenError,
    translated,
)
from colab_keras_bg.storage.drive_found import FOLDER, Found, Sums
from colab_keras_bg.storage.drive_http import CountedHttp
from colab_keras_bg.storage.pace import Pace
from colab_keras_bg.storage.traffic import Traffic

__all__ = ["DriveFiles"]

_SCOPES = ("https://www.googleapis.com/auth/drive",)
_ONE_REQUEST_BYTES = 4 << 20  # Up to here an upload is one request.
_CHUNK_BYTES = 8 << 20  # A multiple of 256 KiB; held in memory.
_IDS_AT_ONCE = 50
# Before a chunk is tried again; then the whole is given up.
_WAITS_SECS = (0.0, 0.2, 0.6, 1.8, 5.4)
_FIELDS = (
    "id,name,mimeType,parents,size,md5Checksum,createdTime,trashed,driveId"
)
_EVERYWHERE = {"supportsAllDrives": True}


class DriveFiles:
    """Asks Drive.

    Attributes:
        traffic: How much was asked so far.
        drive: The id of the shared drive that lists are of; None for those of
            the account.
    """

    def __init__(
        self,
        where: str,
        *,
        endpoint: str | None = None,
        credentials: Any = None,
        pace: Pace | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Gets ready; only credentials are looked for.

        Args:
            where: The storage, for people.
            endpoint: The service's address, if it is not Google's; then
                nobody logs in, unless credentials are given.
            credentials: Those of google-auth; the environment's if None.
            pace: Lets what is sent go.
            sleep: Waits so many seconds.

        Raises:
            StorageRefusedError: If there are no credentials.
        """
        self._where = where
        self.traffic = Traffic()
        self.drive: str | None = None
        self._pace, self._sleep = pace or Pace(), sleep
        document = json.loads(get_static_doc("drive", "v3"))
        if endpoint:
            document["rootUrl"] = f"{endpoint}/"
            document["baseUrl"] = f"{endpoint}/{document['servicePath']}"
        elif credentials is None:
            try:
                credentials, _ = google.auth.default(scopes=_SCOPES)
            except google.auth.exceptions.GoogleAuthError as error:
                raise StorageRefusedError(
                    where, cause="there are no credentials", advice=LOGIN
                ) from error
        self._credentials = credentials
        self._of_thread = threading.local()
        self._opened: list[Any] = []
        self._lock = threading.RLock()
        drive = build_from_document(document, http=self._http())
        self._files, self._drives = drive.files(), drive.drives()
        self._about = drive.about()
        self._ids: list[str] = []

    def new_id(self) -> str:
        """An id for a new file, which makes a second try harmless."""
        with self._lock:
            if not self._ids:
                told = self._asked(
                    self._files.generateIds(count=_IDS_AT_ONCE, space="drive"),
                    "a new id",
                )
                self._ids = [str(one) for one in told["ids"]]
            return self._ids.pop()

    def get(self, id: str) -> Found:
        """A file by its id.

        Raises:
            AbsentError: If there is none.
        """
        told = self._asked(
            self._files.get(fileId=id, fields=_FIELDS, **_EVERYWHERE), id
        )
        return Found.of(told)

    def find(self, query: str, *, everywhere: bool = False) -> Iterator[Found]:
        """All files that a query is true of, page by page.

        Args:
            query: In the language of `files.list`.
            everywhere: Whether not only in `drive`.

        Raises:
            AbsentError: If a folder that it names is not there.
        """
        where = {}
        if self.drive and not everywhere:
            where = {"corpora": "drive", "driveId": self.drive}
        token: str | None = None
        while True:
            told = self._asked(
                self._files.list(
                    q=query,
                    fields=f"nextPageToken,incompleteSearch,files({_FIELDS})",
                    pageSize=1000,
                    pageToken=token,
                    spaces="drive",
                    includeItemsFromAllDrives=True,
                    **_EVERYWHERE,
                    **where,
                ),
                "a list",
            )
            if told.get("incompleteSearch"):
                raise StorageUnavailableError(
                    f"{self._where} has listed only a part of what there is"
                )
            yield from map(Found.of, told.get("files", ()))
            token = told.get("nextPageToken")
            if not token:
                return

    def shared_drive(self, name: str) -> str | None:
        """The id of a shared drive; None if there is none of that name."""
        token: str | None = None
        while True:
            told = self._asked(
                self._drives.list(pageSize=100, pageToken=token),
                "shared drives",
            )
            for drive in told.get("drives", ()):
                if name in (drive.get("name"), drive.get("id")):
                    return str(drive["id"])
            token = told.get("nextPageToken")
            if not token:
                return None

    def make_folder(self, id: str, name: str, *, parent: str) -> Found:
        """Makes a folder.

        Args:
            id: Its id, which nothing else has.
            name: Its name.
            parent: The folder that it is made in.

        Raises:
            AbsentError: If that is not there.
        """
        body = {"id": id, "name": name, "parents": [parent], "mimeType": FOLDER}
        request = self._files.create(body=body, fields=_FIELDS, **_EVERYWHERE)
        return self._settled(id, lambda: self._asked(request, name))

    def upload(
        self,
        file: BinaryIO,
        sums: Sums,
        *,
        id: str,
        name: str,
        parent: str | None,
    ) -> Found:
        """Sends a file; it is there whole, and as it was sent, or not at all.

        Args:
            file: Its content, all of it, from its beginning.
            sums: What it has to arrive as; see `Sums.of`.
            id: Its id: a new one's, or that of which the content is replaced.
            name: Its name.
            parent: The folder that it is made in; None to replace.

        Raises:
            AbsentError: If what is to be replaced, or the folder, is not there.
            StorageUnavailableError: If it has not arrived as it was sent.
        """
        file.seek(0)
        small = sums.size_bytes <= _ONE_REQUEST_BYTES
        media = _Chunks(
            BytesIO(file.read()) if small else file,
            mimetype="application/octet-stream",
            chunksize=_CHUNK_BYTES,
            resumable=not small,
        )
        common = {"media_body": media, "fields": _FIELDS, **_EVERYWHERE}
        send = self._asked if small else self._sent
        if parent is None:
            request = self._files.update(fileId=id, body={}, **common)
            found = Found.of(send(request, name))
        else:
            body = {"id": id, "name": name, "parents": [parent]}
            request = self._files.create(body=body, **common)
            found = self._settled(id, lambda: send(request, name))
        if (found.size_bytes, found.md5) != (sums.size_bytes, sums.md5):
            if parent is not None:
                with contextlib.suppress(AbsentError):
                    self.delete(id)
            raise StorageUnavailableError(
                f"{name!r} has arrived in {self._where} as {found.size_bytes} "
                f"bytes with MD5 {found.md5}, which is not what was sent"
            )
        return replace(found, crc32c=sums.crc32c)

    def download(
        self, id: str, start: int | None = None, size_bytes: int = 0
    ) -> bytes:
        """The content of a file, or a part of it.

        Args:
            id: Which.
            start: The first byte; None for all of it.
            size_bytes: How many; fewer come if it ends before.

        Raises:
            AbsentError: If it is not there.
        """
        request = self._files.get_media(fileId=id, **_EVERYWHERE)
        if start is not None:
            end = start + size_bytes - 1
            request.headers["Range"] = f"bytes={start}-{end}"
        try:
            return bytes(self._asked(request, id, bytes))
        except StorageUnavailableError as error:
            cause = error.__cause__
            if isinstance(cause, HttpError) and cause.resp.status == 416:
                return b""
            raise

    def delete(self, id: str) -> None:
        """Removes a file for good, or, where that is not ours, to the trash.

        Raises:
            AbsentError: If it is not there.
        """
        try:
            request = self._files.delete(fileId=id, **_EVERYWHERE)
            self._asked(request, id, (dict, str, bytes))
        except StorageRefusedError:
            body = {"trashed": True}
            self._asked(
                self._files.update(fileId=id, body=body, **_EVERYWHERE), id
            )

    def free_bytes(self) -> int | None:
        """How much space is left; None if there is no limit."""
        told = self._asked(self._about.get(fields="storageQuota"), "its quota")
        quota = told.get("storageQuota", {})
        if "limit" not in quota:
            return None
        return max(0, int(quota["limit"]) - int(quota.get("usage", 0)))

    def close(self) -> None:
        """Gives the connections back, those of all threads."""
        with self._lock:
            opened, self._opened = self._opened, []
        for one in opened:
            one.close()
        self._of_thread = threading.local()

    def _settled(self, id: str, make: Callable[[], Any]) -> Found:
        """What was made under an id, though its answer may have been lost."""
        try:
            return Found.of(make())
        except TakenError:
            return self.get(id)
        except StorageRefusedError:
            raise
        except StorageUnavailableError:
            with contextlib.suppress(AbsentError, StorageUnavailableError):
                return self.get(id)
            raise

    def _sent(self, request: Any, name: str) -> Any:
        """A resumable upload, chunk by chunk; gone on with where it was."""
        failed = 0
        while True:
            try:
                with translated(self._where, name):
                    _, told = request.next_chunk(http=self._http())
                    if told is not None:
                        told = self._whole(told)
            except AbsentError:
                if request.resumable_uri is None:
                    raise
                raise StorageUnavailableError(
                    f"{self._where} has forgotten an upload of {name!r}"
                ) from None
            except StorageRefusedError:
                raise
            except StorageUnavailableError:
                if failed == len(_WAITS_SECS) or not request.resumable_uri:
                    raise
                self._sleep(_WAITS_SECS[failed])
                failed += 1
                continue
            failed = 0
            if told is not None:
                return told

    def _asked(
        self, request: Any, name: str, kind: type | tuple[type, ...] = dict
    ) -> Any:
        with translated(self._where, name):
            return self._whole(request.execute(http=self._http()), kind)

    def _whole(self, told: Any, kind: type | tuple[type, ...] = dict) -> Any:
        """An answer; one that was cut off comes as the text that it is."""
        if not isinstance(told, kind):
            raise StorageUnavailableError(
                f"{self._where} has sent an answer that is cut off"
            )
        return told

    def _http(self) -> Any:
        """This thread's connection: one is not for several."""
        known = getattr(self._of_thread, "http", None)
        if known is None:
            plain = CountedHttp(self.traffic, self._pace)
            known = plain
            if self._credentials is not None:
                known = google_auth_httplib2.AuthorizedHttp(
                    self._credentials, http=plain
                )
            self._of_thread.http = known
            with self._lock:
                self._opened.append(known)
        return known


class _Chunks(MediaIoBaseUpload):
    """Hands chunks on as bytes, which can be sent twice; not as a stream."""

    def has_stream(self) -> bool:
        return False
