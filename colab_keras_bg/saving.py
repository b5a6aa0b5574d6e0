"""The saves of a run: when, in the background, and what is kept of them.

Invariant: a save that fails never stops the training: it is said at once,
shown by `status`, and the next one tries again. HEAD names a step only after
its checkpoint is committed, and metrics up to a step are synced before it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colab_keras_bg.checkpoint.background import BackgroundSaver, Outcome
from colab_keras_bg.checkpoint.cost import SaveCost
from colab_keras_bg.checkpoint.keeping import Commit, KeepPolicy
from colab_keras_bg.checkpoint.policies import Progress, SavePolicy
from colab_keras_bg.checkpoint.store import Checkpoint, CheckpointStore
from colab_keras_bg.errors import (
    CheckpointError,
    NoUsableCheckpointError,
    Skipped,
    StepExistsError,
    StorageError,
)
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.logbook import Logbook
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.tensor import LazyTensor

__all__ = ["Saves"]


class Saves:
    """Commits and finds the checkpoints of an open run.

    Attributes:
        problem: What went wrong with the last save; None if nothing did.
        best: Which checkpoint is the best, for people; None if none is kept
            as such.
    """

    def __init__(
        self,
        directory: RunDirectory,
        logbook: Logbook,
        *,
        save_policy: SavePolicy,
        keep_policy: KeepPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes an open run's directory.

        Args:
            directory: The run directory.
            logbook: The reports to sync before each commit.
            save_policy: When to save.
            keep_policy: What to keep.
            clock: Seconds that only grow.
        """
        self._directory = directory
        self._logbook = logbook
        self._save_policy = save_policy
        self._keep_policy = keep_policy
        self._clock = clock
        self._saver = BackgroundSaver(clock=clock)
        # What was given to it and may not be there yet.
        self._submitted: list[Commit] = []
        self._last = (0, clock())
        self._cost = SaveCost(clock=clock)
        self._overdue = self._wanted = False
        self._said_missing = False
        self.problem: str | None = None
        self.best: str | None = None

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
        self._find_best()
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
        self._overdue = self._wanted = False

    # Saving.

    def due(
        self, step: int, *, measured: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether to save now; also brings home how the last save ended.

        Args:
            step: The present step.
            measured: At the end of an epoch, what was measured, by name.
        """
        ended = measured is not None
        self._cost.at_step(step, saving=self._saver.busy, steady=not ended)
        self._collect(step, self._saver.take_outcomes())
        if step == self._last[0]:
            return False
        self._wanted = bool(measured) and self._is_wanted(step, measured or {})
        self._overdue = self._overdue or self._save_policy.due(
            self._progress(step, epoch_ended=ended)
        )
        # A snapshot that waits pins a second copy of the state: one that
        # comes due during a save is taken when that has ended, unless it
        # would not be what was measured then.
        due = self._wanted or (self._overdue and not self._saver.busy)
        if due:
            self._cost.begins(step)
        return due

    def explained(self) -> str:
        """When it saves, and why then, for people."""
        return self._save_policy.explained(self._progress(self._last[0]))

    def save(
        self,
        step: int,
        tensors: Mapping[str, LazyTensor],
        state: Mapping[str, Any],
        *,
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        """Commits a checkpoint in the background, if there is none yet.

        Args:
            step: The present step.
            tensors: The tensors by key.
            state: Everything else, as JSON values.
            measured: What was measured at this very step, by name.
        """
        if not self._wanted:
            self.wait()
        if step == self._last[0] and self.problem is None:
            return  # It is committed, or where the training went on.
        self.begin_at(step)
        checkpoints = self._directory.checkpoints
        metrics = _numbers(measured or {})
        replaced = self._saver.waiting
        self._submitted = [
            *(c for c in self._submitted if c.step != replaced),
            Commit(step, time.time(), metrics),
        ]

        def commit() -> None:
            reports = self._logbook.sync()
            manifest = checkpoints.save(
                step,
                attempt=self._directory.attempt,
                tensors=tensors,
                state=state,
                metrics=metrics,
                make_room=lambda: self._give_up(
                    coming=Commit(step, time.time(), metrics)
                ),
            )
            self._give_up(
                step=step, committed=manifest.created, reports=reports
            )
            self._find_best()

        self._saver.submit(step, commit)
        self._cost.goes_on()

    def not_taken(self, step: int, error: CheckpointError) -> None:
        """Tells that there is nothing to save, though a save is due.

        Args:
            step: The present step.
            error: Why.
        """
        self.begin_at(step)
        self._failed(step, error)

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
            self._logbook.sync()
            finals = self._directory.finals
            # It is there already if only what led to it was damaged.
            with contextlib.suppress(StepExistsError):
                finals.save(
                    step,
                    attempt=self._directory.attempt,
                    tensors=tensors,
                    state=state,
                    make_room=self._give_up,
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
        self._collect(None, self._saver.take_outcomes(wait=True))

    def cut_back(self, step: int) -> None:
        """Drops the reports from beyond a step.

        Args:
            step: Where the training goes on.
        """
        if self._logbook.cut_back(step):
            head = self._directory.head
            self._directory.publish(
                step=head.step,
                committed=head.committed,
                reports=self._logbook.sync(),
            )

    def delete_all(self) -> None:
        """Deletes all checkpoints of the run, and nothing else."""
        self.wait()
        self._directory.publish(step=None, committed=None, steps=())
        for store in (self._directory.checkpoints, self._directory.finals):
            for step in store.steps():
                store.delete(step)

    def _give_up(
        self, *, coming: Commit | None = None, **published: Any
    ) -> None:
        """Deletes what the policy does not keep, once HEAD names the rest.

        Args:
            coming: A checkpoint to be thought of as there already.
            **published: What HEAD is to say; as it was if nothing.
        """
        directory = self._directory
        checkpoints = directory.checkpoints
        doomed = checkpoints.superfluous(self._keep_policy, coming=coming)
        if doomed or published:
            head = directory.head
            steps = {commit.step for commit in checkpoints.commits()}
            directory.publish(
                **{
                    "step": head.step,
                    "committed": head.committed,
                    **published,
                    "steps": sorted(steps - set(doomed)),
                }
            )
        for step in doomed:
            checkpoints.delete(step, missing_ok=True)

    def _collect(self, step: int | None, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._submitted = [
                c for c in self._submitted if c.step != outcome.step
            ]
            if outcome.error is None:
                self._cost.ended(step, took_secs=outcome.took_secs)
                self.problem = None
                continue
            self._failed(outcome.step, outcome.error)

    def _failed(self, step: int, error: BaseException) -> None:
        self.problem = f"saving step {step} failed: {error}"
        say(f"{self.problem} Training goes on; the next save tries again.")

    def _progress(self, step: int, *, epoch_ended: bool = False) -> Progress:
        return Progress(
            steps_since_save=step - self._last[0],
            secs_since_save=self._clock() - self._last[1],
            epoch_ended=epoch_ended,
            save_cost_secs=self._cost.cost_secs,
            save_secs=self._cost.took_secs,
            step_secs=self._cost.step_secs,
        )

    def _find_best(self) -> None:
        if self._keep_policy.metrics:
            commits = self._directory.checkpoints.commits()
            self.best = self._keep_policy.best(commits)

    def _is_wanted(self, step: int, measured: Mapping[str, Any]) -> bool:
        """Whether what was measured belongs to what is to be kept."""
        needed = self._keep_policy.metrics
        if not needed:
            return False
        missing = sorted(needed - measured.keys())
        if missing and not self._said_missing:
            self._said_missing = True
            say(
                f"the best checkpoints by {' and '.join(missing)} cannot be "
                f"kept: an epoch reports {', '.join(sorted(measured))}. Name "
                "one of these as `monitor`, or give fit validation_data"
            )
        coming = Commit(step, time.time(), _numbers(measured))
        try:
            there = self._directory.checkpoints.commits()
        except StorageError as error:
            say(f"whether step {step} is a best one cannot be told: {error}")
            return False
        known = {commit.step for commit in there}
        to_be = [c for c in self._submitted if c.step not in known]
        if not self._keep_policy.wants(coming, [*there, *to_be]):
            return False
        # Only one can wait; what waits and is better is not given up.
        waiting = [c for c in to_be if c.step == self._saver.waiting]
        return all(self._keep_policy.prefers(coming, c) for c in waiting)


def _numbers(measured: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among what was measured."""
    return {
        name: float(value)
        for name, value in measured.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


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
