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
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.errors import (
    ConflictError,
    ObjectNotFoundError,
    RunHeldError,
)
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.records import (
    DamagedRecordError,
    decode,
    encode,
    read_record,
)

__all__ = ["Fence", "Hold"]

# A heart beats every ten seconds; two machines' clocks may differ by minutes.
_FRESH_SECS = 600.0
_WATCH_SECS = 30.0
_LOOK_SECS = 2.0
_SETTLE_SECS = 3.0
_MOST_FENCES = 64
_UNHELD: Mapping[str, Any] = {
    "holder": "",
    "machine": "",
    "claimed": 0,
    "claim": "",
    "given_back": False,
    "fences": [],
}


@dataclass(frozen=True)
class Hold:
    """What the `HEAD` of a remote run says.

    Attributes:
        head: The newest commit, and the attempt that may write.
        holder: The name of the spool that holds it; empty if none does.
        machine: Where that is, for people.
        claimed: When it was taken, in seconds since 1970.
        claim: A name of that taking, drawn at random.
        given_back: Of a fallback: whether the run directory is gone on with.
        fences: The take-overs, oldest first: the first attempt after each,
            and the step it went on from (None: from nothing).
    """

    head: Head
    holder: str = ""
    machine: str = ""
    claimed: float = 0.0
    claim: str = ""
    given_back: bool = False
    fences: Sequence[tuple[int, int | None]] = ()

    def is_void(self, step: int, *, attempt: int) -> bool:
        """Whether a commit was cut off by a take-over.

        Args:
            step: The step of the commit.
            attempt: The attempt that has made it.
        """
        return any(
            attempt < first and step > _place(began)
            for first, began in self.fences
        )

    def taken(
        self,
        *,
        holder: str,
        machine: str,
        claimed: float,
        step: int | None,
        there: int | None = None,
    ) -> Hold:
        """The same run, held by another who goes on from a step.

        That step need not have been shipped yet: what `HEAD` names as
        committed is what was before, or was seen `there`.
        """
        named = {*self.head.steps, self.head.step, there} - {None}
        kept = sorted(s for s in named if s is not None and s <= _place(step))
        newest = kept[-1] if kept else None
        first = self.head.attempt + 1
        earlier = [
            fence
            for fence in self.fences
            # What lies beyond the new fence is void by that already.
            if _place(fence[1]) < _place(step)
        ]
        return replace(
            self,
            head=replace(
                self.head,
                attempt=first,
                step=newest,
                committed=(
                    self.head.committed if newest == self.head.step else None
                ),
                steps=tuple(kept),
            ),
            holder=holder,
            machine=machine,
            claimed=claimed,
            claim=secrets.token_hex(8),
            given_back=False,
            fences=(*earlier[1 - _MOST_FENCES :], (first, step)),
        )

    def to_bytes(self) -> bytes:
        """As it stands in `HEAD`."""
        body = {
            **vars(self.head),
            "holder": self.holder,
            "machine": self.machine,
            "claimed": self.claimed,
            "claim": self.claim,
            "given_back": self.given_back,
            "fences": [list(fence) for fence in self.fences],
        }
        return encode(HEAD, body)

    @classmethod
    def from_bytes(cls, content: bytes) -> Hold:
        """Reads what stands in `HEAD`.

        Raises:
            DamagedRecordError: If that is not what we write.
        """
        body = decode(HEAD, content)
        # One that was copied from a local run names no holder.
        match {**_UNHELD, **body}:
            case {
                "holder": str(holder),
                "machine": str(machine),
                "claimed": int() | float() as claimed,
                "claim": str(claim),
                "given_back": bool(given_back),
                "fences": list(fences),
            }:
                pass
            case _:
                raise DamagedRecordError(HEAD, reason="its holder is no name")
        return cls(
            head=Head.from_json(body),
            holder=holder,
            machine=machine,
            claimed=claimed,
            claim=claim,
            given_back=given_back,
            fences=tuple(_fence(fence) for fence in fences),
        )


def _place(step: int | None) -> int:
    return -1 if step is None else step


def _fence(value: Any) -> tuple[int, int | None]:
    match value:
        case [int(first), int() | None as began] if (
            type(first) is int and type(began) is not bool
        ):
            return first, began
    raise DamagedRecordError(HEAD, reason=f"a take-over is {value!r:.80}")


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
        intend: Callable[[str], object] = lambda claim: None,
    ) -> Hold:
        """Makes the run ours.

        Args:
            run_id: Its name, if nobody has given it one.
            step: The step that is gone on from; None if from nothing.
            there: The newest step that was seen at the far end.
            past_attempt: The last attempt that is known of otherwise: of a
                `HEAD` that cannot be understood, nothing else is.
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
        intend(taken.claim)
        self._swap(taken)
        if not self._storage.capabilities.swaps:
            # Another may have swapped at the same moment: the last one counts.
            self._sleep(_SETTLE_SECS)
            self.check()
        return taken

    def keep(self, found: Hold) -> Hold:
        """Goes on with a run that is ours: that we have taken before.

        Args:
            found: What `look` told just now.

        Raises:
            RunHeldError: If another was quicker.
            StorageError: If it cannot be written.
        """
        self.hold = found
        if found.holder != self._holder:  # It was given back.
            ours = replace(found, holder=self._holder, given_back=False)
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
