"""A server as a program: it says its URL, and does what it is told.

Invariant: it ends at SIGTERM or SIGINT, when its standard input is closed,
and when its parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator

from colab_keras_bg.testing.loopback.server import LoopbackServer

__all__ = ["serve"]

_LOOK_FOR_PARENT_SECS = 1.0


def serve(server: LoopbackServer, *, parent: int) -> None:
    """Runs a server until there is reason to end.

    Args:
        server: The server.
        parent: The process that has started this one.
    """
    with contextlib.suppress(KeyboardInterrupt), server:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(server.url, flush=True)
        for word in _words(parent):
            {"stop": server.stop, "start": server.start}[word]()
            print(word, flush=True)


def _words(parent: int) -> Iterator[str]:
    """What is said on the standard input, until there is reason to end."""
    descriptor = sys.stdin.fileno()
    text = b""
    while os.getppid() == parent:
        if not select.select([descriptor], [], [], _LOOK_FOR_PARENT_SECS)[0]:
            continue
        said = os.read(descriptor, 4096)
        if not said:
            return
        *lines, text = (text + said).split(b"\n")
        yield from (line.decode().strip() for line in lines if line.strip())
