"""A sidecar of a run that lies on this machine's disk: nothing is shipped.

Invariant: it outlives the trainer until what that has printed is stored, and
then ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from colab_keras_bg.errors import StorageError
from colab_keras_bg.sidecar.attending import Trainer, Word
from colab_keras_bg.sidecar.reporting import Reporter

__all__ = ["LocalSidecar"]

_POLL_SECS = 0.25


class LocalSidecar:
    """Waits for the trainer's end while the duties are done."""

    def __init__(
        self,
        spool: Path,
        reporter: Reporter,
        *,
        drain: Callable[[], object],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Takes the run's directory.

        Args:
            spool: The directory.
            reporter: Told how it is doing.
            drain: Finishes the duties.
            sleep: Waits so many seconds.
        """
        self._reporter, self._drain, self._sleep = reporter, drain, sleep
        self._trainer = Trainer(spool)

    def run(self) -> None:
        """Returns when nothing is left to do."""
        self._reporter.start()
        try:
            self._reporter.tell(phase="watching")
            while self._word() is Word.GO_ON:
                self._sleep(_POLL_SECS)
            self._drain()
            self._reporter.tell(phase="drained")
        finally:
            self._reporter.stop()

    def _word(self) -> Word:
        try:
            return self._trainer.word()
        except StorageError:
            return Word.GO_ON  # It cannot be told now.
