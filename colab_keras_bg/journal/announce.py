"""What this package says to the person at the console.

Invariant: one line a message, under one name, on standard error, so that a
program's own output stays its own; a closed console never stops a training,
and nothing that was read from a file reaches the terminal as a command.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["copied_to", "printable", "said_after", "say"]

_copies: list[Callable[[bytes], object]] = []

# What a terminal obeys instead of showing, what turns the direction of the
# text around it, and halves of characters, which no stream can encode. Only
# the end of a line stays.
_UNPRINTABLE = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def printable(text: str) -> str:
    r"""A text that a terminal shows and does not obey.

    Args:
        text: Any text.

    Returns:
        The text with control characters as escapes; ends of lines stay.

    >>> printable("\x1b[2J")
    '\\x1b[2J'
    """
    return _UNPRINTABLE.sub(
        lambda found: found[0].encode("unicode_escape").decode(), text
    )


def say(message: str) -> None:
    """Says something to whoever watches.

    Args:
        message: What to say; several lines are kept as they are.
    """
    line = f"colab-keras-bg: {printable(message)}\n"
    for copy in _copies:
        copy(line.encode("utf-8", "backslashreplace"))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(line)
        sys.stderr.flush()


@contextlib.contextmanager
def copied_to(copy: Callable[[bytes], object]) -> Iterator[None]:
    """Has what is said given to somebody else, too.

    Args:
        copy: Is given each line.
    """
    _copies.append(copy)
    try:
        yield
    finally:
        _copies.remove(copy)


@contextlib.contextmanager
def said_after(secs: float, message: str) -> Iterator[None]:
    """Says something while the block takes longer than that, again and again.

    Args:
        secs: So long nothing is said.
        message: What to say; the time that has passed is added.
    """
    over = threading.Event()

    def tell() -> None:
        begun = time.monotonic()
        while not over.wait(secs):
            say(f"{message}, after {time.monotonic() - begun:.0f} s")

    thread = threading.Thread(target=tell, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
