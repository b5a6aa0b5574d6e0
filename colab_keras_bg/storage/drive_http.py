"""A connection to Google Drive, with a limit of time, that is counted.

Invariant: every answer is counted once; no request waits for ever.
"""

from __future__ import annotations

from typing import Any

import httplib2

from colab_keras_bg.storage.traffic import Traffic

__all__ = ["CountedHttp"]

_TIMEOUT_SECS = 60.0


class CountedHttp(httplib2.Http):
    """Counts what goes each way."""

    def __init__(self, traffic: Traffic) -> None:
        """Takes what counts.

        Args:
            traffic: Is told of every answer.
        """
        super().__init__(timeout=_TIMEOUT_SECS)
        # It means "go on" here, not "look elsewhere".
        self.redirect_codes = frozenset({300, 301, 302, 303, 307})
        self._traffic = traffic

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: Any = None,
        headers: Any = None,
        **more: Any,
    ) -> Any:
        """See `httplib2.Http.request`."""
        sent = int((headers or {}).get("content-length") or 0)
        if not sent and isinstance(body, bytes | str):
            sent = len(body)
        answer, content = super().request(
            uri, method=method, body=body, headers=headers, **more
        )
        self._traffic.add(
            method, sent_bytes=sent, received_bytes=len(content or b"")
        )
        return answer, content
