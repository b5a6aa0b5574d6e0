"""Objects and buckets as the service describes them in JSON.

Invariant: numbers of 64 bits are strings there, and what is not known is
left out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from colab_keras_bg.testing.loopback.answers import ApiError
from colab_keras_bg.testing.loopback_gcs.objects import StoredObject

__all__ = ["bucket_resource", "listing", "object_headers", "object_resource"]

_MOST_RESULTS = 1000
_PROJECT = "1"


def object_resource(
    base: str, bucket: str, stored: StoredObject
) -> dict[str, Any]:
    """An object's description.

    Args:
        base: The server's URL.
        bucket: The object's bucket.
        stored: The object.
    """
    path = f"b/{quote(bucket, safe='')}/o/{quote(stored.name, safe='')}"
    media = f"{base}/download/storage/v1/{path}"
    described = {
        "kind": "storage#object",
        "id": f"{bucket}/{stored.name}/{stored.generation}",
        "selfLink": f"{base}/storage/v1/{path}",
        "mediaLink": f"{media}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        "storageClass": "STANDARD",
        "size": str(stored.size_bytes),
        "crc32c": stored.crc32c,
        "md5Hash": stored.md5,
        "componentCount": stored.component_count,
        "etag": _etag(stored),
        "timeCreated": _time(stored.created_secs),
        "updated": _time(stored.updated_secs),
        "timeStorageClassUpdated": _time(stored.created_secs),
        "timeFinalized": _time(stored.created_secs),
        **stored.fields,
    }
    return {key: value for key, value in described.items() if value is not None}


def object_headers(stored: StoredObject) -> dict[str, str]:
    """The headers with which an object's content comes."""
    hashes = [f"crc32c={stored.crc32c}"]
    if stored.md5:
        hashes.append(f"md5={stored.md5}")
    headers = {
        "Content-Type": stored.content_type or "application/octet-stream",
        "ETag": _etag(stored),
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": ",".join(hashes),
        "x-goog-storage-class": "STANDARD",
        "x-goog-stored-content-length": str(stored.size_bytes),
        "x-goog-stored-content-encoding": "identity",
        "Accept-Ranges": "bytes",
    }
    if encoding := stored.fields.get("contentEncoding"):
        headers["x-goog-stored-content-encoding"] = encoding
        headers["Content-Encoding"] = encoding
    if stored.component_count:
        headers["x-goog-component-count"] = str(stored.component_count)
    return headers


def bucket_resource(base: str, name: str) -> dict[str, Any]:
    """A bucket's description."""
    return {
        "kind": "storage#bucket",
        "id": name,
        "selfLink": f"{base}/storage/v1/b/{quote(name, safe='')}",
        "name": name,
        "projectNumber": _PROJECT,
        "metageneration": "1",
        "location": "US-CENTRAL1",
        "locationType": "region",
        "storageClass": "STANDARD",
        "etag": "CAE=",
        "timeCreated": _time(0),
        "updated": _time(0),
    }


def listing(
    base: str,
    bucket: str,
    objects: Mapping[str, StoredObject],
    query: Mapping[str, str],
) -> dict[str, Any]:
    """A page of a bucket's objects.

    Args:
        base: The server's URL.
        bucket: The bucket.
        objects: All its objects.
        query: What is asked for: `prefix`, `delimiter`, `startOffset`,
            `endOffset`, `maxResults`, `pageToken`.

    Raises:
        ApiError: 400, if something is asked for that is not served.
    """
    if query.get("matchGlob") or _is_true(query.get("softDeleted")):
        raise ApiError.invalid("matchGlob and softDeleted are not served.")
    most = _whole(query.get("maxResults"), _MOST_RESULTS)
    after = _resumes_after(query.get("pageToken"))
    page: dict[str, Any] = {"kind": "storage#objects"}
    last, count = "", 0
    for name in sorted(objects):
        if not _wanted(name, query):
            continue
        folder = _folder(name, query)
        shown = folder or name
        if after and (shown <= after or shown == last):
            continue
        if folder and folder in page.get("prefixes", ()):
            continue
        if count == most:
            page["nextPageToken"] = base64.urlsafe_b64encode(
                last.encode()
            ).decode()
            break
        if folder:
            page.setdefault("prefixes", []).append(folder)
        if not folder or (
            name == folder and _is_true(query.get("includeTrailingDelimiter"))
        ):
            resource = object_resource(base, bucket, objects[name])
            page.setdefault("items", []).append(resource)
        last, count = shown, count + 1
    return page


def _wanted(name: str, query: Mapping[str, str]) -> bool:
    end = query.get("endOffset")
    return (
        name.startswith(query.get("prefix", ""))
        and name >= query.get("startOffset", "")
        and (not end or name < end)
    )


def _folder(name: str, query: Mapping[str, str]) -> str:
    """The prefix under which a name is hidden; empty if it is not."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    head, found, _ = name[len(prefix) :].partition(delimiter or "\n")
    return prefix + head + found if found else ""


def _resumes_after(token: str | None) -> str:
    try:
        return base64.b64decode(token or "", b"-_", validate=True).decode()
    except ValueError:
        raise ApiError.invalid(f"Invalid page token: {token!r}") from None


def _whole(stated: str | None, most: int) -> int:
    try:
        return min(int(stated or most), most)
    except ValueError:
        raise ApiError.invalid(f"Invalid maxResults: {stated!r}") from None


def _is_true(stated: str | None) -> bool:
    return (stated or "").lower() == "true"


def _etag(stored: StoredObject) -> str:
    tag = f"{stored.generation}/{stored.metageneration}"
    return base64.b64encode(tag.encode()).decode()


def _time(secs: float) -> str:
    moment = datetime.fromtimestamp(secs, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
