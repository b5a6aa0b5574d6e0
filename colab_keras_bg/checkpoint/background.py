"""Saving in the background, one save at a time.

Invariant: at most one save is in flight; its outcome, good or bad, is handed
to the caller's thread exactly once. The thread is not a daemon: an
interpreter that ends waits for the save it has begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["BackgroundSaver", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a save ended.

    Attributes:
        step: The step that was to be saved.
        took_secs: How long it took.
        error: Why it failed, or None.
    """

    step: int
    took_secs: float
    error: BaseException | None


class BackgroundSaver:
    """Runs saves in a thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts idle.

        Args:
            clock: Seconds that only grow.
        """
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None

    @property
    def busy(self) -> bool:
        """Whether a save is in flight, or its outcome not yet taken."""
        return self._thread is not None

    def submit(self, step: int, save: Callable[[], Any]) -> None:
        """Starts a save.

        Args:
            step: The step that is saved.
            save: Does it. May raise.

        Raises:
            RuntimeError: If one is in flight, or no thread can be started.
        """
        if self.busy:
            raise RuntimeError("A save is in flight.")

        def work() -> None:
            started = self._clock()
            error: BaseException | None = None
            try:
                save()
            # Whatever it is: nobody but the caller would ever see it.
            except BaseException as raised:  # noqa: BLE001 - handed over
                error = raised
            self._outcome = Outcome(step, self._clock() - started, error)

        thread = threading.Thread(
            target=work, name="checkpoint-save", daemon=False
        )
        thread.start()
        self._thread = thread

    def take_outcome(self, *, wait: bool = False) -> Outcome | None:
        """The outcome of the save that has ended since the last call.

        Args:
            wait: Whether to wait for the one in flight.

        Returns:
            The outcome, once; None if there is none.
        """
        thread = self._thread
        if thread is None or (thread.is_alive() and not wait):
            return None
        thread.join()
        self._thread = None
        outcome, self._outcome = self._outcome, None
        return outcome
