"""The trainer's signs of life, shipped whatever else takes its time.

Invariant: they go by a thread of their own: an upload that takes an hour, or
waiting for the network, does not make a live run look dead. They go only as
long as `HEAD` says that the run is ours.
"""

from __future__ import annotations

import contextlib
import threading

from colab_keras_bg.checkpoint.head import HEAD
from colab_keras_bg.errors import ObjectNotFoundError, StorageError
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import DamagedRecordError

__all__ = ["ShippedSigns"]

_FIRST_SECS, _INTERVAL_SECS = 0.0, 10.0


class ShippedSigns:
    """Ships `status.json` every ten seconds."""

    def __init__(
        self, spool: LocalStorage, remote: Storage, *, claim: str
    ) -> None:
        """Takes both ends; see `start`.

        Args:
            spool: The local end.
            remote: The far end.
            claim: By which taking the run is ours.
        """
        self._spool, self._remote, self._claim = spool, remote, claim
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._work, name="signs of life", daemon=True
        )

    def start(self) -> None:
        """Ships from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Asks it to end; what is under way is not waited for."""
        self._ending.set()

    def _work(self) -> None:
        shipped = b""
        wait_secs = _FIRST_SECS
        while not self._ending.wait(wait_secs):
            wait_secs = _INTERVAL_SECS
            with contextlib.suppress(
                ObjectNotFoundError, DamagedRecordError, StorageError
            ):
                signs = self._spool.read(STATUS)
                if signs != shipped and self._is_ours():
                    self._remote.replace(STATUS, signs)
                    shipped = signs

    def _is_ours(self) -> bool:
        return Hold.from_bytes(self._remote.read(HEAD)).claim == self._claim
