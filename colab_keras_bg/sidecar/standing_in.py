"""The fallback of a run directory, seen by whoever takes that one.

Invariant: of two places that a run was shipped to, what is newer is gone on
from, and nobody goes on shipping to the one that is not. The fallback's `HEAD`
says for which taking of the run directory it stands in; whoever takes the run
directory closes the fallback first, whatever it holds, so that one who lives
and ships there, or would, finds out with his next write. A fallback that is
closed is never begun from without having seen the run directory.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.errors import (
    ConflictError,
    RunHeldError,
    StorageError,
    StorageRefusedError,
)
from colab_keras_bg.sidecar.fence import Fence
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.sidecar.notes import Notes
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.records import DamagedRecordError

__all__ = ["StandIn"]


class StandIn:
    """What a fallback holds of a run.

    Attributes:
        attempt: The last attempt that it knows of, once it is closed.
    """

    def __init__(
        self,
        storage: Storage,
        fence: Fence,
        notes: Notes,
        *,
        skip: Callable[[str], None],
    ) -> None:
        """Takes it; nothing is read yet.

        Args:
            storage: The fallback.
            fence: Of the fallback, by our name.
            notes: What was noted of the fallback.
            skip: Told what is passed over, in words.
        """
        self._storage, self._fence, self._skip = storage, fence, skip
        self._notes = notes
        self._hold: Hold | None = None
        self.attempt = 0

    @property
    def where(self) -> str:
        """Where it is, for people."""
        return self._storage.describe()

    @property
    def is_ours(self) -> bool:
        """Whether this spool was the last to ship there."""
        return self._hold is not None and self._notes.is_ours(self._hold.claim)

    @property
    def was_used(self) -> bool:
        """Whether this spool has ever shipped there, as far as it knows."""
        return bool(self._notes.claim or self._notes.intended)

    def check_free(self, *, take_over: bool) -> None:
        """Returns if nobody else who lives ships there.

        Args:
            take_over: Whether to take the run from one that lives.

        Raises:
            RunHeldError: If somebody does.
            StorageUnavailableError: If that cannot be told.
        """
        try:
            self._hold = self._fence.look()
        except DamagedRecordError as error:
            self._skip(f"the fallback {self.where}: {error}")
        if self._hold is not None:
            self._fence.check_free(self._hold, take_over=take_over)

    def newer_than(self, hold: Hold | None, *, run_dir: str) -> Hold | None:
        """What it says, if it has commits that the run directory lacks.

        Args:
            hold: What the run directory's `HEAD` says.
            run_dir: The run directory, for people.

        Raises:
            StorageRefusedError: If it holds another run.
        """
        found = self._hold
        if found is None or found.head.step is None:
            return None
        if hold is None:  # What lies there tells more than what is closed.
            return None if found.given_back else found
        if found.head.run_id != hold.head.run_id:
            raise StorageRefusedError(
                self.where,
                cause=f"it holds another run than {run_dir}",
                advice="Give another fallback_dir.",
            )
        stands_in = found.stands_for == hold.claim
        # Somebody has gone on from it, and not all of it has arrived.
        was_seen = hold.after == found.head.attempt
        is_further = hold.head.step is None or found.head.step > hold.head.step
        return found if (stands_in or was_seen) and is_further else None

    def close(self, hold: Hold | None, *, run_id: str, take_over: bool) -> None:
        """Sees to it that nobody goes on, or begins, to ship there.

        Args:
            hold: What the run directory's `HEAD` says, which is to be taken.
            run_id: The run's name, if nothing there tells it.
            take_over: Whether to take the run from one that lives.

        Raises:
            RunHeldError: If somebody does live.
            StorageError: If it cannot be written.
        """
        while True:
            closed = self._closed(hold, run_id)
            self._notes.closed = closed.claim
            expected = None if self._hold is None else self._hold.to_bytes()
            try:
                self._storage.swap(HEAD, closed.to_bytes(), expected=expected)
            except ConflictError:  # It has just committed.
                if not take_over:
                    machine = self._hold.machine if self._hold else "unknown"
                    raise RunHeldError(self.where, holder=machine) from None
                self._hold = self._fence.look()
            else:
                self.attempt = closed.head.attempt
                return

    def _closed(self, hold: Hold | None, run_id: str) -> Hold:
        before = self._hold or Hold(Head(run_id=run_id, attempt=0))
        known = before.head.attempt if hold is None else hold.head.attempt
        return replace(
            before,
            head=replace(
                before.head,
                run_id=hold.head.run_id if hold else before.head.run_id,
            ),
            closed_at=max(before.closed_at, known),
            holder="",
            given_back=True,
            claim=secrets.token_hex(8),
            stands_for=before.stands_for or (hold.claim if hold else ""),
        )

    @staticmethod
    def may_begin(storage: Storage) -> bool:
        """Whether a run goes on there, as long as the first is out of reach.

        Args:
            storage: The fallback.
        """
        try:
            found = Hold.from_bytes(storage.read(HEAD))
        except (DamagedRecordError, StorageError):
            return False  # The run directory's own trouble tells more.
        return found.head.step is not None and not found.given_back
