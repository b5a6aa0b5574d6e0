"""Who may write to a run that lies on a remote storage.

Invariant: `HEAD` changes by compare-and-swap only, and whoever has swapped it
last holds the run. A take-over writes down the step that it goes on from:
what an earlier attempt has committed beyond that, or still commits, is void.
So two that both live never both commit, wherever the loser was stopped.

A holder is known by a name drawn at random for each spool. Whether another
one lives is told by its heartbeat, `status.json`; that the two machines'
clocks agree is not relied on: a heartbeat that seems fresh is watched.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.errors import (
    ConflictError,
    ObjectNotFoundError,
    RunHeldError,
)
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.records import (
    DamagedRecordError,
    read_record,
)

__all__ = ["Fence"]

# A heart beats every ten seconds; two machines' clocks may differ by minutes.
_FRESH_SECS = 600.0
_WATCH_SECS = 30.0
_LOOK_SECS = 2.0
_SETTLE_SECS = 3.0


class Fence:
    """Takes a remote run, and publishes its commits as long as it is ours."""

    def __init__(
        self,
        storage: Storage,
        *,
        holder: str,
        machine: str,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Knows nothing of the run yet.

        Args:
            storage: Where it lies.
            holder: Our spool's name.
            machine: Where we are, for people.
            clock: Seconds since 1970.
            sleep: Waits so many seconds.
        """
        self._storage = storage
        self._holder, self._machine = holder, machine
        self._clock, self._sleep = clock, sleep
        self._content: bytes | None = None
        self.hold = Hold(Head(run_id="", attempt=0))

    def beside(self, storage: Storage) -> Fence:
        """The fence of another storage, by the same name.

        Args:
            storage: The other storage.
        """
        return Fence(
            storage,
            holder=self._holder,
            machine=self._machine,
            clock=self._clock,
            sleep=self._sleep,
        )

    def look(self) -> Hold | None:
        """What `HEAD` says now; None if there is none.

        Raises:
            DamagedRecordError: If it cannot be understood.
            StorageUnavailableError: If it cannot be read.
        """
        try:
            content = self._storage.read(HEAD)
        except ObjectNotFoundError:
            self._content = None
            return None
        self._content = content
        return Hold.from_bytes(content)

    def check_free(self, found: Hold, *, take_over: bool = False) -> None:
        """Returns if no other holder lives; may watch one for a while.

        Args:
            found: What `look` told.
            take_over: Whether to take the run from one that lives.

        Raises:
            RunHeldError: If one does.
        """
        if take_over or found.holder in ("", self._holder):
            return
        beat = self._heartbeat()
        last = max(found.claimed, beat)
        if self._clock() - last > _FRESH_SECS:
            return
        begun = self._clock()
        while self._clock() - begun < _WATCH_SECS:
            self._sleep(_LOOK_SECS)
            again = self._storage.read(HEAD)
            if again != self._content or self._heartbeat() != beat:
                raise RunHeldError(
                    self._storage.describe(), holder=found.machine
                )

    def take(
        self,
        *,
        run_id: str,
        step: int | None,
        there: int | None = None,
        past_attempt: int = 0,
        beside: Mapping[str, Any] = MappingProxyType({}),
        intend: Callable[[str], object] = lambda claim: None,
    ) -> Hold:
        """Makes the run ours.

        Args:
            run_id: Its name, if nobody has given it one.
            step: The step that is gone on from; None if from nothing.
            there: The newest step that was seen at the far end.
            past_attempt: The last attempt that is known of otherwise: of a
                `HEAD` that cannot be understood, nothing else is.
            beside: What else `HEAD` is to say of a fallback.
            intend: Told by which claim, before it is written: should the
                answer be lost, the run is ours all the same.

        Raises:
            RunHeldError: If another was quicker.
            StorageError: If it cannot be written.
        """
        before = Hold(Head(run_id=run_id, attempt=0))
        if self._content is not None:
            with contextlib.suppress(DamagedRecordError):
                before = Hold.from_bytes(self._content)
        past = max(before.head.attempt, past_attempt)
        before = replace(before, head=replace(before.head, attempt=past))
        taken = before.taken(
            holder=self._holder,
            machine=self._machine,
            claimed=self._clock(),
            step=step,
            there=there,
        )
        taken = replace(taken, **beside)
        intend(taken.claim)
        self._swap(taken)
        if not self._storage.capabilities.swaps:
            # Another may have swapped at the same moment: the last one counts.
            self._sleep(_SETTLE_SECS)
            self.check()
        return taken

    def keep(self, found: Hold, **changes: Any) -> Hold:
        """Goes on with a run that is ours: that we have taken before.

        Args:
            found: What `look` told just now.
            changes: What else of it is to be otherwise.

        Raises:
            RunHeldError: If another was quicker.
            StorageError: If it cannot be written.
        """
        self.hold = found
        ours = replace(found, holder=self._holder, given_back=False, **changes)
        if ours != found:  # It was given back.
            self._swap(ours)
        return self.hold

    def publish(self, head: Head) -> None:
        """Says what is committed.

        Args:
            head: The newest commit of ours.

        Raises:
            RunHeldError: If the run is no longer ours.
            StorageError: If it cannot be written.
        """
        self._swap(replace(self.hold, head=head))

    def release(self, *, given_back: bool = False) -> None:
        """Gives the run back: the next one need not ask whether we live.

        Args:
            given_back: Of a fallback: whether the run directory is gone on
                with.

        Raises:
            RunHeldError: If the run is no longer ours.
            StorageError: If it cannot be written.
        """
        self._swap(replace(self.hold, holder="", given_back=given_back))

    def check(self) -> None:
        """Returns if the run is still ours.

        Raises:
            RunHeldError: If it is not.
            StorageUnavailableError: If that cannot be told.
        """
        try:
            content = self._storage.read(HEAD)
        except ObjectNotFoundError:
            content = b""
        if content == self._content:
            return
        found = Hold(Head(run_id="", attempt=0), machine="unknown")
        with contextlib.suppress(DamagedRecordError):
            found = Hold.from_bytes(content)
        if not self.hold.claim or found.claim != self.hold.claim:
            raise RunHeldError(self._storage.describe(), holder=found.machine)
        # Ours: the answer to an earlier swap was lost.
        self._content, self.hold = content, found

    def _swap(self, hold: Hold) -> None:
        content = hold.to_bytes()
        try:
            self._storage.swap(HEAD, content, expected=self._content)
        except ConflictError:
            self.check()  # Raises if it is not our own doing.
            self._storage.swap(HEAD, content, expected=self._content)
        self._content, self.hold = content, hold

    def _heartbeat(self) -> float:
        try:
            signs = read_record(self._storage, STATUS) or {}
            return float(signs["heartbeat"])
        except (DamagedRecordError, ValueError, KeyError, TypeError):
            return 0.0
