"""What each operation of the Drive API does.

Invariant: a file shows when the last byte of its upload has come, and not
before; a request that is refused has changed nothing.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colab_keras_bg.testing.loopback.answers import BEARER, Answer, ApiError
from colab_keras_bg.testing.loopback.body import Body
from colab_keras_bg.testing.loopback.chunks import (
    Chunk,
    even,
    json_object,
    related_parts,
    skipping,
)
from colab_keras_bg.testing.loopback_drive.files import Files, StoredFile
from colab_keras_bg.testing.loopback_drive.query import matcher
from colab_keras_bg.testing.loopback_drive.resources import file_resource
from colab_keras_bg.testing.loopback_drive.routes import Request, route

__all__ = ["Service"]


@dataclass
class _Session:
    """A resumable upload, and what has come of it."""

    request: Request  # That has begun it.
    fields: Mapping[str, Any]
    total: int | None
    kept: bytearray = field(default_factory=bytearray)
    stored: StoredFile | None = None
    gone: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Service:
    """Carries requests out.

    Attributes:
        tokens: The bearer tokens that are accepted; None for anybody.
    """

    def __init__(
        self, files: Files, *, drives: Mapping[str, str], owns_space: bool
    ) -> None:
        """Takes what it works on; see `LoopbackDrive`."""
        self.files = files
        self.tokens: set[str] | None = None
        self._drives, self._owns_space = drives, owns_space
        self._sessions: dict[str, _Session] = {}
        self._verbs: dict[str, Callable[[Request], Answer]] = {
            "about": self._about,
            "drives.list": self._list_drives,
            "ids": self._ids,
            "list": self._list,
            "create": self._create,
            "get.metadata": self._get_metadata,
            "get.media": self._get_media,
            "update": self._update,
            "delete": self._delete,
            "upload.media": self._upload_media,
            "upload.multipart": self._upload_multipart,
            "upload.resumable.start": self._upload_start,
            "upload.resumable.chunk": self._upload_chunk,
            "upload.resumable.last": self._upload_chunk,
            "upload.resumable.status": self._upload_chunk,
            "upload.resumable.cancel": self._upload_cancel,
        }

    def understand(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> Request:
        """See `Api.understand`."""
        return route(method, target, headers, body)

    def name_of(self, request: Request) -> str:
        """See `Api.name_of`."""
        try:
            if request.id:
                return self.files.get(request.id).name
            if upload := request.query.get("upload_id"):
                return str(self._session(upload).fields.get("name", ""))
        except ApiError:
            return ""
        if request.operation == "create" or "upload" in request.operation:
            named = re.search(
                rb'"name":\s*("(?:[^"\\]|\\.)*")', request.body.peek()
            )
            if named:
                return str(json_object(b'{"name":%s}' % named[1])["name"])
        return ""

    def answer(
        self,
        request: Request,
        part: Callable[[Request], Answer] | None = None,
    ) -> Answer:
        """See `Api.answer`."""
        scheme, _, token = request.headers.get("authorization", "").partition(
            " "
        )
        if self.tokens is not None and (
            scheme.lower() != "bearer" or token not in self.tokens
        ):
            raise ApiError(
                401,
                "Invalid Credentials",
                "authError",
                headers={"WWW-Authenticate": BEARER},
            )
        return self._verbs[request.operation](request)

    def refused(self, request: Request, error: ApiError) -> Answer:
        """See `Api.refused`."""
        return error.answer()

    def _about(self, request: Request) -> Answer:
        quota = {"usage": str(self.files.usage_bytes())}
        if self.files.quota_bytes is not None:
            quota["limit"] = str(self.files.quota_bytes)
        user = {"displayName": "Ada", "emailAddress": "ada@example.org"}
        return Answer.json({"storageQuota": quota, "user": user})

    def _list_drives(self, request: Request) -> Answer:
        drives = [{"id": i, "name": n} for n, i in self._drives.items()]
        return Answer.json({"kind": "drive#driveList", "drives": drives})

    def _ids(self, request: Request) -> Answer:
        count = int(request.query.get("count") or 10)
        if not 1 <= count <= 1000:
            raise ApiError.invalid("count must be between 1 and 1000.")
        ids = [self.files.new_id() for _ in range(count)]
        return Answer.json({"ids": ids, "space": "drive"})

    def _list(self, request: Request) -> Answer:
        matches = matcher(request.query.get("q", ""), self.files)
        found = [file for file in self.files.visible() if matches(file)]
        found = [
            file
            for file in found
            if (file.parent or file.shared) and self._is_listed(request, file)
        ]
        if request.query.get("orderBy", "").startswith("createdTime"):
            found.sort(key=lambda file: (file.created, file.id))
        size = int(request.query.get("pageSize") or 100)
        if not 1 <= size <= 1000:
            raise ApiError.invalid("pageSize must be between 1 and 1000.")
        start = int(request.query.get("pageToken") or 0)
        answer: dict[str, Any] = {
            "kind": "drive#fileList",
            "incompleteSearch": False,
            "files": [self._told(f) for f in found[start : start + size]],
        }
        if start + size < len(found):
            answer["nextPageToken"] = str(start + size)
        return Answer.json(answer)

    def _create(self, request: Request) -> Answer:
        fields = json_object(request.body.read())
        return self._described(self._made(request, fields, None))

    def _get_metadata(self, request: Request) -> Answer:
        return self._described(self._file(request))

    def _get_media(self, request: Request) -> Answer:
        file = self._file(request)
        if file.content is None:
            raise ApiError(
                403,
                "Only files with binary content can be downloaded.",
                "fileNotDownloadable",
            )
        content, size = file.content, len(file.content)
        headers = {"Content-Type": file.mime_type}
        match = re.fullmatch(
            r"bytes=(\d+)-(\d*)", request.headers.get("range", "")
        )
        if not match:
            return Answer(200, headers, [content])
        start = int(match[1])
        if start >= size:
            raise ApiError(
                416,
                "Request range not satisfiable",
                "requestedRangeNotSatisfiable",
                headers={"Content-Range": f"bytes */{size}"},
            )
        stop = min(int(match[2]) + 1 if match[2] else size, size)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return Answer(206, headers, [content[start:stop]])

    def _update(self, request: Request) -> Answer:
        fields = json_object(request.body.read())
        file = self._file(request)
        changes: dict[str, Any] = {}
        if "name" in fields:
            changes["name"] = str(fields["name"])
        if "trashed" in fields:
            changes["trashed"] = fields["trashed"] is True
        if parent := request.query.get("addParents"):
            if request.query.get("removeParents") not in (None, file.parent):
                raise ApiError.invalid("It does not lie in that parent.")
            changes["parent"] = self.files.get(parent).id
        return self._described(self.files.change(file.id, **changes))

    def _delete(self, request: Request) -> Answer:
        if self._file(request).shared:
            raise ApiError(
                403,
                "The user does not have sufficient permissions for this file.",
                "insufficientFilePermissions",
            )
        self.files.delete(request.id)
        return Answer(204)

    def _upload_media(self, request: Request) -> Answer:
        content = request.body.read()
        return self._described(self._stored(request, {}, content))

    def _upload_multipart(self, request: Request) -> Answer:
        fields, media_type, content = related_parts(
            request.headers.get("content-type", ""), request.body.read()
        )
        fields.setdefault("mimeType", media_type)
        return self._described(self._stored(request, fields, content))

    def _upload_start(self, request: Request) -> Answer:
        fields = json_object(request.body.read())
        fields.setdefault(
            "mimeType", request.headers.get("x-upload-content-type")
        )
        size = request.headers.get("x-upload-content-length", "")
        if request.id:
            self._file(request)
        else:
            # Refused as it would be in the end.
            self._file_to_be(request, fields, b"")
        upload = uuid.uuid4().hex
        self._sessions[upload] = _Session(
            request, fields, int(size) if size.isdigit() else None
        )
        path = f"/{request.id}" if request.id else ""
        location = (
            f"{request.base}/upload/drive/v3/files{path}"
            f"?uploadType=resumable&upload_id={upload}"
        )
        return Answer(
            200, {"Location": location, "X-GUploader-UploadID": upload}
        )

    def _upload_chunk(self, request: Request) -> Answer:
        session = self._session(request.query.get("upload_id", ""))
        chunk = Chunk.stated_in(request.headers.get("content-range"))
        with session.lock:
            if session.gone:
                raise ApiError(410, "The upload was cancelled.", "gone")
            if session.stored:
                return self._described(session.stored)
            session.total = chunk.total or session.total
            if chunk.start is not None:
                self._receive(session, chunk, request.body)
            if chunk.is_last or len(session.kept) == session.total:
                if len(session.kept) != (session.total or len(session.kept)):
                    raise ApiError.invalid("Fewer bytes came than were said.")
                session.stored = self._stored(
                    session.request, session.fields, bytes(session.kept)
                )
                session.kept = bytearray()
                return self._described(session.stored)
            size = len(session.kept)
        kept = {"Range": f"bytes=0-{size - 1}"} if size else {}
        return Answer(308, kept)

    @staticmethod
    def _receive(session: _Session, chunk: Chunk, body: Body) -> None:
        assert chunk.start is not None  # noqa: S101 - bytes come
        again_bytes = len(session.kept) - chunk.start
        if again_bytes < 0:
            raise ApiError.invalid("Bytes are missing before these.")
        for piece in even(skipping(body.blocks(), again_bytes)):
            session.kept += piece

    def _upload_cancel(self, request: Request) -> Answer:
        session = self._session(request.query.get("upload_id", ""))
        session.gone, session.kept = True, bytearray()
        return Answer(499)

    def _session(self, upload: str) -> _Session:
        try:
            return self._sessions[upload]
        except KeyError:
            raise ApiError.not_found("No such upload.") from None

    def _stored(
        self, request: Request, fields: Mapping[str, Any], content: bytes
    ) -> StoredFile:
        if not request.id:
            return self._made(request, fields, content)
        changes = {"name": fields["name"]} if "name" in fields else {}
        id = self._file(request).id
        return self.files.change(id, content=content, **changes)

    def _made(
        self,
        request: Request,
        fields: Mapping[str, Any],
        content: bytes | None,
    ) -> StoredFile:
        return self.files.add(self._file_to_be(request, fields, content))

    def _file_to_be(
        self,
        request: Request,
        fields: Mapping[str, Any],
        content: bytes | None,
    ) -> StoredFile:
        parents = fields.get("parents") or [self.files.root]
        if len(parents) != 1:
            raise ApiError.invalid("A file has one parent.")
        parent = self._file(request, str(parents[0]))
        if content and not self._owns_space and not self._drive_of(parent):
            raise ApiError(
                403,
                "Service Accounts do not have storage quota. Leverage shared "
                "drives.",
                "storageQuotaExceeded",
            )
        id = str(fields.get("id") or "")
        self.files.check_free(id)
        return StoredFile(
            id,
            str(fields.get("name") or "Untitled"),
            str(fields.get("mimeType") or "application/octet-stream"),
            parent.id,
            content,
        )

    def _file(self, request: Request, id: str | None = None) -> StoredFile:
        """A file, if the client says that it knows of shared drives."""
        file = self.files.get(id or request.id)
        if self._drive_of(file) and not _says(request, "supportsAllDrives"):
            raise ApiError.not_found(f"File not found: {file.id}.")
        return file

    def _is_listed(self, request: Request, file: StoredFile) -> bool:
        drive = self._drive_of(file)
        if request.query.get("corpora") == "drive":
            return drive == request.query.get("driveId")
        return drive is None or (
            _says(request, "supportsAllDrives")
            and _says(request, "includeItemsFromAllDrives")
        )

    def _drive_of(self, file: StoredFile) -> str | None:
        """The shared drive that a file lies in."""
        while file.parent:
            file = self.files.get(file.parent)
        return file.id if file.id in self._drives.values() else None

    def _described(self, file: StoredFile) -> Answer:
        return Answer.json(self._told(file))

    def _told(self, file: StoredFile) -> dict[str, Any]:
        return file_resource(
            file,
            trashed=self.files.is_trashed(file),
            drive=self._drive_of(file),
        )


def _says(request: Request, parameter: str) -> bool:
    return request.query.get(parameter) == "true"
