"""One sidecar: takes the run, fetches what is missing, ships until the end.

Invariant: trouble is reported and waited out; only the loss of the run ends a
sidecar that has once begun to ship. A fallback stands in for the run directory
while that stays dead, and for no longer; what was shipped to it meanwhile is
shipped to the run directory then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colab_keras_bg.checkpoint.head import HEAD
from colab_keras_bg.errors import (
    ObjectNotFoundError,
    RunHeldError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.sidecar.attending import Trainer, Word
from colab_keras_bg.sidecar.far_end import FarEnd
from colab_keras_bg.sidecar.reporting import Reporter
from colab_keras_bg.sidecar.shipping import Durable
from colab_keras_bg.sidecar.standing_in import StandIn
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage

__all__ = ["Sidecar"]

_POLL_SECS = 0.5
_PROBE_SECS, _MOST_PROBE_SECS = 30.0, 600.0
# Who has been heard of so lately is taken over by nobody; see `Fence`.
_SURE_SECS = 480.0
_SHIPPED_TO = "; it is shipped to "
_FIRST_WAIT_SECS, _MOST_WAIT_SECS = 1.0, 30.0


class _StaysDeadError(Exception):
    """The run directory has been dead for so long that the fallback is due."""


class _IsBackError(Exception):
    """The run directory can be reached again."""


class Sidecar:
    """Ships one spool."""

    def __init__(
        self,
        spool: Path,
        remote: Storage,
        fallback: Storage | None = None,
        *,
        reporter: Reporter | None = None,
        drain: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Takes both ends; nothing is touched at the far one yet.

        Args:
            spool: The local end, which exists.
            remote: The far end.
            fallback: Stands in for it while it stays dead.
            reporter: Told how it is doing.
            drain: Has all that is still to be written here written, before
                the last of it is shipped.
            clock: Seconds since 1970.
            sleep: Waits so many seconds.
        """
        storage = LocalStorage(spool)
        self._first = FarEnd(storage, remote, clock=clock, sleep=sleep)
        self._fallback: FarEnd | None = None
        if fallback is not None:
            self._fallback = FarEnd(
                storage, fallback, of="fallback-", clock=clock, sleep=sleep
            )
        self._clock, self._sleep = clock, sleep
        self._reporter = reporter or Reporter(spool, clock=clock)
        self._drain = drain
        self._trainer = Trainer(spool)
        self._has_begun = False
        self._wait_secs = _FIRST_WAIT_SECS
        # What is wrong with the first while the fallback stands in for it.
        self._standing: str | None = None
        self._probe_secs = _PROBE_SECS
        # The first was gone back to, and nothing was shipped to it since.
        self._is_on_trial = False
        self._tried_at = 0.0

    def run(self) -> None:
        """Works until nothing is left to do, or the run is another's.

        Raises:
            BackgroundTrainingError: If it cannot begin, or the run was lost.
        """
        self._reporter.start()
        try:
            self._run()
        finally:
            self._reporter.stop()

    def _run(self) -> None:
        far = self._first
        remote = far.remote.describe()
        self._tell(phase="starting")
        for one in filter(None, (self._first, self._fallback)):
            if self._trainer.orders.launch and (
                one.notes.begun_for == self._trainer.orders.launch
            ):
                # One before us has begun for the very trainer that waits, or
                # trains: this one only carries on.
                self._has_begun, far = True, one
                before = self._reporter.before
                if one is self._fallback:
                    told, _, _ = (before.problem or "").partition(_SHIPPED_TO)
                    self._standing = told or f"{remote} was dead"
                self._tell(
                    durable_step=before.durable_step,
                    durable_since=before.durable_since,
                    past_attempt=before.past_attempt,
                )
        while True:
            try:
                self._serve(far)
                return
            except _StaysDeadError:
                assert self._fallback is not None  # noqa: S101 - it is due
                far = self._fallback
            except _IsBackError:
                far, self._is_on_trial = self._first, True
            except StorageError as error:
                # A fallback that cannot be begun with is no reason to end: the
                # run directory is tried again.
                if far is self._first or not self._has_begun:
                    raise
                self._tell(problem=self._told(error))
                self._sleep(self._wait_secs)
                far = self._first

    def _serve(self, far: FarEnd) -> None:
        """Takes the run there, and ships until the end."""
        is_first = far is self._first
        if is_first:
            self._standing = None
        self._take(far)
        self._has_begun = True
        self._trouble_is_over()
        is_back = None if is_first else self._probing()
        try:
            with far.signs_of_life():
                self._ship(far, is_back)
        finally:
            if is_back is not None:
                is_back.set()  # Nobody needs to know any more.

    def _take(self, far: FarEnd) -> None:
        fallback = self._fallback.remote if self._fallback else None
        while True:
            try:
                taken = far.take(
                    self._trainer.orders,
                    carries_on=self._has_begun,
                    fallback=fallback if far is self._first else None,
                    beside=self._beside(far),
                    watch=lambda *told: self._tell(
                        phase="fetching", progress=told
                    ),
                    skip=self._skip,
                )
            except RunHeldError:
                raise
            except StorageError as error:
                if not self._has_begun:
                    if far is self._first:
                        self._try_fallback(error)
                    raise
                self._trouble(far, error)
            else:
                break
        # Before it is told: one that follows is to carry on.
        far.notes.begun_for = self._trainer.orders.launch
        if (other := self._other(far)) is not None:
            other.notes.begun_for = ""
        self._tell_durable(far)  # Before: whoever waits for the phase reads it.
        self._tell(
            phase="shipping",
            far=far.remote.describe(),
            confirms=far.remote.capabilities.confirms,
            past_attempt=taken.hold.head.attempt - 1,
        )

    def _try_fallback(self, error: StorageError) -> None:
        """Begins there, if the run is known to have gone on there."""
        if self._fallback is None or isinstance(error, StorageRefusedError):
            return
        if not isinstance(error, StorageUnavailableError):
            return
        if not StandIn.may_begin(self._fallback.remote):
            return  # The run directory's own trouble tells more.
        self._standing = str(error)
        self._skip(str(error))
        raise _StaysDeadError from error

    def _ship(self, far: FarEnd, is_back: threading.Event | None) -> None:
        while True:
            word = self._trainer.word()
            if word is Word.LEAVE:
                return
            ending = word is Word.FINISH
            if ending:
                self._drain()
            try:
                moved = far.ship(ending=ending)
            except RunHeldError:
                raise
            except StorageError as error:
                if is_back is not None and is_back.is_set():
                    is_back = self._back_or_on(far)
                self._trouble(far, error)
                continue
            self._trouble_is_over()
            self._tell_durable(far)
            if moved:
                self._has_shipped(far)
                continue
            if ending:
                far.release()
                self._tell(phase="drained")
                return
            if is_back is not None and is_back.is_set():
                is_back = self._back_or_on(far)
            self._pay_debt(far)
            self._sleep(_POLL_SECS)

    def _has_shipped(self, far: FarEnd) -> None:
        if far is self._first:
            self._is_on_trial, self._probe_secs = False, _PROBE_SECS

    def _beside(self, far: FarEnd) -> dict[str, Any]:
        """What one end is to say of the other, when it is gone on with."""
        if far is not self._first:
            return {"stands_for": self._first.notes.claim}
        seen = self._fallback.hold if self._fallback else None
        if seen is None:
            return {}
        return {"after": seen.head.attempt, "follows": seen.stands_for}

    def _back_or_on(self, far: FarEnd) -> threading.Event:
        """Goes back to the run directory, or goes on looking at it.

        Raises:
            RunHeldError: If it is another's by now.
        """
        if self._may_leave(far):
            raise _IsBackError
        return self._probing()

    def _pay_debt(self, far: FarEnd) -> None:
        """Closes a fallback that could not be closed when it was left."""
        other = self._other(far)
        if other is None or other is self._first or not other.notes.is_open:
            return
        if self._clock() - self._tried_at > _PROBE_SECS:
            self._tried_at = self._clock()
            with contextlib.suppress(StorageError):
                other.close()

    def _may_leave(self, far: FarEnd) -> bool:
        """Closes the fallback, so that the run directory can be gone back to.

        Should it not answer: for a while nobody else can have taken it.

        Raises:
            RunHeldError: If it is another's by now.
        """
        try:
            far.close()
        except StorageError as error:
            if self._clock() - far.heard_at < _SURE_SECS:
                return True
            self._tell(
                problem=(
                    "the run directory is back, but the fallback, which is to "
                    f"be closed first, is not: {error}"
                )
            )
            return False
        return True

    def _probing(self) -> threading.Event:
        """Is set as soon as the run directory can be read again."""
        is_back = threading.Event()
        wait_secs = self._probe_secs

        def probe() -> None:
            while not is_back.wait(wait_secs):
                try:
                    self._first.remote.read(HEAD)
                except ObjectNotFoundError:
                    is_back.set()
                except StorageError:
                    continue
                else:
                    is_back.set()

        threading.Thread(target=probe, name="probe", daemon=True).start()
        return is_back

    def _other(self, far: FarEnd) -> FarEnd | None:
        return self._fallback if far is self._first else self._first

    # Telling.

    def _trouble(self, far: FarEnd, error: StorageError) -> None:
        """Tells of it, and waits a while."""
        now = self._clock()
        since = self._reporter.report.problem_since or now
        self._tell(
            problem=self._told(error),
            problem_since=since,
            waiting=far.waiting,
        )
        is_due = now - since > self._trainer.orders.fallback_after_secs
        if self._is_on_trial and far is self._first:
            is_due = True
            self._probe_secs = min(2 * self._probe_secs, _MOST_PROBE_SECS)
        if far is self._first and self._fallback is not None and is_due:
            self._standing = str(error)
            raise _StaysDeadError from error
        self._sleep(self._wait_secs)
        self._wait_secs = min(2 * self._wait_secs, _MOST_WAIT_SECS)

    def _told(self, error: Exception) -> str:
        if self._standing is None:
            return str(error)
        return f"{self._standing}; and the fallback: {error}"

    def _trouble_is_over(self) -> None:
        self._wait_secs = _FIRST_WAIT_SECS
        if self._standing is None:
            self._tell(problem=None, problem_since=None)
        else:
            where = self._reporter.report.far
            self._tell(problem=f"{self._standing}{_SHIPPED_TO}{where}")

    def _skip(self, what: str) -> None:
        if what:
            self._tell(skipped=(*self._reporter.report.skipped, what))

    def _tell_durable(self, far: FarEnd) -> None:
        # What the other end has is durable, too.
        ends = [far, *filter(None, [self._other(far)])]
        durable = max((one.durable for one in ends), key=_place)
        changes: dict[str, object] = {"waiting": far.waiting}
        told = self._reporter.report
        if durable.step is not None and durable.step != told.durable_step:
            changes |= {
                "durable_step": durable.step,
                "durable_since": durable.since,
            }
        self._tell(**changes)

    def _tell(self, **changes: object) -> None:
        self._reporter.tell(**changes)


def _place(durable: Durable) -> int:
    return -1 if durable.step is None else durable.step
