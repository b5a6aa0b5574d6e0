"""The duty of writing down what a run uses.

Invariant: a look takes milliseconds; its line belongs to the attempt that is
at work. What will run out is warned of for as long as that is so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from colab_keras_bg.errors import StorageError
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.journal.machine import Machine
from colab_keras_bg.journal.resources import ResourceMeter, append_resources
from colab_keras_bg.journal.trends import Trends
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import DamagedRecordError, read_record

__all__ = ["Sampling"]


class Sampling:
    """Writes `resources.jsonl`.

    Attributes:
        interval_secs: How often.
        warnings: What will run out before long, in words.
    """

    def __init__(
        self,
        spool: Path,
        *,
        interval_secs: float,
        machine: Machine | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes the run's local directory.

        Args:
            spool: The directory.
            interval_secs: How often to look.
            machine: What is looked at.
            clock: Seconds since 1970.
        """
        self._spool, self._clock = spool, clock
        self._storage = LocalStorage(spool)
        self._meter = ResourceMeter(spool, machine or Machine())
        self._trends = Trends()
        self.interval_secs = interval_secs
        self.warnings: tuple[str, ...] = ()

    def do(self) -> None:
        """See `Duty.do`."""
        try:
            signs = read_record(self._storage, STATUS) or {}
        except (DamagedRecordError, StorageError):
            return
        look = self._meter.look(signs, now=self._clock())
        if type(signs.get("attempt")) is not int or "process_bytes" not in look:
            return  # Nobody is at work yet, or any more.
        self.warnings = self._trends.warnings(look)
        append_resources(self._spool, signs["attempt"], look)

    def finish(self) -> None:
        """See `Duty.finish`."""
        self.do()
