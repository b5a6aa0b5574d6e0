"""The whole protection in one line.

Invariant: a list of callbacks, made from a run or for a run directory; what
each of them does is its own business.
"""

from __future__ import annotations

import os
from typing import Any

import keras

from colab_keras_bg.callbacks.backup_and_restore import BackupAndRestore
from colab_keras_bg.callbacks.tensorboard import TensorBoard
from colab_keras_bg.errors import UsageError
from colab_keras_bg.run import Run, current_run

__all__ = ["callbacks_of", "unattended"]


def unattended(
    run_dir: str | os.PathLike[str] | None = None,
    *,
    save_freq: Any = "auto",
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
    console: str | bool | None = "64MB",
    resources: str | bool | None = "10s",
    report: str | bool | None = "10m",
    tensorboard: bool | int | str = 10,
) -> list[keras.callbacks.Callback]:
    """Callbacks that let a `fit` run unattended.

    Args:
        run_dir: The run directory: a local path, `gs://bucket/folder`,
            `drive://folder/path`, or a folder of a mounted Drive. May be left
            out in a program that `colab-keras-bg train` started.
        save_freq: When to save: `"epoch"`, a number of batches, a time such
            as `"30s"` or `"10m"`, or `"auto"`; several with `+` between.
        keep_last: How many of the newest checkpoints are kept, 2 or more.
        keep_every: Besides, keep a checkpoint in each stretch of this many
            steps for good, or of a time such as `"2h"`.
        keep_best: Besides, keep so many of the best by `monitor`, as measured
            at the ends of epochs.
        monitor: The metric's name in the logs of an epoch.
        mode: `"min"`, `"max"`, or `"auto"`, by the name.
        take_over: Whether to take a shipped run from a machine that seems to
            live.
        max_undurable: Ends the training, to be continued, when nothing has
            become durable for so long, such as `"30m"`.
        fallback_dir: Where to ship to, for as long as the run directory stays
            dead: another address of that kind.
        fallback_after: For how long it has to be dead before.
        bandwidth: How many bytes a second are sent at most, such as `"5MB"`.
        console: How much is kept of what an attempt prints; `"off"` for
            nothing.
        resources: How often it is measured what is used, or `"off"`.
        report: How often `report.html` is written, or `"off"`.
        tensorboard: Every how many batches losses and metrics go to
            `tensorboard/` in the run directory; `"epoch"` for once an epoch,
            False for never.

    Returns:
        The callbacks, for `model.fit(callbacks=...)`.

    Raises:
        UsageError: If an argument cannot be meant.

    Example:
        ```python
        model.fit(x, y, epochs=90, callbacks=bg.unattended("runs/a"))
        ```
    """
    if run_dir is None:
        run = current_run()
        if run is None:
            raise UsageError(
                "unattended() needs a run directory here: only a program that "
                "`colab-keras-bg train` started has one already."
            )
        return callbacks_of(run, tensorboard=tensorboard)
    return [
        BackupAndRestore(
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
        ),
        *_shown(tensorboard),
    ]


def callbacks_of(
    run: Run, *, tensorboard: bool | int | str = 10
) -> list[keras.callbacks.Callback]:
    """The callbacks that protect a `fit` in a run.

    Args:
        run: The run.
        tensorboard: See `unattended`.
    """
    return [BackupAndRestore(run), *_shown(tensorboard)]


def _shown(update_freq: bool | int | str) -> list[keras.callbacks.Callback]:
    if update_freq is False:
        return []
    shown = TensorBoard(update_freq=10 if update_freq is True else update_freq)
    shown.gives_way = True  # To one that the user gives besides.
    return [shown]
