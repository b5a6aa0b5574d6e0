"""A process that shows a file that grows, and outlives who writes to it.

Invariant: it ends when its parent has, after the last that that has written
was shown; however that ended. It imports nothing of this package, so that it
starts in an instant and stays small.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

__all__ = ["main"]

_BLOCK_BYTES = 1 << 16
# Looking takes next to nothing, and less of it while there is nothing to see.
_POLL_SECS, _IDLE_SECS = 0.02, 0.1


def main() -> None:
    """`shower.py FILE START DESCRIPTOR PARENT`."""
    path, start, descriptor, parent = sys.argv[1:]
    # A key that interrupts goes to the whole terminal; a closed one is none.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(0, False)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    at, secs = int(start), _POLL_SECS
    while True:
        # Asked before it is read: what comes after was not written by it.
        is_over = _is_told() or os.getppid() != int(parent)
        before, at = at, _show(file, at, int(descriptor))
        if is_over:
            return
        secs = min(_IDLE_SECS, 1.3 * secs) if at == before else _POLL_SECS
        select.select([0], [], [], secs)  # Who tells us to end is heard.


def _is_told() -> bool:
    """Whether we are told to end, or nobody is left to tell."""
    try:
        os.read(0, 1)
    except BlockingIOError:
        return False
    return True


def _show(file: int, at: int, descriptor: int) -> int:
    """Shows what has come; returns how far that is."""
    while True:
        # What was given back to the disk comes no more. It raises at the end
        # of the file, and where there are no holes.
        with contextlib.suppress(OSError):
            at = max(at, os.lseek(file, at, os.SEEK_DATA))
        content = os.pread(file, _BLOCK_BYTES, at)
        if not content:
            return at
        at += len(content)
        view = memoryview(content)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                time.sleep(_POLL_SECS)
            except OSError:
                break  # Nobody is there to see it.


if __name__ == "__main__":
    main()
