"""`status.json`: a sign of life, at most every ten seconds.

Invariant: a heartbeat that cannot be written never disturbs the training; it
is old then, which is what a reader looks at.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from colab_keras_bg.errors import StorageError
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.records import write_record

__all__ = ["STATUS", "Heartbeat"]

STATUS = "status.json"


class Heartbeat:
    """Writes vital signs from a thread of its own."""

    def __init__(
        self,
        storage: Storage,
        vital_signs: Callable[[], Mapping[str, Any]],
        *,
        interval_secs: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Starts silent.

        Args:
            storage: The run directory.
            vital_signs: What to write, as JSON values.
            interval_secs: How long to wait between two beats.
            clock: Seconds since 1970.
        """
        self._storage = storage
        self._vital_signs = vital_signs
        self._interval_secs = interval_secs
        self._clock = clock
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Beats from now on."""
        self._ending = False
        self._wake.clear()
        self._thread = threading.Thread(
            target=self._work, name="heartbeat", daemon=True
        )
        self._thread.start()

    def beat(self) -> None:
        """Asks for a beat now."""
        self._wake.set()

    def stop(self) -> None:
        """Beats once more and stops."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while True:
            # Read before the beat: the last one must tell of the end.
            ending = self._ending
            signs = {**self._vital_signs(), "heartbeat": self._clock()}
            # On a full disk the old record stays, and its age tells.
            with contextlib.suppress(StorageError):
                write_record(self._storage, STATUS, signs)
            if ending:
                return
            self._wake.wait(self._interval_secs)
            self._wake.clear()
