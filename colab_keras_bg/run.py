"""A run: its directory, its attempt, its checkpoints.

Invariant: everything a run writes goes through here, and only while this
process (or the parent that shares its lock with us) holds the run's lock.
Opening a run changes nothing that is stored before it is sure that the run
can go on.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from colab_keras_bg.checkpoint.policies import SavePolicy
from colab_keras_bg.errors import (
    BackgroundTrainingError,
    RunHeldError,
    StorageError,
    StorageUnavailableError,
)
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.heartbeat import Heartbeat
from colab_keras_bg.journal.logbook import Logbook
from colab_keras_bg.journal.step_times import StepTimes
from colab_keras_bg.output import RunOutput
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.run_options import RunOptions
from colab_keras_bg.saving import Saves
from colab_keras_bg.vital_signs import vital_signs

if TYPE_CHECKING:
    import keras

__all__ = ["Run", "current_run", "opened"]

_open_runs: dict[Path, Run] = {}
_current: list[Run] = []


def current_run() -> Run | None:
    """The run that the command line started this program in, or None."""
    return _current[-1] if _current else None


def opened(path: Path) -> Run | None:
    """The run of a local directory that this process has open, or None.

    Args:
        path: The directory, or the spool.
    """
    return _open_runs.get(path)


class Run:
    """One training, from its first step to done, across machines.

    Use it as a context manager, or leave opening and closing to the
    callbacks:

        ```python
        with bg.Run("runs/a") as run:
            model.fit(data, epochs=90, callbacks=run.callbacks())
            run.log(test_accuracy=0.97)
        ```

    Attributes:
        path: The absolute path of the run directory, or of its local end.
        address: The run directory, as people write it: a path, or a URL.
        seed: The seed given on the command line, or None.
        logbook: What it has measured.
        saves: Its checkpoints.
        times: Where the training's time goes.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        *,
        save_freq: str | int | SavePolicy = "auto",
        keep_last: int = 2,
        keep_every: int | str | None = None,
        keep_best: int = 0,
        monitor: str = "val_loss",
        mode: str = "auto",
        start_over: bool = False,
        take_over: bool = False,
        max_undurable: str | None = None,
        fallback_dir: str | os.PathLike[str] | None = None,
        fallback_after: str = "5m",
        bandwidth: str | None = None,
        console: str | bool | None = "64MB",
        resources: str | bool | None = "10s",
        report: str | bool | None = "10m",
        seed: int | None = None,
        command: Sequence[str] = (),
    ) -> None:
        """Checks the arguments; nothing is touched before `open`.

        Args:
            run_dir: Where the run lives: a local path; or, shipped there in
                the background, `gs://bucket/folder`, `drive://folder/path` or
                a folder of a mounted Drive.
            save_freq: When to save; see `unattended`.
            keep_last: How many of the newest checkpoints are kept, 2 or more.
            keep_every: Besides, keep a checkpoint in each stretch of this
                many steps for good, or of a time such as `"2h"`.
            keep_best: Besides, keep so many of the best by `monitor`, as
                measured at the ends of epochs.
            monitor: The metric's name in the logs of an epoch.
            mode: `"min"`, `"max"`, or `"auto"`, by the name.
            start_over: Whether to set a local directory aside and begin anew.
            take_over: Whether to take a shipped run from a live machine.
            max_undurable: For how long nothing may become durable.
            fallback_dir: Where to ship to while the run directory is dead.
            fallback_after: For how long it has to be dead before.
            bandwidth: Bytes a second to send at most, such as `"5MB"`.
            console: How much is kept of what is printed, or `"off"`.
            resources: How often it is measured what is used, or `"off"`.
            report: How often `report.html` is written, or `"off"`.
            seed: A seed for whoever asks the run for one.
            command: What was asked for, for the record.

        Raises:
            UsageError: If an argument cannot be meant.
        """
        options = RunOptions.of(
            run_dir,
            save_freq=save_freq,
            keep_last=keep_last,
            keep_every=keep_every,
            keep_best=keep_best,
            monitor=monitor,
            mode=mode,
            take_over=take_over,
            max_undurable=max_undurable,
            fallback_dir=fallback_dir,
            fallback_after=fallback_after,
            bandwidth=bandwidth,
            console=console,
            resources=resources,
            report=report,
        )
        self._directory = RunDirectory(
            run_dir,
            keep=options.keep,
            shipping=options.shipping,
            watch=options.watch,
        )
        self.path = self._directory.path
        self.address = self._directory.address
        self._lost: BackgroundTrainingError | None = None
        self.seed = seed
        self._start_over = start_over
        self._command = tuple(command)
        self.logbook = Logbook(
            self.path, run_id=lambda: self._directory.head.run_id
        )
        self.saves = Saves(
            self._directory,
            self.logbook,
            save_policy=options.save_policy,
            keep_policy=options.keep_policy,
        )
        self._heartbeat = Heartbeat(self._directory.storage, self._vital_signs)
        is_kept = options.watch.console_bytes > 0
        self._output = RunOutput(self._directory, kept=is_kept)
        self.times = StepTimes()
        self._supervised, self._state = False, "starting"
        self._step = self._epoch = 0

    @property
    def step(self) -> int:
        """Training batches consumed since the run began, in a hook this one."""
        return self._step

    @property
    def durable_step(self) -> int | None:
        """The newest step that survives the loss of this machine, or None.

        In a bucket: the newest that was verified there. A local run directory
        is as durable as this machine's disk.
        """
        if not self._directory.is_remote:
            return self._directory.head.step
        found = self._directory.durability.report()
        return found.durable_step if found and found.confirms else None

    @property
    def is_open(self) -> bool:
        """Whether this process holds the run."""
        return self._directory.held

    def callbacks(self, **settings: Any) -> list[keras.callbacks.Callback]:
        """Keras callbacks that put a `fit` under this run's protection.

        Args:
            **settings: `tensorboard`, as for `unattended`.
        """
        # The one import that points up: the callbacks adapt a run to Keras,
        # and this method is how a person comes from the one to the other.
        from colab_keras_bg.callbacks.unattended import callbacks_of

        return callbacks_of(self, **settings)

    def _repr_html_(self) -> str:
        from colab_keras_bg.report.card import card_of  # Shows a run: is above.

        return card_of(self)

    def log(self, **values: float | str) -> None:
        """Adds to `metrics.jsonl` and to TensorBoard, at the present step.

        Args:
            **values: Numbers and texts by name.

        Raises:
            UsageError: If a value is neither.
        """
        self.logbook.log(self._step, values)

    def hparams(self, values: Mapping[str, Any]) -> None:
        """Writes down what the training is made with, once.

        Args:
            values: Numbers, texts and truth values by name.

        Raises:
            UsageError: If a value is none of these.
        """
        self.logbook.hparams(self._step, values)

    def __enter__(self) -> Run:
        """Opens the run."""
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the run; it is done if nothing was raised."""
        if kind is None:
            self.mark_done("the program's `with` block ended")
            self.close(reason="done", exit_status=0)
        else:
            self.close(reason=f"{kind.__name__}: {error}"[:500])

    def share(self, *, attempt: int, lock_handle: int) -> None:
        """Takes part in what a supervisor that started us has opened.

        Args:
            attempt: The attempt's number.
            lock_handle: The descriptor of the lock.
        """
        self._supervised = True
        self._directory.share(attempt=attempt, lock_handle=lock_handle)
        self._opened()
        _current.append(self)

    def open(self) -> None:
        """Makes the run ours.

        Raises:
            UsageError: If the directory cannot be written.
            NoSpaceError: If its disk is full.
            RunHeldError: If another live attempt holds the run.
            NoUsableCheckpointError: If there are checkpoints and none
                verifies. Nothing is changed then.
            StorageUnavailableError: If it cannot be read or reached.
        """
        if self.is_open:
            return
        if self.path in _open_runs:
            raise RunHeldError(self.address, holder="a Run of this process")
        if self._start_over:
            self._directory.set_aside()
            self._start_over = False
        self._directory.hold()
        try:
            self._directory.begin_attempt(command=self._command)
        except BaseException:
            self._directory.release()
            raise
        self._output.begin()
        self._opened()

    def close(self, *, reason: str, exit_status: int | None = None) -> None:
        """Waits for the save in flight and gives the run back.

        Args:
            reason: Why the attempt ends, in words.
            exit_status: The exit status to record, if there is one.
        """
        if not self.is_open:
            return
        self.saves.wait()
        self.logbook.close()
        if self._state != "done":
            self._state = "ended"
        self._heartbeat.stop()
        self._output.end()
        if not self._supervised:
            directory, status = self._directory, exit_status
            try:
                directory.end_attempt(reason=reason, exit_status=status)
            except StorageError as error:
                say(f"how this attempt ended could not be recorded: {error}")
            directory.durability.finish_attended(done=self._state == "done")
        self._directory.release()
        _open_runs.pop(self.path, None)
        atexit.unregister(self._at_exit)

    def mark_done(self, reason: str) -> None:
        """Records that nothing is left to do.

        Inside a program that the command line started, the command line does
        so when the program has ended.

        Args:
            reason: Why, in words.
        """
        self._state = "done"
        if self._supervised:
            return
        try:
            self._directory.mark_done(
                step=self._step, reason=reason, command=self._command
            )
        except StorageError as error:
            say(f"that the run is done could not be recorded: {error}")

    def training_begins(self) -> None:
        """Records that there is something to do after all."""
        self._state = "training"
        if not self._supervised:
            self._output.begin()
        self._directory.mark_not_done()
        self._heartbeat.beat()

    def go_on_from(
        self, step: int, *, epoch: int, reports_follow: bool = False
    ) -> None:
        """Records where training goes on: later reports are dropped.

        Args:
            step: The step.
            epoch: The epoch.
            reports_follow: Whether a later `fit` of the program has gone
                further already: its reports stay.
        """
        self.at_step(step, epoch=epoch)
        self.saves.begin_at(step)
        if not reports_follow:
            self.saves.cut_back(step)
            self._directory.went_on_from(step)

    def at_step(self, step: int, *, epoch: int) -> None:
        """Tells the run how far training has come.

        Raises:
            RunHeldError: If another machine has taken the run over.
            StorageUnavailableError: If nothing has become durable for longer
                than it may take.
        """
        self._step, self._epoch = step, epoch
        if self._lost is not None:
            raise self._lost

    def report(self, values: Mapping[str, Any], **more: Any) -> None:
        """See `Logbook.report`; at the present step."""
        self.logbook.report(self._step, values, **more)

    def _opened(self) -> None:
        _open_runs[self.path] = self
        self._step = self._directory.head.step or 0
        self._heartbeat.start()
        atexit.register(self._at_exit)

    def _vital_signs(self) -> dict[str, Any]:
        try:
            self._directory.durability.look_after()
        except (RunHeldError, StorageUnavailableError) as error:
            self._lost = error
        self.logbook.show_resources(self._directory.attempt)
        state, step, epoch = self._state, self._step, self._epoch
        if self._output.is_left_at(step) and state == "training":
            state = "paused"
        told: dict[str, Any] = {"state": state, "step": step, "epoch": epoch}
        return vital_signs(self._directory, self.saves, self.times, **told)

    def _at_exit(self) -> None:
        self.close(reason="the process ended before training did")
