"""Signals that end a program do it as an exception; its children, as ever.

Invariant: a process that the program forks dies of SIGTERM from its first
moment on. A pool of processes sends it to children it has only just forked:
there, between the fork and our hook, it would be left to a handler that never
runs, and the pool would wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType

__all__ = ["exit_on_sigterm", "interrupted_by"]

_SIGTERM = {signal.SIGTERM}
# By thread: several may fork at once.
_before = threading.local()


def exit_on_sigterm(exit_status: int) -> None:
    """Raises `SystemExit` in the main thread when SIGTERM comes.

    To be called once, in the main thread.

    Args:
        exit_status: The status that it carries.
    """

    def terminated(number: int, frame: FrameType | None) -> None:
        raise SystemExit(exit_status)

    def die_of_it() -> None:
        if signal.getsignal(signal.SIGTERM) is terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _let_through()

    signal.signal(signal.SIGTERM, terminated)
    os.register_at_fork(
        before=_hold_back,
        after_in_parent=_let_through,
        after_in_child=die_of_it,
    )


@contextlib.contextmanager
def interrupted_by(*numbers: int) -> Iterator[None]:
    """Has signals raise `KeyboardInterrupt`; those ignored stay ignored.

    To be used in the main thread.

    Args:
        numbers: The signals.
    """

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupted)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hold_back() -> None:
    _before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGTERM)


def _let_through() -> None:
    mask: Iterable[int] = getattr(_before, "mask", ())
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
