"""One sidecar: takes the run, fetches what is missing, ships until the end.

Invariant: nothing is shipped before the run is ours, and nothing is taken
before it is sure that the run can go on. Trouble is reported and waited out;
only the loss of the run ends a sidecar that has once begun to ship.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.checkpoint.keeping import KeepLast, keep_policy
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    ObjectNotFoundError,
    RunHeldError,
    StorageError,
    StorageRefusedError,
)
from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.exchange import FOLDER, Orders, Report
from colab_keras_bg.sidecar.fence import Fence, Hold
from colab_keras_bg.sidecar.fetching import Fetcher
from colab_keras_bg.sidecar.records import ShippedRecords
from colab_keras_bg.sidecar.shipping import Shipper
from colab_keras_bg.sidecar.signs import ShippedSigns
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.storage.records import DamagedRecordError, read_record

__all__ = ["DONE", "RUN", "Sidecar"]

RUN = "run.json"
DONE = "DONE"

_POLL_SECS = 0.5
_JOURNAL_SECS = 5.0
_FIRST_WAIT_SECS, _MOST_WAIT_SECS = 1.0, 30.0
_ALL = KeepLast(10**9)


class Sidecar:
    """Ships one spool."""

    def __init__(
        self,
        spool: Path,
        remote: Storage,
        *,
        traffic: Callable[[], dict[str, object]] = dict,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Takes both ends; nothing is touched yet.

        Args:
            spool: The local end, which exists.
            remote: The far end.
            traffic: Tells what was asked of it.
            clock: Seconds since 1970.
            sleep: Waits so many seconds.
        """
        self._path = spool
        self._spool = LocalStorage(spool)
        self._remote = remote
        self._traffic = traffic
        self._clock, self._sleep = clock, sleep
        self._fence = Fence(
            remote,
            holder=self._holder(),
            machine=f"the machine {socket.gethostname()}",
            clock=clock,
            sleep=sleep,
        )
        self._orders = exchange.read(spool, Orders) or Orders()
        self._report = Report(pid=os.getpid())
        # Whether one before us has begun for the very trainer that waits, or
        # trains: then this one only goes on.
        self._goes_on = self._orders.launch == self._noted("begun_for") != ""
        if self._goes_on:
            before = exchange.read(spool, Report) or self._report
            self._report = replace(
                self._report,
                durable_step=before.durable_step,
                durable_since=before.durable_since,
                past_attempt=before.past_attempt,
            )

    def run(self) -> None:
        """Works until nothing is left to do, or the run is another's.

        Raises:
            BackgroundTrainingError: If it cannot begin, or the run was lost.
        """
        self._tell(phase="starting")
        wait_secs = _FIRST_WAIT_SECS
        while True:
            try:
                self._begin()
                break
            except RunHeldError:
                raise
            except StorageError as error:
                if not self._goes_on:
                    raise
                self._trouble(error)
                self._sleep(wait_secs)
                wait_secs = min(2 * wait_secs, _MOST_WAIT_SECS)
        self._note("begun_for", self._orders.launch)
        self._tell(problem=None, problem_since=None)
        signs = ShippedSigns(
            self._spool, self._remote, claim=self._fence.hold.claim
        )
        signs.start()
        try:
            self._ship()
        finally:
            signs.stop()

    # Taking the run.

    def _begin(self) -> None:
        hold: Hold | None = None
        try:
            hold = self._fence.look()
        except DamagedRecordError as error:
            self._skip(str(error))
        ours = hold is not None and hold.claim == self._claim()
        if hold is not None and not ours and self._goes_on:
            raise RunHeldError(self._remote.describe(), holder=hold.machine)
        if hold is not None and not ours:
            self._fence.check_free(hold, take_over=self._orders.take_over)
            self._drop_void(hold)
        self._check_same_run()
        self._tell(phase="fetching")
        fetcher = Fetcher(self._remote, self._spool, watch=self._watch)
        past = 0
        is_new_here = not self._spool.exists(RUN)
        if not ours and (hold is not None or is_new_here):
            past = self._fetch_records(fetcher)
        fetched = fetcher.newest(hold)
        for missed, reason in fetched.skipped:
            self._skip(f"the checkpoint of step {missed}: {reason}")
        self._fetch_finals(fetcher, hold)
        record = read_record(self._spool, RUN) or {}
        if hold is not None and ours and (hold.holder or self._goes_on):
            # A sidecar before us has died; the trainer may be at work, and a
            # new claim would void what it commits.
            taken = self._fence.keep(hold)
        else:
            taken = self._fence.take(
                run_id=str(record.get("run_id") or secrets.token_hex(8)),
                step=max(CheckpointStore(self._spool).steps(), default=None),
                past_attempt=past,
            )
            self._note("claim", taken.claim)
            self._put_head(taken.head)
        self._shipper = self._shipping("checkpoints")
        self._finals = self._shipping("final")
        self._records = ShippedRecords(self._spool, self._remote)
        if fetched.step is not None:
            self._shipper.vouch(fetched.step)
        self._tell(phase="shipping", past_attempt=taken.head.attempt - 1)

    def _shipping(self, prefix: str) -> Shipper:
        is_final = prefix == "final"
        return Shipper(
            self._spool,
            self._remote,
            self._fence,
            keep_policy=_ALL if is_final else keep_policy(**self._orders.keep),
            prefix=prefix,
            journals=() if is_final else ("metrics.jsonl",),
            publishes=not is_final,
            clock=self._clock,
        )

    def _check_same_run(self) -> None:
        """Refuses a spool that holds another run than the far end."""
        try:
            there = read_record(self._remote, RUN)
            here = read_record(self._spool, RUN)
        except DamagedRecordError as error:
            self._skip(str(error))
            return
        if there and here and there.get("run_id") != here.get("run_id"):
            raise StorageRefusedError(
                self._remote.describe(),
                cause=f"it holds another run than {self._path}",
                advice=f"Remove {self._path}; it is only this run's spool.",
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

    def _fetch_records(self, fetcher: Fetcher) -> int:
        """Brings what another spool has written since; the last attempt."""
        names = fetcher.records("attempts/")
        for name in (RUN, DONE, "metrics.jsonl"):
            if not fetcher.record(name):
                with contextlib.suppress(ObjectNotFoundError):
                    self._spool.delete(name)
        return max(map(_number, names), default=0)

    def _fetch_finals(self, fetcher: Fetcher, hold: Hold | None) -> None:
        """What finished `fit`s left, all of it: later ones need it."""
        there = CheckpointStore(self._remote, prefix="final")
        for step in there.steps():
            try:
                manifest = there.manifest(step)
                if hold and hold.is_void(step, attempt=manifest.attempt):
                    continue
                fetcher.checkpoint(manifest, prefix="final")
            except DamagedCheckpointError as error:
                self._skip(f"the final checkpoint of step {step}: {error}")

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

    # Shipping.

    def _ship(self) -> None:
        wait_secs = _FIRST_WAIT_SECS
        journals_at = 0.0
        was_gone = False
        while True:
            orders = exchange.read(self._path, Orders) or self._orders
            if orders.launch != self._orders.launch:
                return  # A new trainer has its own sidecar.
            self._orders = orders
            gone = DirectoryLock.holder_of(self._path) is None
            if was_gone and not gone:
                return  # The same, before it has given its orders.
            was_gone = gone
            ending = gone or self._orders.finish
            try:
                if (
                    self._clock() - journals_at >= _JOURNAL_SECS
                    or self._records.lacks_run()
                ):
                    self._ship_small(but_for=(DONE,))
                    journals_at = self._clock()
                moved = self._shipper.ship() or self._finals.ship()
                if ending and not moved:
                    self._ship_small()
            except RunHeldError:
                raise
            except StorageError as error:
                self._trouble(error)
                self._sleep(wait_secs)
                wait_secs = min(2 * wait_secs, _MOST_WAIT_SECS)
                continue
            wait_secs = _FIRST_WAIT_SECS
            self._tell(problem=None, problem_since=None)
            if moved:
                continue
            if ending:
                with contextlib.suppress(StorageError):
                    self._fence.release()
                self._tell(phase="drained")
                return
            self._sleep(_POLL_SECS)

    def _ship_small(self, *, but_for: Sequence[str] = ()) -> None:
        self._fence.check()  # These go without a swap of HEAD.
        self._shipper.ship_journals()
        self._records.ship(but_for=but_for)

    def _trouble(self, error: StorageError) -> None:
        since = self._report.problem_since or self._clock()
        self._tell(problem=str(error), problem_since=since)

    # Telling.

    def _watch(self, what: str, done: int, total: int) -> None:
        self._tell(progress=(what, done, total))

    def _skip(self, what: str) -> None:
        if what:
            self._tell(skipped=(*self._report.skipped, what))

    def _tell(self, **changes: object) -> None:
        shipper = getattr(self, "_shipper", None)
        if shipper is not None:
            changes |= {
                "durable_step": shipper.durable.step,
                "durable_since": shipper.durable.since,
                "waiting": len(shipper.due()),
            }
        self._report = replace(
            self._report,
            beat=self._clock(),
            traffic=self._traffic(),
            **changes,  # type: ignore[arg-type]
        )
        with contextlib.suppress(OSError):  # The disk is full: its age tells.
            exchange.write(self._path, self._report)

    def _holder(self) -> str:
        """This spool's name, drawn when it was first asked for."""
        return self._noted("holder") or self._note(
            "holder", secrets.token_hex(8)
        )

    def _claim(self) -> str:
        """By which taking this spool has last had the run."""
        return self._noted("claim") or "none"

    def _noted(self, name: str) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self._path / FOLDER / name).read_text(encoding="utf-8")
        return ""

    def _note(self, name: str, text: str) -> str:
        folder = self._path / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        return text


def _number(name: str) -> int:
    """The attempt of `attempts/0003/attempt.json`."""
    part = name.split("/")[1]
    return int(part) if part.isdecimal() else 0
