"""How much was asked of a storage: requests, and bytes each way.

Invariant: every answer is counted once, whatever it says; so the numbers are
what a bill would go by.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

__all__ = ["Traffic"]


class Traffic:
    """Counts the requests of one storage; threads may share it."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._sent = self._received = 0

    def count(self, response: Any, *_: Any, **__: Any) -> None:
        """Counts an answer; to be a hook of a session of `requests`.

        Args:
            response: The answer, with the request it is to.
        """
        request = response.request
        sent = int(request.headers.get("Content-Length") or 0)
        received = int(response.headers.get("Content-Length") or 0)
        self.add(request.method, sent_bytes=sent, received_bytes=received)

    def add(
        self, what: str, *, sent_bytes: int = 0, received_bytes: int = 0
    ) -> None:
        """Counts a request.

        Args:
            what: Its method.
            sent_bytes: How much was sent with it.
            received_bytes: How much was answered.
        """
        with self._lock:
            self._requests[what] += 1
            self._sent += sent_bytes
            self._received += received_bytes

    def to_json(self) -> dict[str, Any]:
        """The counts so far: `requests` by method, and bytes each way."""
        with self._lock:
            return {
                "requests": dict(self._requests),
                "sent_bytes": self._sent,
                "received_bytes": self._received,
            }
