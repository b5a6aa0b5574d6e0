"""The fallback of a run directory, seen by whoever takes that one.

Invariant: of two places that a run was shipped to, the one that has the newer
commits is gone on from, and nobody else goes on shipping to the other: who
still holds it is asked to be dead, and fenced off. A fallback that was given
back is never begun from without having seen the run directory.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from colab_keras_bg.checkpoint.head import HEAD
from colab_keras_bg.errors import (
    ConflictError,
    RunHeldError,
    StorageError,
    StorageRefusedError,
)
from colab_keras_bg.sidecar.fence import Fence, Hold
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.records import DamagedRecordError

__all__ = ["StandIn"]


class StandIn:
    """What a fallback holds of a run."""

    def __init__(
        self, storage: Storage, fence: Fence, *, skip: Callable[[str], None]
    ) -> None:
        """Takes it; nothing is read yet.

        Args:
            storage: The fallback.
            fence: Of the fallback, by our name.
            skip: Told what is passed over, in words.
        """
        self._storage, self._fence, self._skip = storage, fence, skip
        self._hold: Hold | None = None

    @property
    def where(self) -> str:
        """Where it is, for people."""
        return self._storage.describe()

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
        if hold is None:
            return found
        if found.head.run_id != hold.head.run_id:
            raise StorageRefusedError(
                self.where,
                cause=f"it holds another run than {run_dir}",
                advice="Give another fallback_dir.",
            )
        if _place(found) > _place(hold):
            return found
        # Somebody has gone on from it, and nothing of that has arrived.
        began = hold.fences[-1][1] if hold.fences else None
        is_lacking = began == found.head.step and (
            hold.head.step is None or hold.head.step < began
        )
        return found if is_lacking else None

    def close(self, *, take_over: bool) -> None:
        """Sees to it that nobody goes on shipping there.

        To be called once the run directory is ours. Whoever held it finds out
        with his next write.

        Args:
            take_over: Whether to take the run from one that lives.

        Raises:
            RunHeldError: If somebody does live.
            StorageError: If it cannot be written.
        """
        while self._hold is not None and self._hold.holder:
            hold = self._hold
            closed = replace(
                hold, holder="", given_back=True, claim=secrets.token_hex(8)
            )
            try:
                self._storage.swap(
                    HEAD, closed.to_bytes(), expected=hold.to_bytes()
                )
            except ConflictError:  # It has just committed.
                if not take_over:
                    raise RunHeldError(
                        self.where, holder=hold.machine
                    ) from None
                self._hold = self._fence.look()
            else:
                return

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


def _place(hold: Hold) -> tuple[int, int]:
    """How far a run has come, as its HEAD says."""
    step = hold.head.step
    return hold.head.attempt, -1 if step is None else step
