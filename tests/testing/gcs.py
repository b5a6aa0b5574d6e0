"""The real client, led to a loopback server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

# Tries again at once, for a while.
QUICK = DEFAULT_RETRY.with_delay(initial=0.001, maximum=0.01).with_timeout(20)

QUANTUM = 256 << 10


def client_of(url: str) -> storage.Client:
    """A client of a server."""
    client = storage.Client(
        project="none",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )
    # A thread that asks for the bucket, again and again, outlives the test.
    client._bucket_metadata_cache = None
    return client


def raw(
    url: str,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Mapping[str, str], bytes]:
    """A request without the client: status, headers, and body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, target, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def reason_of(body: bytes) -> Any:
    """The reason in the body of an error."""
    return json.loads(body)["error"]["errors"][0]["reason"]
