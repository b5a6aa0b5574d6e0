"""Which operation of the service a request means.

Invariant: that is decided by method, path, query and headers alone, before
the body is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from colab_keras_bg.testing.loopback.answers import ApiError
from colab_keras_bg.testing.loopback.body import Body
from colab_keras_bg.testing.loopback.chunks import Chunk
from colab_keras_bg.testing.loopback_gcs.objects import Preconditions

__all__ = ["Request", "route"]

_BUCKET = r"/storage/v1/b/(?P<bucket>[^/]+)"
_OBJECT = rf"{_BUCKET}/o/(?P<name>[^/]+)"
_TARGET = r"b/(?P<to_bucket>[^/]+)/o/(?P<to_name>[^/]+)"
_ROUTES = [
    (method, re.compile(pattern), operation)
    for method, pattern, operation in (
        ("GET", r"/storage/v1/b", "bucket.list"),
        ("GET", _BUCKET, "bucket.get"),
        ("GET", rf"{_BUCKET}/iam/testPermissions", "bucket.permissions"),
        ("GET", rf"{_BUCKET}/o", "list"),
        ("GET", _OBJECT, "get"),
        ("GET", rf"/download{_OBJECT}", "get"),
        ("PATCH", _OBJECT, "patch"),
        ("PUT", _OBJECT, "update"),
        ("DELETE", _OBJECT, "delete"),
        ("POST", rf"{_OBJECT}/compose", "compose"),
        ("POST", rf"{_OBJECT}/rewriteTo/{_TARGET}", "rewrite"),
        ("POST", rf"{_OBJECT}/copyTo/{_TARGET}", "copy"),
        ("POST", rf"/upload{_BUCKET}/o", "upload"),
        ("PUT", rf"/upload{_BUCKET}/o", "upload.resumable"),
        ("DELETE", rf"/upload{_BUCKET}/o", "upload.resumable.cancel"),
        ("POST", r"/batch(?:/storage/v1)?", "batch"),
    )
]


@dataclass(frozen=True)
class Request:
    """A request that was understood.

    Attributes:
        operation: What is to be done.
        base: The server's URL, as the client knows it.
        path: The bucket and names in its path.
        pairs: Its parameters.
        headers: Its headers, by names in small letters.
        body: Its body.
    """

    operation: str
    base: str
    path: Mapping[str, str]
    pairs: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: Body

    @property
    def query(self) -> Mapping[str, str]:
        """Its parameters; of one that comes twice, the last."""
        return dict(self.pairs)

    @property
    def bucket(self) -> str:
        """The bucket that it is about."""
        return self.path.get("bucket", "")

    @property
    def name(self) -> str:
        """The object that it is about, as far as path and query say."""
        return self.path.get("name") or self.query.get("name", "")

    @property
    def permissions(self) -> Sequence[str]:
        """The permissions that it asks about."""
        return [value for key, value in self.pairs if key == "permissions"]

    @property
    def preconditions(self) -> Preconditions:
        """What must hold of the object that it is about."""
        return Preconditions.stated_in(self.query)


def route(
    method: str, target: str, headers: Mapping[str, str], body: Body
) -> Request:
    """Understands a request.

    Args:
        method: Its verb.
        target: Its path and query.
        headers: Its headers, by names in small letters.
        body: Its body.

    Raises:
        ApiError: 404, if it is none that is served.
    """
    url = urlsplit(target)
    pairs = parse_qsl(url.query, keep_blank_values=True)
    query = dict(pairs)
    for verb, pattern, operation in _ROUTES:
        if verb == method and (match := pattern.fullmatch(url.path)):
            if operation.startswith("upload") and method != "DELETE":
                operation = _upload(operation, query, headers)
            elif operation == "get":
                media = query.get("alt") == "media"
                operation = "get.media" if media else "get.metadata"
            return Request(
                operation,
                f"http://{headers.get('host', '127.0.0.1')}",
                {
                    key: unquote(value)
                    for key, value in match.groupdict().items()
                },
                pairs,
                headers,
                body,
            )
    raise ApiError.not_found(f"Not Found: {method} {url.path}")


def _upload(
    operation: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> str:
    if operation == "upload.resumable":
        chunk = Chunk.stated_in(headers.get("content-range"))
        if chunk.start is None:
            return "upload.resumable.status"
        return f"upload.resumable.{'last' if chunk.is_last else 'chunk'}"
    kind = query.get("uploadType", "")
    if kind not in ("media", "multipart", "resumable"):
        raise ApiError.invalid(f"Invalid uploadType: {kind!r}")
    return f"upload.{kind}" + (".start" if kind == "resumable" else "")
