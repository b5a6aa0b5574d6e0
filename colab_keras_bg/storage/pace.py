"""How fast may be sent.

Invariant: over any time longer than a moment no more is sent than the limit,
by however many threads; what was let go is paid for by waiting before the
next, so that nothing waits that is alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Pace"]


class Pace:
    """Lets bytes go, one after another."""

    def __init__(
        self,
        bytes_per_sec: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Takes the limit.

        Args:
            bytes_per_sec: How much may be sent; None for no limit.
            clock: Seconds that only grow.
            sleep: Waits so many seconds.
        """
        self._bytes_per_sec = bytes_per_sec
        self._clock, self._sleep = clock, sleep
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> None:
        """Returns when so much may be sent.

        Args:
            size_bytes: How much is about to be.
        """
        if self._bytes_per_sec is None:
            return
        with self._lock:
            now = self._clock()
            begin = max(self._free_at, now)
            self._free_at = begin + size_bytes / self._bytes_per_sec
        if begin > now:
            self._sleep(begin - now)
