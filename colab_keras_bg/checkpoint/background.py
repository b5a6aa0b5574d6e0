"""Saving in the background, one save at a time.

Invariant: at most one save is in flight and one waits; the outcome of each,
good or bad, is handed to the caller's thread exactly once. The thread is not a
daemon: an interpreter that ends waits for the save it has begun.
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
    """Runs saves in a thread, one after the other."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts idle.

        Args:
            clock: Seconds that only grow.
        """
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._waiting: tuple[int, Callable[[], Any]] | None = None
        self._outcomes: list[Outcome] = []

    @property
    def busy(self) -> bool:
        """Whether a save is in flight, or its outcome not yet taken."""
        return self._thread is not None

    @property
    def waiting(self) -> int | None:
        """The step of the save that waits for the one in flight."""
        waiting = self._waiting
        return None if waiting is None else waiting[0]

    def submit(self, step: int, save: Callable[[], Any]) -> None:
        """Starts a save, or has it wait for the one in flight.

        One that waits already is given up for it.

        Args:
            step: The step that is saved.
            save: Does it. May raise.
        """
        with self._lock:
            self._waiting = step, save
            if self._thread is not None and self._thread.is_alive():
                return
        self._start()

    def take_outcomes(self, *, wait: bool = False) -> list[Outcome]:
        """The outcomes of the saves that have ended since the last call.

        Args:
            wait: Whether to wait for the one in flight, and the one waiting.
        """
        thread = self._thread
        if thread is not None:
            if thread.is_alive() and not wait:
                return []
            thread.join()
            self._thread = None
        outcomes, self._outcomes = self._outcomes, []
        if self._waiting is None:
            return outcomes
        self._start()  # It came when the thread was just ending.
        return outcomes + self.take_outcomes(wait=wait)

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._work, name="checkpoint-save", daemon=False
        )
        try:
            thread.start()
        except RuntimeError as error:  # The system has no more threads.
            if self._waiting is not None:
                step, self._waiting = self._waiting[0], None
                self._outcomes.append(Outcome(step, 0.0, error))
        else:
            self._thread = thread

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._waiting is None:
                    return
                (step, save), self._waiting = self._waiting, None
            started = self._clock()
            error: BaseException | None = None
            try:
                save()
            # Whatever it is: nobody but the caller would ever see it.
            except BaseException as raised:  # noqa: BLE001 - handed over
                error = raised
            self._outcomes.append(Outcome(step, self._clock() - started, error))
            del save  # What it has saved is held no longer.
