"""The verbs of the service: a request in, an answer out.

Invariant: what a verb does to the objects is one call of `Buckets`, after the
whole request was read.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from colab_keras_bg.testing.loopback.answers import Answer, ApiError
from colab_keras_bg.testing.loopback.body import Body
from colab_keras_bg.testing.loopback.chunks import (
    Chunk,
    json_object,
    related_parts,
)
from colab_keras_bg.testing.loopback_gcs.batch import batch_answer
from colab_keras_bg.testing.loopback_gcs.buckets import Buckets
from colab_keras_bg.testing.loopback_gcs.content import Expected, content_of
from colab_keras_bg.testing.loopback_gcs.objects import (
    Preconditions,
    Source,
    StoredObject,
)
from colab_keras_bg.testing.loopback_gcs.resources import (
    bucket_resource,
    listing,
    object_headers,
    object_resource,
)
from colab_keras_bg.testing.loopback_gcs.routes import Request, route
from colab_keras_bg.testing.loopback_gcs.uploads import Session, Sessions

__all__ = ["Service"]

_MEBIBYTE = 1 << 20


class Service:
    """Carries requests out."""

    def __init__(
        self, buckets: Buckets, *, rewrite_bytes_per_call: int | None = None
    ) -> None:
        """Takes what it works on; see `LoopbackGcs`."""
        self.buckets = buckets
        self._rewrite_bytes_per_call = rewrite_bytes_per_call
        self._sessions = Sessions()
        self._rewrites: dict[str, tuple[StoredObject, int]] = {}
        self._verbs = {
            "bucket.list": self._list_buckets,
            "bucket.get": self._get_bucket,
            "bucket.permissions": self._permissions,
            "list": self._list,
            "get.metadata": self._get_metadata,
            "get.media": self._get_media,
            "patch": self._change,
            "update": self._change,
            "delete": self._delete,
            "compose": self._compose,
            "rewrite": self._rewrite,
            "copy": self._copy,
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

    def answer(
        self,
        request: Request,
        part: Callable[[Request], Answer] | None = None,
    ) -> Answer:
        """Carries a request out.

        Args:
            request: The request.
            part: Carries out one of those that a batch is made of.

        Raises:
            ApiError: If the service refuses it.
            CutShort: If a fault struck its body.
            ConnectionError: If its body ended early.
        """
        if request.operation == "batch" and part is not None:
            return batch_answer(request, part)
        return self._verbs[request.operation](request)

    def refused(self, request: Request, error: ApiError) -> Answer:
        """See `Api.refused`."""
        return error.answer(as_text=request.operation == "get.media")

    def name_of(self, request: Request) -> str:
        """The object that a request is about, wherever that stands."""
        if request.name or request.operation in ("list", "batch"):
            return request.name
        try:
            if upload := request.query.get("upload_id"):
                return self._sessions.find(upload).name
        except ApiError:
            return ""
        if request.operation.startswith("upload."):
            named = re.search(
                rb'"name":\s*("(?:[^"\\]|\\.)*")', request.body.peek()
            )
            if named:
                return str(json_object(b'{"name":%s}' % named[1])["name"])
        return ""

    # Buckets.

    def _list_buckets(self, request: Request) -> Answer:
        items = [
            bucket_resource(request.base, name) for name in self.buckets.names()
        ]
        return Answer.json({"kind": "storage#buckets", "items": items})

    def _get_bucket(self, request: Request) -> Answer:
        self.buckets.objects(request.bucket)
        return Answer.json(bucket_resource(request.base, request.bucket))

    def _permissions(self, request: Request) -> Answer:
        self.buckets.objects(request.bucket)
        return Answer.json(
            {
                "kind": "storage#testIamPermissionsResponse",
                "permissions": list(request.permissions),
            }
        )

    # Objects.

    def _list(self, request: Request) -> Answer:
        objects = self.buckets.objects(request.bucket)
        return Answer.json(
            listing(request.base, request.bucket, objects, request.query)
        )

    def _get_metadata(self, request: Request) -> Answer:
        return self._described(
            request,
            self.buckets.get(
                request.bucket, request.name, request.preconditions
            ),
        )

    def _get_media(self, request: Request) -> Answer:
        stored = self.buckets.get(
            request.bucket, request.name, request.preconditions
        )
        size_bytes = stored.size_bytes
        headers = object_headers(stored)
        wanted = _wanted_range(request.headers.get("range"), size_bytes)
        if wanted is None:
            return Answer(200, headers, stored.data.pieces)
        start, stop = wanted
        if start >= size_bytes:
            raise ApiError(
                416,
                "The requested range cannot be satisfied.",
                "requestedRangeNotSatisfiable",
                headers={"Content-Range": f"bytes */{size_bytes}"},
            )
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
        return Answer(206, headers, list(stored.data.slice(start, stop)))

    def _change(self, request: Request) -> Answer:
        changed = self.buckets.change(
            request.bucket,
            request.name,
            json_object(request.body.read()),
            request.preconditions,
            whole=request.operation == "update",
        )
        return self._described(request, changed)

    def _delete(self, request: Request) -> Answer:
        self.buckets.delete(request.bucket, request.name, request.preconditions)
        return Answer(204)

    def _compose(self, request: Request) -> Answer:
        order = json_object(request.body.read())
        try:
            sources = [
                Source(
                    source["name"],
                    Preconditions.stated_in(
                        {
                            "generation": source.get("generation"),
                            **source.get("objectPreconditions", {}),
                        }
                    ),
                )
                for source in order.get("sourceObjects", ())
            ]
        except (AttributeError, KeyError, TypeError):
            raise ApiError.invalid("Invalid sourceObjects.") from None
        made = self.buckets.compose(
            request.bucket,
            request.name,
            sources,
            order.get("destination") or {},
            request.preconditions,
            delete_sources=order.get("deleteSourceObjects") is True,
        )
        return self._described(request, made)

    def _copy(self, request: Request) -> Answer:
        return self._described(request, self._copied(request), copied=True)

    def _copied(self, request: Request) -> StoredObject:
        return self.buckets.copy(
            request.bucket,
            _source(request),
            request.path["to_bucket"],
            request.path["to_name"],
            json_object(request.body.read()),
            request.preconditions,
        )

    def _rewrite(self, request: Request) -> Answer:
        source = _source(request)
        found = self.buckets.get(
            request.bucket, source.name, source.preconditions, reading=False
        )
        done_bytes = 0
        if token := request.query.get("rewriteToken"):
            begun, done_bytes = self._rewrites.pop(token, (None, 0))
            if begun != found:
                raise ApiError.invalid("Invalid rewrite token.")
        done_bytes += self._bytes_of_call(request) or found.size_bytes
        told: dict[str, Any] = {
            "kind": "storage#rewriteResponse",
            "objectSize": str(found.size_bytes),
        }
        if done_bytes < found.size_bytes:
            token = uuid.uuid4().hex
            self._rewrites[token] = found, done_bytes
            return Answer.json(
                {
                    **told,
                    "done": False,
                    "rewriteToken": token,
                    "totalBytesRewritten": str(done_bytes),
                }
            )
        made = self._copied(request)
        return Answer.json(
            {
                **told,
                "done": True,
                "totalBytesRewritten": str(found.size_bytes),
                "resource": object_resource(
                    request.base, request.path["to_bucket"], made
                ),
            }
        )

    def _bytes_of_call(self, request: Request) -> int | None:
        asked = request.query.get("maxBytesRewrittenPerCall")
        if asked is None:
            return self._rewrite_bytes_per_call
        if not asked.isdigit() or not int(asked) or int(asked) % _MEBIBYTE:
            raise ApiError.invalid(
                "maxBytesRewrittenPerCall must be a multiple of 1 MiB."
            )
        return int(asked)

    # Uploads.

    def _upload_media(self, request: Request) -> Answer:
        fields = {"contentType": request.headers.get("content-type")}
        return self._uploaded(request, fields, request.body.blocks())

    def _upload_multipart(self, request: Request) -> Answer:
        fields, media_type, content = related_parts(
            request.headers.get("content-type", ""), request.body.read()
        )
        fields.setdefault("contentType", media_type)
        return self._uploaded(request, fields, [content])

    def _uploaded(
        self,
        request: Request,
        fields: Mapping[str, Any],
        blocks: Iterable[bytes],
    ) -> Answer:
        content = content_of(blocks)
        hashes = request.headers.get("x-goog-hash")
        Expected.stated_in(hashes, fields).check(content)
        stored = self.buckets.insert(
            request.bucket,
            _name_to_be(request, fields),
            content,
            fields,
            request.preconditions,
        )
        return self._described(request, stored)

    def _upload_start(self, request: Request) -> Answer:
        fields = json_object(request.body.read())
        name = _name_to_be(request, fields)
        self.buckets.check(request.bucket, name, request.preconditions)
        fields.setdefault(
            "contentType", request.headers.get("x-upload-content-type")
        )
        size = request.headers.get("x-upload-content-length", "")
        upload = self._sessions.begin(
            Session(
                request.bucket,
                name,
                request.preconditions,
                fields,
                total=int(size) if size.isdigit() else None,
                hashes=request.headers.get("x-goog-hash"),
            )
        )
        location = (
            f"{request.base}/upload/storage/v1/b/"
            f"{quote(request.bucket, safe='')}/o?uploadType=resumable"
            f"&name={quote(name, safe='')}&upload_id={upload}"
        )
        return Answer(
            200, {"Location": location, "X-GUploader-UploadID": upload}
        )

    def _upload_chunk(self, request: Request) -> Answer:
        session = self._session(request)
        stored = session.receive(
            Chunk.stated_in(request.headers.get("content-range")),
            request.body,
            request.headers.get("x-goog-hash"),
            self.buckets,
        )
        if stored:
            return self._described(request, stored)
        kept_bytes = session.kept.size_bytes
        kept = {"Range": f"bytes=0-{kept_bytes - 1}"} if kept_bytes else {}
        return Answer(308, kept)

    def _upload_cancel(self, request: Request) -> Answer:
        self._session(request).cancel()
        return Answer(499)

    def _session(self, request: Request) -> Session:
        return self._sessions.find(request.query.get("upload_id", ""))

    def _described(
        self, request: Request, stored: StoredObject, *, copied: bool = False
    ) -> Answer:
        bucket = request.path["to_bucket"] if copied else request.bucket
        return Answer.json(object_resource(request.base, bucket, stored))


def _source(request: Request) -> Source:
    return Source(
        request.name, Preconditions.stated_in(request.query, source=True)
    )


def _name_to_be(request: Request, fields: Mapping[str, Any]) -> str:
    return str(request.query.get("name") or fields.get("name") or "")


def _wanted_range(
    header: str | None, size_bytes: int
) -> tuple[int, int] | None:
    """The bytes that a `Range` asks for; None for all."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        suffix = int(match[2])
        return (max(0, size_bytes - suffix) if suffix else size_bytes), (
            size_bytes
        )
    stop = int(match[2]) + 1 if match[2] else size_bytes
    if match[2] and stop <= int(match[1]):
        return None  # Makes no sense, and is ignored.
    return int(match[1]), min(stop, size_bytes)
