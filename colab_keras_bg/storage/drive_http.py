"""A connection to Google Drive, with limits of time, that is counted.

Invariant: every answer is counted once; no request waits for ever; and what
may have arrived is sent again only where that changes nothing: never a part
of an upload, of which the caller asks first how much has come.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import httplib2

from colab_keras_bg.storage.pace import Pace
from colab_keras_bg.storage.traffic import Traffic

__all__ = ["CountedHttp"]

_CONNECT_SECS = 10.0
_TIMEOUT_SECS = 60.0  # Between two blocks.
_BLOCK_BYTES = 64 << 10
# How a connection shows that it was closed while it was idle.
_STALE = (http.client.RemoteDisconnected, ConnectionError)


class CountedHttp(httplib2.Http):
    """Counts what goes each way."""

    def __init__(self, traffic: Traffic, pace: Pace) -> None:
        """Takes what counts, and what slows down.

        Args:
            traffic: Is told of every answer.
            pace: Lets what is sent go.
        """
        super().__init__(timeout=_TIMEOUT_SECS)
        # It means "go on" here, not "look elsewhere".
        self.redirect_codes = frozenset({300, 301, 302, 303, 307})
        self._traffic, self._pace = traffic, pace

    def _conn_request(
        self, conn: Any, request_uri: str, method: str, body: Any, headers: Any
    ) -> Any:
        """Sends a request, and reads all of the answer.

        In place of httplib2's own, which sends anything again, whether it has
        arrived or not, and sends a body that can be read once as an empty one.
        """
        content = body.encode() if isinstance(body, str) else body or b""
        # Packed content has no ranges, and no length that could be compared.
        headers = {**headers, "accept-encoding": "identity"}
        if content:
            headers["content-length"] = str(len(content))
        was_idle = conn.sock is not None
        try:
            answer = self._asked(conn, request_uri, method, content, headers)
        except _STALE:
            conn.close()
            if not was_idle or method == "PUT":
                raise
            answer = self._asked(conn, request_uri, method, content, headers)
        try:
            received = answer.read()
        except BaseException:
            conn.close()
            raise
        self._traffic.add(
            method, sent_bytes=len(content), received_bytes=len(received)
        )
        return httplib2.Response(answer), received

    def _asked(
        self,
        conn: Any,
        request_uri: str,
        method: str,
        content: bytes,
        headers: dict[str, str],
    ) -> Any:
        try:
            if conn.sock is None:
                conn.timeout = _CONNECT_SECS
                conn.connect()
                connected: Any = conn.sock
                connected.settimeout(_TIMEOUT_SECS)
            blocks = self._blocks(content) if content else None
            conn.request(method, request_uri, blocks, headers)
            return conn.getresponse()
        except BaseException:
            conn.close()
            raise

    def _blocks(self, content: bytes) -> Iterator[memoryview]:
        """Each is sent within the limit of time, not all of them."""
        view = memoryview(content)
        for start in range(0, len(view), _BLOCK_BYTES):
            block = view[start : start + _BLOCK_BYTES]
            self._pace.take(len(block))
            yield block
