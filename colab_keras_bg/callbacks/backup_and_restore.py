"""The Keras callback: `fit` continues where it was interrupted.

Invariant: an adapter. What Keras calls is handed to `Training`; nothing is
decided or written here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras

from colab_keras_bg.callbacks.companions import asked_for
from colab_keras_bg.callbacks.fit_loop import FitLoop
from colab_keras_bg.callbacks.training import Training
from colab_keras_bg.checkpoint.policies import SavePolicy, save_policy
from colab_keras_bg.errors import UsageError
from colab_keras_bg.open_runs import open_run
from colab_keras_bg.run import Run

__all__ = ["BackupAndRestore"]


class BackupAndRestore(keras.callbacks.Callback):
    """Backs up a training and restores it exactly.

    A drop-in for `keras.callbacks.BackupAndRestore`: run the same program
    again after an interruption, and `fit` goes on at the batch after the last
    save. Differences:

    * The batch, the optimizer, metrics, random state, `History` and the data's
      position are restored, so the result is that of an uninterrupted run.
      Keras trains the interrupted epoch again and returns the later epochs.
    * Each save is a new checkpoint, committed when it is whole; the newest two
      are kept, so `double_checkpoint` changes nothing. A damaged one is passed
      over, with a message.
    * The backup is kept when `fit` ends, and marked done: running the program
      again trains nothing and returns the whole history. With
      `delete_checkpoint=True` it is deleted, and only our own files are.
    * A second `fit` of the same model in one program is the next part of the
      run, and is backed up in the same place. Another model in that place
      goes on from the first, which is said; on other data it is refused.
    * Saving happens in the background, after all other callbacks have seen
      the step or the epoch's end, wherever this one stands in the list. One
      that comes due during another is taken after it. What `fit` ends with is
      always saved.
    * `save_freq` also takes a time (`"10m"`) and `"auto"`; `False`, `True`
      and numbers below 1, with which Keras saves at every batch, are refused.
    * The model need not be built before `fit`. A backup of another model or
      optimizer is refused before a variable is touched.
    * The directory is a local path or `gs://bucket/folder`, which is written
      on the local disk first and shipped in the background. A `fit` takes one
      backup.

    Example:
        ```python
        model.fit(x, y, epochs=10, callbacks=[bg.BackupAndRestore("backup")])
        ```
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str] | Run,
        save_freq: str | int | SavePolicy = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = False,
        *,
        keep_last: int = 2,
        keep_every: int | str | None = None,
        keep_best: int = 0,
        monitor: str = "val_loss",
        mode: str = "auto",
        take_over: bool = False,
        max_undurable: str | None = None,
        fallback_dir: str | os.PathLike[str] | None = None,
        fallback_after: str = "5m",
        bandwidth: str | None = None,
        console: str | bool | None = "off",
        resources: str | bool | None = "off",
        report: str | bool | None = "off",
    ) -> None:
        """Checks the arguments; nothing is touched before `fit`.

        Args:
            backup_dir: The run directory, or an open `Run`.
            save_freq: `"epoch"`, a number of batches, a time such as `"30s"`
                or `"10m"`, or `"auto"`.
            double_checkpoint: Accepted as in Keras; two are always kept.
            delete_checkpoint: Whether to delete the backup when `fit` ends.
            keep_last: How many of the newest checkpoints are kept, 2 or more.
            keep_every: Besides, keep a checkpoint in each stretch of this
                many steps for good, or of a time such as `"2h"`.
            keep_best: Besides, keep so many of the best by `monitor`, as
                measured at the ends of epochs.
            monitor: The metric's name in the logs of an epoch.
            mode: `"min"`, `"max"`, or `"auto"`, by the name.
            take_over: See `Run`.
            max_undurable: See `Run`.
            fallback_dir: See `Run`.
            fallback_after: See `Run`.
            bandwidth: See `Run`.
            console: See `Run`; so are the next two.
            resources: See `Run`.
            report: See `Run`.

        Raises:
            UsageError: If an argument cannot be meant (a `ValueError`).
        """
        super().__init__()
        if not backup_dir:
            raise UsageError(
                "Empty `backup_dir` argument passed: give the path of a run "
                "directory."
            )
        if not isinstance(backup_dir, (str, os.PathLike, Run)):
            raise UsageError(
                f"backup_dir={backup_dir!r}: give the path of a run directory."
            )
        self._given = backup_dir if isinstance(backup_dir, Run) else None
        try:
            save_policy(save_freq)
        except UsageError as error:  # In Keras' words, and in ours.
            raise UsageError(
                f"Invalid value for argument `save_freq`: {error}"
            ) from None
        self._settings: dict[str, Any] = {
            "save_freq": save_freq,
            "keep_last": keep_last,
            "keep_every": keep_every,
            "keep_best": keep_best,
            "monitor": monitor,
            "mode": mode,
            "take_over": take_over,
            "max_undurable": max_undurable,
            "fallback_dir": fallback_dir,
            "fallback_after": fallback_after,
            "bandwidth": bandwidth,
            "console": console,
            "resources": resources,
            "report": report,
        }
        if not isinstance(backup_dir, Run):
            Run(backup_dir, **self._settings)  # Bad arguments fail here.
        self.backup_dir = (
            str(backup_dir.path) if isinstance(backup_dir, Run) else backup_dir
        )
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._run: Run | None = None

    def open(self) -> Run:
        """The run, opened if it was not."""
        run = self._given
        if run is None:
            others = FitLoop.running(self).callback_list.callbacks
            asked = asked_for(others, run_dir=self.backup_dir)
            run = open_run(self.backup_dir, **{**self._settings, **asked})
        run.open()
        return run

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Opens the run and puts this `fit` under its protection."""
        loop = FitLoop.running(self)
        if any(
            isinstance(known, _Last) and known.belongs_to(loop)
            for known in loop.callback_list.callbacks
        ):
            raise UsageError(
                "Two backups in one `fit`: give it one run directory."
            )
        run = self.open()
        # `self.model` would copy the whole state on JAX.
        training = Training(run, self._model, loop)
        loop.call_last(
            _Last(
                training,
                run,
                loop,
                closes=run is not self._given,
                deletes=self.delete_checkpoint,
            )
        )


class _Last(keras.callbacks.Callback):
    """Stands behind all other callbacks of one `fit`."""

    def __init__(
        self,
        training: Training,
        run: Run,
        loop: FitLoop,
        *,
        closes: bool,
        deletes: bool,
    ) -> None:
        super().__init__()
        self._training, self._run, self._loop = training, run, loop
        self._closes, self._deletes = closes, deletes

    def belongs_to(self, loop: FitLoop) -> bool:
        return self._loop.epoch_iterator is loop.epoch_iterator

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        try:
            self._training.begin()
        except BaseException as error:
            if self._closes:
                self._run.close(reason=f"{type(error).__name__}: {error}"[:500])
            raise

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        self._training.epoch_begins(epoch)

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        self._training.epoch_ends(epoch, logs)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._training.evaluation_begins()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._training.evaluation_ends()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        saved = self._training.end()
        if self._deletes:
            self._run.saves.delete_all()
        if self._closes:
            if saved and not self._deletes:
                self._run.mark_done("fit ended")
            self._run.close(reason="fit ended", exit_status=0 if saved else 1)
