"""How far something has come that a person waits for.

Invariant: nothing is shown of what takes less than a second; a terminal shows
one line that grows, a file gets a line now and then.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

__all__ = ["ProgressBar"]

_QUIET_SECS = 1.0
_TERMINAL_SECS = 0.1
_FILE_SECS = 10.0
_WIDTH = 30


class ProgressBar:
    """A bar on standard error; may be called by several threads in turn."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Shows nothing yet.

        Args:
            clock: Seconds that only grow.
        """
        self._clock = clock
        self._began = self._shown = clock()

    def __call__(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """Shows how far it has come, if it is time.

        Args:
            what: What is done, in words.
            done_bytes: How much of it is; 0 at its begin.
            total_bytes: How much there is.
        """
        now = self._clock()
        if done_bytes == 0:
            self._began, self._shown = now, float("-inf")
        over = done_bytes >= total_bytes
        if over and self._shown == float("-inf"):
            return
        terminal = self._is_terminal()
        wait = _TERMINAL_SECS if terminal else _FILE_SECS
        due = now - self._began >= _QUIET_SECS and now - self._shown >= wait
        if not due and not over:
            return
        self._shown = now
        share = done_bytes / total_bytes if total_bytes else 1.0
        bar = ("#" * round(share * _WIDTH)).ljust(_WIDTH, "-")
        line = (
            f"colab-keras-bg: {what} [{bar}] {share:4.0%} of "
            f"{total_bytes / 1e6:,.0f} MB"
        )
        start, end = ("\r", "\n" if over else "") if terminal else ("", "\n")
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"{start}{line}{end}")
            sys.stderr.flush()

    @staticmethod
    def _is_terminal() -> bool:
        with contextlib.suppress(ValueError, AttributeError):
            return sys.stderr.isatty()
        return False
