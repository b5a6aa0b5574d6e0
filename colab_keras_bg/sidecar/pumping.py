"""The duty of storing what attempts print.

Invariant: when it is finished, all that was written is stored, and the raw
output of attempts that are over takes no space any more.
"""

from __future__ import annotations

from pathlib import Path

from colab_keras_bg.journal.console_pump import ConsolePump
from colab_keras_bg.storage.lock import DirectoryLock

__all__ = ["Pumping"]


class Pumping:
    """Stores the console."""

    interval_secs = 0.5

    def __init__(self, spool: Path, *, limit_bytes: int) -> None:
        """Takes the run's local directory.

        Args:
            spool: The directory.
            limit_bytes: How much of an attempt is kept, about.
        """
        self._spool = spool
        self._pump = ConsolePump(spool, limit_bytes=limit_bytes)

    def do(self) -> None:
        """See `Duty.do`."""
        self._pump.pump()

    def finish(self) -> None:
        """See `Duty.finish`."""
        if DirectoryLock.holder_of(self._spool) is None:
            self._pump.drop()
        else:
            self._pump.drain()
