"""Calls that may hang, with a limit.

Invariant: the caller never waits longer than the limit without progress of
its own call. What hangs is left alone, and nothing new is begun before it has
come back, so that threads do not pile up and the order of what was asked for
is kept. A call that was left alone gets no further than to its next beat: what
it was given to write may be something else by then.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

__all__ = ["HangsError", "Patience"]

_T = TypeVar("_T")
_LOOK_SECS = 0.25


class HangsError(Exception):
    """A call has not come back, or an earlier one has not yet."""


class _Call(threading.Thread):
    """One call, in a thread of its own, which may never end."""

    def __init__(self, call: Callable[[], Any], *, now: float) -> None:
        super().__init__(name="a call that may hang", daemon=True)
        self.result: Any = None
        self.error: BaseException | None = None
        self.beaten = now
        self.is_left = False
        self._call = call

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            self.error = error


class Patience:
    """Makes calls, and waits for them only so long."""

    def __init__(
        self, secs: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Takes the limit.

        Args:
            secs: For how long a call may show no progress.
            clock: Seconds that only grow.
        """
        self.secs = secs
        self._clock = clock
        self._left: list[_Call] = []
        self._lock = threading.Lock()

    def beat(self) -> None:
        """Tells that a call gets on; to be called from within.

        Raises:
            HangsError: If nobody waits for it any more.
        """
        call = threading.current_thread()
        if isinstance(call, _Call):
            with self._lock:
                if call.is_left:
                    raise HangsError
                call.beaten = self._clock()

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Within it a call waits for something that is not what may hang."""
        call = threading.current_thread()
        if not isinstance(call, _Call):
            yield
            return
        self._set(call, math.inf)
        try:
            yield
        finally:
            self._set(call, self._clock())

    def call(self, call: Callable[[], _T]) -> _T:
        """Calls.

        Args:
            call: What may hang.

        Returns:
            What it returns.

        Raises:
            HangsError: If it hangs, or one before it still does.
            BaseException: What it raises.
        """
        with self._lock:
            self._left = [one for one in self._left if one.is_alive()]
            left = list(self._left)
        for one in left:  # One that was interrupted may be about to end.
            self._wait(one)
        thread = _Call(call, now=self._clock())
        thread.start()
        try:
            self._wait(thread)
        except BaseException:
            with self._lock:
                thread.is_left = True
                thread.beaten = min(thread.beaten, self._clock())
                self._left.append(thread)
            raise
        if thread.error is not None:
            raise thread.error
        result: _T = thread.result
        return result

    def _wait(self, call: _Call) -> None:
        """Returns when a call has ended; raises when it hangs."""
        while call.is_alive():
            with self._lock:
                if self._clock() - call.beaten > self.secs:
                    call.is_left = True
                    raise HangsError
            call.join(min(_LOOK_SECS, self.secs))

    def _set(self, call: _Call, beaten: float) -> None:
        with self._lock:
            if not call.is_left:  # Nobody waits: the rest may not take long.
                call.beaten = beaten
