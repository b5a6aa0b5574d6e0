"""A run is taken: fetched where it is not here, and then ours.

Invariant: nothing is taken before it is sure that the run can go on, and
nothing is fetched into a spool in which a trainer is at work. "Cannot be
read" passes through: it is never "there is nothing".
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    ObjectNotFoundError,
    RunHeldError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.journal.attempts import Attempts
from colab_keras_bg.journal.logbook import TENSORBOARD
from colab_keras_bg.sidecar.fence import Fence
from colab_keras_bg.sidecar.fetching import Fetcher
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.sidecar.notes import Notes
from colab_keras_bg.sidecar.standing_in import StandIn
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import DamagedRecordError, read_record

__all__ = ["DONE", "METRICS", "RUN", "Taken", "Taking"]

RUN = "run.json"
DONE = "DONE"
METRICS = "metrics.jsonl"

# A live holder changes HEAD every few seconds.
_TRIES = 3
# What stands for a holder whose HEAD cannot be understood.
_UNREADABLE = Hold(
    Head(run_id="", attempt=0),
    holder="unknown",
    machine="a machine that its damaged HEAD does not name",
)


@dataclass(frozen=True)
class Taken:
    """A run that is ours.

    Attributes:
        hold: What its `HEAD` says now.
        verified: The step that is at the far end and was verified; None if
            none is.
    """

    hold: Hold
    verified: int | None


class Taking:
    """Takes one far end for one spool."""

    def __init__(
        self,
        spool: LocalStorage,
        remote: Storage,
        fence: Fence,
        notes: Notes,
        *,
        launch: str,
        take_over: bool = False,
        watch: Callable[[str, int, int], None] | None = None,
        skip: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Takes both ends; nothing is read yet.

        Args:
            spool: The local end.
            remote: The far end.
            fence: Holds the far end.
            notes: What was noted of it.
            launch: Whose trainer waits, or trains.
            take_over: Whether to take it from a machine that lives.
            watch: Told how far fetching has come.
            skip: Told what is passed over, in words.
        """
        self._spool, self._remote, self._fence = spool, remote, fence
        self._notes, self._launch = notes, launch
        self._take_over = take_over
        self._watch, self._skip = watch, skip
        self._drawn = secrets.token_hex(8)  # The name of a run without one.

    def begin(self, *, fallback: Storage | None = None) -> Taken:
        """Before a trainer starts: brings here what it needs.

        Args:
            fallback: Where the run may have been shipped to meanwhile.

        Raises:
            RunHeldError: If another live attempt holds the run.
            NoUsableCheckpointError: If there are checkpoints and none
                verifies.
            StorageError: If it cannot be read, or not be taken.
        """
        hold, is_damaged = self._look()
        for _ in range(_TRIES - 1):
            try:
                return self._begin(fallback, hold, is_damaged=is_damaged)
            except RunHeldError:
                seen = hold
                hold, is_damaged = self._look()
                if not self._take_over or hold is None or seen is None:
                    raise
                if hold.claim != seen.claim:
                    raise
                # Whoever it is taken from has just changed it.
        return self._begin(fallback, hold, is_damaged=is_damaged)

    def _begin(
        self, fallback: Storage | None, hold: Hold | None, *, is_damaged: bool
    ) -> Taken:
        ours = hold is not None and self._notes.is_ours(hold.claim)
        if is_damaged or (hold is not None and not ours):
            # Whoever has spoilt a HEAD, who holds the run may live.
            self._check_free(hold or _UNREADABLE)
        if hold is not None and not ours:
            self._drop_void(hold)
        self._check_same_run(hold)
        newer, beside = None, self._beside(fallback, hold)
        if beside is not None:
            run_dir = self._remote.describe()
            newer = beside.newer_than(hold, run_dir=run_dir)
            beside.close(hold, run_id=self._run_id(), take_over=self._take_over)
        verified = None
        if newer is not None and fallback is not None:
            self._drop_void(newer)
            self._skip(
                f"{self._remote.describe()}, which is older than "
                f"{fallback.describe()}, at step {newer.head.step}"
            )
            assert beside is not None  # noqa: S101 - it told of it
            self._fetch(fallback, newer, records=not beside.is_ours)
        else:
            is_new = hold is not None or not self._spool.exists(RUN)
            records = not ours and (is_new or is_damaged)
            verified = self._fetch(self._remote, hold, records=records)
        past = max(Attempts(self._spool).numbers(), default=0)
        if newer is not None:
            past = max(past, newer.head.attempt)
        if ours and hold is not None and hold.holder and newer is None:
            # A sidecar before us has died, and its trainer with it.
            return Taken(self._fence.keep(hold), verified)
        after = None if beside is None else beside.attempt
        taken = self._take(past_attempt=past, there=verified, after=after)
        return Taken(taken, verified)

    def carry_on(
        self,
        *,
        stands_for: str = "",
        after: int | None = None,
        follows: str | None = None,
    ) -> Taken:
        """While a trainer is at work: fetches nothing, voids nothing of it.

        Args:
            stands_for: Of a fallback: for which taking it stands in.
            after: Of a run directory that is gone back to: the last attempt
                that the fallback knows of.
            follows: And for which taking that has stood in: if it is another
                by now, the run has gone on without us.

        Raises:
            RunHeldError: If the run is another's, or was since we had it.
            StorageError: If it cannot be read, or not be taken.
        """
        hold, _ = self._look()
        attempt = max(Attempts(self._spool).numbers(), default=1)
        if hold is not None and self._notes.is_ours(hold.claim):
            return self._kept(hold, stands_for=stands_for, after=after)
        if self._notes.begun_for == self._launch and hold is not None:
            raise RunHeldError(self._remote.describe(), holder=hold.machine)
        if hold is not None:
            last = max(hold.head.attempt, hold.closed_at)
            is_other = follows is not None and hold.claim != follows
            if is_other or last >= attempt:  # Two have gone on.
                raise RunHeldError(self._remote.describe(), holder=hold.machine)
            self._fence.check_free(hold)  # A take-over counts at a start.
        self._check_same_run(hold)
        beside = {"stands_for": stands_for} if stands_for else {"after": after}
        taken = self._take(past_attempt=attempt - 1, exactly=True, **beside)
        return Taken(taken, None)

    def _kept(self, hold: Hold, *, stands_for: str, after: int | None) -> Taken:
        """Of what is ours, what has been shipped there is known.

        A run directory that is gone back to is taken anew: what the fallback
        stood in for is no longer what is there.
        """
        changes: dict[str, Any] = {}
        if stands_for:
            changes = {"stands_for": stands_for}
        elif after is not None:
            claim = secrets.token_hex(8)
            self._notes.intended = claim
            changes = {"after": after, "claim": claim}
        kept = self._fence.keep(hold, **changes)
        self._notes.claim = kept.claim
        return Taken(kept, kept.head.step)

    def _beside(
        self, fallback: Storage | None, hold: Hold | None
    ) -> StandIn | None:
        """The fallback, by the name that we have there; None if none counts.

        Where the run was given back in the run directory, nobody has gone on
        elsewhere: then it does not matter whether the fallback answers.
        """
        if fallback is None:
            return None
        fence = self._fence.beside(fallback)
        notes = self._notes.of_fallback()
        beside = StandIn(fallback, fence, notes, skip=self._skip)
        try:
            beside.check_free(take_over=self._take_over)
        except StorageUnavailableError as error:
            is_sure = hold is not None and (
                not hold.holder
                or (self._notes.is_ours(hold.claim) and not beside.was_used)
            )
            if is_sure:
                self._skip(f"the fallback: {error}")
                return None
            raise StorageUnavailableError(
                f"Whether newer steps lie in the fallback {beside.where} "
                f"cannot be told: {error} Without fallback_dir, the run is "
                "gone on with from the run directory, and they are void."
            ) from error
        return beside

    def _run_id(self) -> str:
        record = read_record(self._spool, RUN) or {}
        return str(record.get("run_id") or self._drawn)

    def _look(self) -> tuple[Hold | None, bool]:
        """What HEAD says, and whether that cannot be understood."""
        try:
            return self._fence.look(), False
        except DamagedRecordError as error:
            self._skip(str(error))
            return None, True

    def _check_free(self, hold: Hold) -> None:
        self._fence.check_free(hold, take_over=self._take_over)

    def _take(
        self,
        *,
        past_attempt: int,
        there: int | None = None,
        exactly: bool = False,
        **beside: Any,
    ) -> Hold:
        taken = self._fence.take(
            run_id=self._run_id(),
            step=max(CheckpointStore(self._spool).steps(), default=None),
            there=there,
            past_attempt=past_attempt,
            beside=beside,
            intend=lambda claim: setattr(self._notes, "intended", claim),
        )
        self._notes.claim = taken.claim
        if not exactly:
            self._put_head(taken.head)
        return taken

    def _fetch(
        self, remote: Storage, hold: Hold | None, *, records: bool
    ) -> int | None:
        """Brings what the spool lacks; the newest step there."""
        fetcher = Fetcher(remote, self._spool, watch=self._watch)
        if records:
            # What a fallback has been given, the run directory lacks.
            is_first = remote is self._remote
            fetcher.records("attempts/", but_for=".log" if is_first else "")
            for name in (RUN, DONE, METRICS):
                if not fetcher.record(name):
                    with contextlib.suppress(ObjectNotFoundError):
                        self._spool.delete(name)
        fetched = fetcher.newest(hold)
        for missed, reason in fetched.skipped:
            self._skip(f"the checkpoint of step {missed}: {reason}")
        self._fetch_finals(remote, fetcher, hold)
        if records:
            fetcher.events(TENSORBOARD, step=fetched.step if is_first else None)
        return fetched.step

    def _fetch_finals(
        self, remote: Storage, fetcher: Fetcher, hold: Hold | None
    ) -> None:
        """What finished `fit`s left, all of it: later ones need it."""
        there = CheckpointStore(remote, prefix="final")
        for step in there.steps():
            try:
                manifest = there.manifest(step)
                if hold and hold.is_void(step, attempt=manifest.attempt):
                    continue
                fetcher.checkpoint(manifest, prefix="final")
            except DamagedCheckpointError as error:
                self._skip(f"the final checkpoint of step {step}: {error}")

    def _check_same_run(self, hold: Hold | None) -> None:
        """Refuses a spool that holds another run than the far end."""
        try:
            there = read_record(self._remote, RUN) or {}
            here = read_record(self._spool, RUN) or {}
        except DamagedRecordError as error:
            self._skip(str(error))
            return
        known = there.get("run_id") or (hold.head.run_id if hold else None)
        if known and here and here.get("run_id") != known:
            path = self._spool.describe()
            raise StorageRefusedError(
                self._remote.describe(),
                cause=f"it holds another run than {path}",
                advice=f"Remove {path}; it is only this run's spool.",
            )

    def _drop_void(self, hold: Hold) -> None:
        """Another has gone on meanwhile: what we have beyond that is void."""
        for prefix in ("checkpoints", "final"):
            store = CheckpointStore(self._spool, prefix=prefix)
            for step in store.steps():
                with contextlib.suppress(DamagedCheckpointError):
                    attempt = store.manifest(step).attempt
                    if hold.is_void(step, attempt=attempt):
                        store.delete(step)

    def _put_head(self, head: Head) -> None:
        """What the trainer counts its attempts from."""
        try:
            here = Head.read(self._spool)
        except DamagedRecordError:
            here = None
        # Not all that is kept there is fetched.
        before = replace(head, attempt=head.attempt - 1, steps=())
        if here is None or here.attempt < before.attempt:
            before.write(self._spool)
