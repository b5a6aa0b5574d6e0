"""Which operation of the Drive API a request means.

Invariant: that is decided by method, path, query and headers alone, before
the body is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from colab_keras_bg.testing.loopback.answers import ApiError
from colab_keras_bg.testing.loopback.body import Body
from colab_keras_bg.testing.loopback.chunks import Chunk

__all__ = ["Request", "route"]

_FILE = r"/drive/v3/files/(?P<id>[^/]+)"
_UPLOAD = r"/upload/drive/v3/files(?:/(?P<id>[^/]+))?"
_ROUTES = [
    (method, re.compile(pattern), operation)
    for method, pattern, operation in (
        ("GET", r"/drive/v3/about", "about"),
        ("GET", r"/drive/v3/drives", "drives.list"),
        ("GET", r"/drive/v3/files/generateIds", "ids"),
        ("GET", r"/drive/v3/files", "list"),
        ("POST", r"/drive/v3/files", "create"),
        ("GET", _FILE, "get"),
        ("PATCH", _FILE, "update"),
        ("DELETE", _FILE, "delete"),
        ("POST", _UPLOAD, "upload"),
        ("PATCH", _UPLOAD, "upload"),
        ("PUT", _UPLOAD, "upload.resumable"),
        ("DELETE", _UPLOAD, "upload.resumable.cancel"),
    )
]


@dataclass(frozen=True)
class Request:
    """A request that was understood.

    Attributes:
        operation: What is to be done.
        base: The server's URL, as the client knows it.
        id: The file that its path names; empty if it names none.
        query: Its parameters.
        headers: Its headers, by names in small letters.
        body: Its body.
    """

    operation: str
    base: str
    id: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body


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
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    for verb, pattern, operation in _ROUTES:
        if verb == method and (match := pattern.fullmatch(url.path)):
            return Request(
                _operation(operation, query, headers),
                f"http://{headers.get('host', '127.0.0.1')}",
                match.groupdict().get("id") or "",
                query,
                headers,
                body,
            )
    raise ApiError.not_found(f"Not Found: {method} {url.path}")


def _operation(
    operation: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> str:
    if operation == "get":
        return "get.media" if query.get("alt") == "media" else "get.metadata"
    if operation == "upload.resumable":
        chunk = Chunk.stated_in(headers.get("content-range"))
        if chunk.start is None:
            return "upload.resumable.status"
        return f"upload.resumable.{'last' if chunk.is_last else 'chunk'}"
    if operation == "upload":
        kind = query.get("uploadType", "")
        if kind not in ("media", "multipart", "resumable"):
            raise ApiError.invalid(f"Invalid uploadType: {kind!r}")
        return f"upload.{kind}" + (".start" if kind == "resumable" else "")
    return operation
