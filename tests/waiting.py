"""Waiting for something to become true, and for nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]


def until(
    condition: Callable[[], object], *, what: str, patience_secs: float = 30.0
) -> None:
    """Returns as soon as a condition holds.

    Args:
        condition: Is asked again and again.
        what: What is waited for, in words.
        patience_secs: How long, on a machine that does much else.

    Raises:
        TimeoutError: If it never does.
    """
    give_up = time.monotonic() + patience_secs
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {patience_secs} s in vain: {what}")
        time.sleep(0.005)
