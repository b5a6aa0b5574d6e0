"""Calls that may hang, with a limit.

Invariant: the caller never waits longer than the limit without progress; what
hangs is left alone, and nothing new is begun before it has come back. So the
order of what was asked for is kept, and threads do not pile up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["HangsError", "Patience"]

_T = TypeVar("_T")
_LOOK_SECS = 0.25


class HangsError(Exception):
    """A call has not come back, or an earlier one has not yet."""


class _Call(threading.Thread):
    """One call, in a thread of its own, which may never end."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(name="a call that may hang", daemon=True)
        self.result: Any = None
        self.error: BaseException | None = None
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
        self._beaten = clock()
        self._hanging: list[_Call] = []
        self._lock = threading.Lock()

    def beat(self) -> None:
        """Tells that a call gets on; to be called from within."""
        self._beaten = self._clock()

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
            self._hanging = [one for one in self._hanging if one.is_alive()]
            if self._hanging:
                raise HangsError
        thread = _Call(call)
        self.beat()
        thread.start()
        thread.join(min(_LOOK_SECS, self.secs))
        while thread.is_alive():
            if self._clock() - self._beaten > self.secs:
                with self._lock:
                    self._hanging.append(thread)
                raise HangsError
            thread.join(min(_LOOK_SECS, self.secs))
        if thread.error is not None:
            raise thread.error
        result: _T = thread.result
        return result
