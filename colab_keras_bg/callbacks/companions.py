"""Callbacks that ask for more to be kept of a run than its checkpoints.

Invariant: adapters. They do nothing themselves: what they ask for, the run's
sidecar does, from when the run is opened until it is closed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras

from colab_keras_bg.callbacks.fit_loop import FitLoop
from colab_keras_bg.errors import UsageError
from colab_keras_bg.open_runs import open_run
from colab_keras_bg.run import Run
from colab_keras_bg.run_directory import directory_of
from colab_keras_bg.sidecar.watch_options import WatchOptions

__all__ = ["Companion", "OutputCapture", "ResourceMonitor", "asked_for"]

_OFF = {"console": "off", "resources": "off", "report": "off"}


class Companion(keras.callbacks.Callback):
    """Asks for something to be kept; by itself, or beside a backup.

    Attributes:
        settings: The arguments of `Run` that it asks for.
        run_dir: The run directory; None beside a backup.
    """

    # No hook of batches: Keras on JAX and PyTorch goes on without waiting.
    async_safe = True

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None,
        settings: Mapping[str, Any],
    ) -> None:
        """Checks the arguments; nothing is touched before `fit`."""
        super().__init__()
        WatchOptions.of(**{**_OFF, **settings})
        self.run_dir = run_dir
        self.settings = dict(settings)
        self._own: Run | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Opens the run, if no other callback of this `fit` does."""
        others = FitLoop.running(self).callback_list.callbacks
        if any(hasattr(other, "backup_dir") for other in others):
            return  # It asks us.
        if self.run_dir is None:
            raise UsageError(
                f"{type(self).__name__}() needs a run directory here: only "
                "beside bg.BackupAndRestore or bg.unattended it may be left "
                "out."
            )
        asked = asked_for(others, run_dir=self.run_dir)
        self._own = open_run(self.run_dir, **{**_OFF, **asked})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Closes the run that it has opened."""
        if self._own is not None:
            self._own.mark_done("fit ended")
            self._own.close(reason="fit ended", exit_status=0)
            self._own = None


class OutputCapture(Companion):
    """Keeps what is printed during a `fit`, by whomever.

    What Python, C++ and child processes write is in the run directory, with
    its times, also when this process is killed; `colab-keras-bg logs` and
    `bg.watch` show it. What is seen here is unchanged, but that a notebook is
    shown a few lines a minute of what is much.

    Example:
        ```python
        model.fit(x, y, callbacks=[bg.OutputCapture("runs/a")])
        ```
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        limit: str | bool = "64MB",
    ) -> None:
        """Checks the arguments; nothing is touched before `fit`.

        Args:
            run_dir: The run directory; beside `bg.BackupAndRestore` it may be
                left out.
            limit: How much is kept of an attempt: its beginning and its end.

        Raises:
            UsageError: If an argument cannot be meant (a `ValueError`).
        """
        super().__init__(run_dir, {"console": limit})


class ResourceMonitor(Companion):
    """Writes down what a training uses, and warns of what will run out.

    Processor, memory, disk, network and GPUs; how long steps take and what
    they wait for: in `attempts/NNNN/resources.jsonl`, in TensorBoard and in
    the report. On TensorFlow the data is drawn inside the compiled step, so
    that waiting for it is not told apart; there the GPU's utilisation tells.

    Example:
        ```python
        model.fit(x, y, callbacks=[bg.ResourceMonitor("runs/a")])
        ```
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        interval: str | bool = "10s",
    ) -> None:
        """Checks the arguments; nothing is touched before `fit`.

        Args:
            run_dir: The run directory; beside `bg.BackupAndRestore` it may be
                left out.
            interval: How often it is measured.

        Raises:
            UsageError: If an argument cannot be meant (a `ValueError`).
        """
        super().__init__(run_dir, {"resources": interval})


def asked_for(
    callbacks: list[keras.callbacks.Callback],
    *,
    run_dir: str | os.PathLike[str],
) -> dict[str, Any]:
    """What the companions in a list ask for, as arguments of `Run`.

    Args:
        callbacks: All callbacks of a `fit`.
        run_dir: The run directory of that `fit`.

    Raises:
        UsageError: If one names another run directory.
    """
    asked: dict[str, Any] = {}
    for callback in callbacks:
        if not isinstance(callback, Companion):
            continue
        named = callback.run_dir
        if named is not None and directory_of(named) != directory_of(run_dir):
            raise UsageError(
                f"{type(callback).__name__}({os.fspath(named)!r}) and "
                f"{os.fspath(run_dir)!r} in one `fit`: give it one run "
                "directory."
            )
        asked |= callback.settings
    return asked
