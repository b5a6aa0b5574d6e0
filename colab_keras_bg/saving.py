"""The saves of a run: when, in the background, and what is kept of them.

Invariant: a save that fails never stops the training: it is said at once,
shown by `status`, and the next one tries again. HEAD names a step only after
its checkpoint is committed, and metrics up to a step are synced before it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from colab_keras_bg.checkpoint.background import BackgroundSaver, Outcome
from colab_keras_bg.checkpoint.policies import (
    KeepPolicy,
    Progress,
    SavePolicy,
)
from colab_keras_bg.checkpoint.store import Checkpoint, CheckpointStore
from colab_keras_bg.errors import (
    NoUsableCheckpointError,
    Skipped,
    StepExistsError,
)
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.metrics import MetricsJournal
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.tensor import LazyTensor

__all__ = ["Saves"]


class Saves:
    """Commits and finds the checkpoints of an open run.

    Attributes:
        problem: What went wrong with the last save; None if nothing did.
    """

    def __init__(
        self,
        directory: RunDirectory,
        metrics: MetricsJournal,
        *,
        save_policy: SavePolicy,
        keep_policy: KeepPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes an open run's directory.

        Args:
            directory: The run directory.
            metrics: The reports to sync before each commit.
            save_policy: When to save.
            keep_policy: What to keep.
            clock: Seconds that only grow.
        """
        self._directory = directory
        self._metrics = metrics
        self._save_policy = save_policy
        self._keep_policy = keep_policy
        self._clock = clock
        self._saver = BackgroundSaver(clock=clock)
        self._last = (0, clock())
        self._cost_secs: float | None = None
        self._overdue = False
        self.problem: str | None = None

    # Going on.

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; None if there is none yet.

        Raises:
            NoUsableCheckpointError: If there are some and none verifies.
            StorageUnavailableError: If that cannot be told.
        """
        self.wait()
        found = self._directory.checkpoints.latest(
            expected=self._directory.head.step
        )
        for skipped in found.skipped if found else ():
            _say_skipped("checkpoint", skipped)
        return found

    def final(self, fit: int) -> Checkpoint | None:
        """What a finished `fit` left; None if it left nothing usable.

        Args:
            fit: Which `fit` of the program, from 0.
        """
        below = None
        while True:
            try:
                found = self._directory.finals.latest(below=below)
            except NoUsableCheckpointError as error:
                for skipped in error.skipped:
                    _say_skipped("final checkpoint", skipped)
                return None
            if found is None or _fit_of(found) == fit:
                return found
            below = found.step

    def begin_at(self, step: int) -> None:
        """Tells from which step on the training goes."""
        self._last = (step, self._clock())
        self._overdue = False

    # Saving.

    def due(self, step: int, *, epoch_ended: bool = False) -> bool:
        """Whether to save now; also brings home how the last save ended.

        Args:
            step: The present step.
            epoch_ended: Whether an epoch has just ended.
        """
        self._collect(self._saver.take_outcome())
        if step == self._last[0]:
            return False
        self._overdue = self._overdue or self._save_policy.due(
            Progress(
                steps_since_save=step - self._last[0],
                secs_since_save=self._clock() - self._last[1],
                epoch_ended=epoch_ended,
                save_cost_secs=self._cost_secs,
            )
        )
        # A snapshot that waits would pin a second copy of the state: one
        # that comes due during a save is taken when that has ended.
        return self._overdue and not self._saver.busy

    def save(
        self,
        step: int,
        tensors: Mapping[str, LazyTensor],
        state: Mapping[str, Any],
    ) -> None:
        """Commits a checkpoint in the background, if there is none yet.

        Args:
            step: The present step.
            tensors: The tensors by key.
            state: Everything else, as JSON values.
        """
        self.wait()
        if step == self._last[0] and self.problem is None:
            return  # It is committed, or where the training went on.
        self.begin_at(step)

        def commit() -> None:
            self._metrics.sync()
            manifest = self._directory.checkpoints.save(
                step,
                attempt=self._directory.attempt,
                tensors=tensors,
                state=state,
            )
            self._directory.publish(step=step, committed=manifest.created)
            self._directory.checkpoints.retain(self._keep_policy)

        self._saver.submit(step, commit)

    def save_final(
        self,
        step: int,
        tensors: Mapping[str, LazyTensor],
        state: Mapping[str, Any],
    ) -> bool:
        """Commits what a finished `fit` leaves, and waits for it.

        Args:
            step: The present step.
            tensors: The tensors by key.
            state: Everything else, as JSON values.

        Returns:
            Whether it is committed. If not, that has been said.
        """

        def commit() -> None:
            self._metrics.sync()
            finals = self._directory.finals
            # It is there already if only what led to it was damaged.
            with contextlib.suppress(StepExistsError):
                finals.save(
                    step,
                    attempt=self._directory.attempt,
                    tensors=tensors,
                    state=state,
                )
            _drop_older(finals, step, fit=state["position"]["fit"])

        self.wait()
        self._saver.submit(step, commit)
        self.wait()
        if self.problem is not None:
            say(
                "the training has ended, but what it ended with is not "
                "saved: run it again when the cause is mended"
            )
        return self.problem is None

    def wait(self) -> None:
        """Returns when no save is in flight."""
        self._collect(self._saver.take_outcome(wait=True))

    def delete_all(self) -> None:
        """Deletes all checkpoints of the run, and nothing else."""
        self.wait()
        for store in (self._directory.checkpoints, self._directory.finals):
            for step in store.steps():
                store.delete(step)
        self._directory.publish(step=None, committed=None)

    def _collect(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        if outcome.error is None:
            self._cost_secs = outcome.took_secs
            self.problem = None
            return
        self.problem = f"saving step {outcome.step} failed: {outcome.error}"
        say(f"{self.problem} Training goes on; the next save tries again.")


def _drop_older(finals: CheckpointStore, step: int, *, fit: int) -> None:
    """A `fit` that was prolonged leaves one final checkpoint, the last."""
    for older in finals.steps():
        if (
            older < step
            and finals.looks_whole(older)
            and _fit_of(finals.load(older)) == fit
        ):
            finals.delete(older)


def _fit_of(checkpoint: Checkpoint) -> int:
    return int(checkpoint.state["position"]["fit"])


def _say_skipped(what: str, skipped: Skipped) -> None:
    say(f"skipped the {what} of step {skipped.step}: {skipped.reason}")
