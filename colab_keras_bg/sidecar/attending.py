"""Whether whoever gave a sidecar its orders is still at work.

Invariant: it ends when the trainer has ended, however that was, and when
another trainer has given orders, who has a sidecar of his own. It never ends
because a person or a kernel went away.
"""

from __future__ import annotations

import enum
from pathlib import Path

from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.exchange import Orders
from colab_keras_bg.storage.lock import DirectoryLock

__all__ = ["Trainer", "Word"]


class Word(enum.Enum):
    """What is to be done."""

    GO_ON = "go on"
    FINISH = "finish what there is"
    LEAVE = "leave it to another"


class Trainer:
    """The other end of a sidecar's orders.

    Attributes:
        orders: As they were last given.
    """

    def __init__(self, spool: Path) -> None:
        """Reads the orders.

        Args:
            spool: The run's local directory.
        """
        self._spool = spool
        self.orders = exchange.read(spool, Orders) or Orders()
        self._was_gone = False

    def word(self) -> Word:
        """What is to be done now.

        Raises:
            StorageUnavailableError: If it cannot be told who holds the run.
        """
        orders = exchange.read(self._spool, Orders) or self.orders
        if orders.launch != self.orders.launch:
            return Word.LEAVE
        self.orders = orders
        gone = DirectoryLock.holder_of(self._spool) is None
        if self._was_gone and not gone:
            return Word.LEAVE  # The next one, which has not ordered yet.
        self._was_gone = gone
        return Word.FINISH if gone or orders.finish else Word.GO_ON
