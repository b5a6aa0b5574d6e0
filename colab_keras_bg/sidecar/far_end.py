"""One far end of a run, and all that ships to it.

Invariant: nothing is shipped to it before the run is ours there.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from colab_keras_bg.checkpoint.keeping import KeepLast, keep_policy
from colab_keras_bg.errors import RunHeldError, StorageError
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.sidecar.exchange import Orders
from colab_keras_bg.sidecar.fence import Fence
from colab_keras_bg.sidecar.growing import ATTEMPTS, EVENTS, GrowingFiles
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.sidecar.notes import Notes
from colab_keras_bg.sidecar.records import ShippedRecords
from colab_keras_bg.sidecar.shipping import Durable, Shipper
from colab_keras_bg.sidecar.signs import ShippedSigns
from colab_keras_bg.sidecar.taking import DONE, METRICS, Taken, Taking
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import DamagedRecordError

__all__ = ["FarEnd"]

_JOURNAL_SECS = 5.0
_ALL = KeepLast(10**9)


class FarEnd:
    """Ships one spool to one place.

    Attributes:
        remote: That place.
        notes: What was noted of it.
        hold: By which it was last taken.
        heard_at: When it last answered, in seconds since 1970.
    """

    def __init__(
        self,
        spool: LocalStorage,
        remote: Storage,
        *,
        of: str = "",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Takes both ends; nothing is touched there yet.

        Args:
            spool: The local end.
            remote: The far end.
            of: What its notes are called; see `Notes`.
            clock: Seconds since 1970.
            sleep: Waits so many seconds.
        """
        self.remote = remote
        self.notes = Notes(spool.directory, of=of)
        self._spool, self._clock, self._sleep = spool, clock, sleep
        self._shipper: Shipper | None = None
        self.hold: Hold | None = None
        self.heard_at = 0.0

    @property
    def durable(self) -> Durable:
        """What is there, verified."""
        return self._shipper.durable if self._shipper else Durable()

    @property
    def waiting(self) -> int:
        """How many checkpoints are not there yet, as far as is known."""
        return len(self._shipper.lacking()) if self._shipper else 0

    def take(
        self,
        orders: Orders,
        *,
        carries_on: bool,
        fallback: Storage | None = None,
        beside: Mapping[str, Any] = MappingProxyType({}),
        watch: Callable[[str, int, int], None],
        skip: Callable[[str], None],
    ) -> Taken:
        """Makes the run ours there, and gets ready to ship.

        Args:
            orders: What is to be done.
            carries_on: Whether a trainer is at work already.
            fallback: Where the run may have been shipped to meanwhile.
            beside: The arguments of `Taking.carry_on`.
            watch: Told how far fetching has come.
            skip: Told what is passed over, in words.

        Raises:
            BackgroundTrainingError: See `Taking`.
        """
        fence = self._new_fence()
        taking = Taking(
            self._spool,
            self.remote,
            fence,
            self.notes,
            launch=orders.launch,
            take_over=orders.take_over,
            watch=watch,
            skip=skip,
        )
        if "stands_for" in beside:
            self.notes.is_open = True  # Before: whoever dies has said it.
        if carries_on:
            taken = taking.carry_on(**beside)
        else:
            taken = taking.begin(fallback=fallback)
        self._fence = fence
        self._events = GrowingFiles(self._spool, self.remote, rules=EVENTS)
        self._attempts = GrowingFiles(self._spool, self.remote, rules=ATTEMPTS)
        self._shipper = self._shipping(orders, "checkpoints")
        self._finals = self._shipping(orders, "final")
        self._records = ShippedRecords(self._spool, self.remote)
        self._journals_at = 0.0
        if taken.verified is not None:
            self._shipper.vouch(taken.verified)
        self.hold, self.heard_at = taken.hold, self._clock()
        return taken

    @contextlib.contextmanager
    def signs_of_life(self) -> Iterator[None]:
        """Has them shipped meanwhile."""
        signs = ShippedSigns(
            self._spool, self.remote, claim=self._fence.hold.claim
        )
        signs.start()
        try:
            yield
        finally:
            signs.stop()

    def ship(self, *, ending: bool) -> bool:
        """Ships what is due, or the newest of it.

        Args:
            ending: Whether nothing more is to come, so that all that is there
                is to be shipped.

        Returns:
            Whether there was a checkpoint.

        Raises:
            RunHeldError: If the run is no longer ours there.
            StorageError: If something could not be shipped now.
        """
        is_time = self._clock() - self._journals_at >= _JOURNAL_SECS
        if is_time or self._records.lacks_run():
            self._ship_small(but_for=(DONE, STATUS))  # See `signs_of_life`.
            self._journals_at = self._clock()
        assert self._shipper is not None  # noqa: S101 - it was taken
        moved = self._shipper.ship() or self._finals.ship()
        if is_time or moved:
            self.heard_at = self._clock()
        if ending and not moved:
            self._ship_small()
        return moved

    def release(self) -> None:
        """Gives the run back there, if that is possible."""
        with contextlib.suppress(StorageError):
            self._fence.release()

    def close(self) -> None:
        """Of a fallback: has nobody begin from what is there.

        Raises:
            RunHeldError: If the run is no longer ours there.
            StorageError: If it cannot be written.
        """
        fence = self._new_fence()
        try:
            found = fence.look()
        except DamagedRecordError:
            found = None
        if found is not None and not found.given_back:
            if not self.notes.is_ours(found.claim):
                raise RunHeldError(self.remote.describe(), holder=found.machine)
            fence.keep(found)
            fence.release(given_back=True)
        self.notes.is_open = False

    def _new_fence(self) -> Fence:
        return Fence(
            self.remote,
            holder=self.notes.holder,
            machine=f"the machine {socket.gethostname()}",
            clock=self._clock,
            sleep=self._sleep,
        )

    def _shipping(self, orders: Orders, prefix: str) -> Shipper:
        is_final = prefix == "final"
        return Shipper(
            self._spool,
            self.remote,
            self._fence,
            keep_policy=_ALL if is_final else keep_policy(**orders.keep),
            prefix=prefix,
            journals=() if is_final else (METRICS,),
            publishes=not is_final,
            goes_before=self._events.ship,
            clock=self._clock,
        )

    def _ship_small(self, *, but_for: Sequence[str] = ()) -> None:
        assert self._shipper is not None  # noqa: S101 - it was taken
        self._fence.check()  # These go without a swap of HEAD.
        self._shipper.ship_journals()
        self._events.ship()
        self._attempts.ship()
        self._records.ship(but_for=but_for)
