"""What this package says to the person at the console.

Invariant: one line a message, under one name, on standard error, so that a
program's own output stays its own; a closed console never stops a training.
"""

from __future__ import annotations

import contextlib
import sys

__all__ = ["say"]


def say(message: str) -> None:
    """Says something to whoever watches.

    Args:
        message: What to say; several lines are kept as they are.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"colab-keras-bg: {message}\n")
        sys.stderr.flush()
