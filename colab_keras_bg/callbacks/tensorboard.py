"""The Keras callback that shows a training in TensorBoard.

Invariant: an adapter. Here it is decided what is shown at which step; on the
training thread nothing is computed, converted or written.

The batches of a `fit` are seen between two turns of its loop and not in the
hooks of batches: there every step is known, `steps_per_execution` or not, what
is shown is on its way before a checkpoint of that step can be, and on JAX
nobody waits for the numbers. The hooks serve training loops of one's own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras

from colab_keras_bg.callbacks.backup_and_restore import BackupAndRestore
from colab_keras_bg.callbacks.fit_loop import FitLoop, Turns
from colab_keras_bg.callbacks.learning_rates import learning_rates
from colab_keras_bg.callbacks.profiling import Profiler
from colab_keras_bg.callbacks.shown_weights import (
    Embeddings,
    held_weights,
    shown,
    write_tables,
)
from colab_keras_bg.callbacks.tensorboard_arguments import (
    check_log_dir,
    profiled_batches,
    update_frequency,
)
from colab_keras_bg.journal import summaries
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.events import EventJournal
from colab_keras_bg.run import Run, current_run
from colab_keras_bg.storage.addresses import local_directory
from colab_keras_bg.training_state import random_state

__all__ = ["TensorBoard"]

_TRAIN, _VALIDATION = "train", "validation"


class TensorBoard(keras.callbacks.Callback):
    """Shows a training in TensorBoard.

    A drop-in for `keras.callbacks.TensorBoard`, with the same folders and
    tags, that works without TensorFlow, writes in the background, and goes on
    exactly where an interrupted run does: each step is there once, whoever
    reads it. Differences:

    * Beside `bg.BackupAndRestore` or `bg.unattended` in the same `fit`, the
      step of a batch is that of the run, also in what an evaluation is shown
      at, and `log_dir` may be left out: `tensorboard/` in the run directory,
      which is shipped with it. Keras begins at 0 in each `fit`, and shows
      evaluations at `optimizer.iterations`.
    * Elsewhere a second `fit` with the same callback goes on behind the
      first. In both cases the epochs of a second `fit` come behind those of
      the first, where Keras begins again at 0.
    * `update_freq=N` counts batches, not executions of `steps_per_execution`
      batches; Keras then leaves out epochs whose last batch is no N-th one.
      `batch_steps_per_second` is the mean since it was last written.
    * A network address, or a folder of a mounted Drive, is refused: the
      training writes to this machine's disk only.
    * A log that is no number is left out, which is said; Keras raises. So are
      profiles on PyTorch, and on JAX before Python 3.12.
    * `embeddings_freq` writes tables that the projector can read
      (`embeddings/*.tsv`), where Keras writes a file that it cannot.
    * No graph of TensorFlow's operations is written, nor the one of a
      profiled batch; the graph of layers is, but not where `evaluate` alone
      is called. What a model writes by `tf.summary` itself is not collected:
      use `run.log`.

    Example:
        ```python
        model.fit(x, y, callbacks=[bg.TensorBoard("logs", update_freq=10)])
        ```
    """

    # The hooks of batches do nothing in `fit`.
    async_safe = True

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: int | str = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: str | Mapping[str, str] | None = None,
        *,
        run: Run | None = None,
    ) -> None:
        """Checks the arguments; nothing is touched before `fit`.

        Args:
            log_dir: A local folder. If None, `tensorboard/` in the run
                directory, or `logs` where there is no run.
            histogram_freq: Every how many epochs the weights are shown; 0 for
                never.
            write_graph: Whether to show the graph of layers.
            write_images: Whether to show weights as images, too.
            write_steps_per_second: Whether to show how fast it is.
            update_freq: Every how many batches losses and metrics are shown,
                besides at the end of each epoch: `"epoch"` for never,
                `"batch"` for 1.
            profile_batch: The batch, or the first and last batch, to profile.
            embeddings_freq: Every how many epochs embeddings are shown.
            embeddings_metadata: A file that tells what the rows are, or one by
                the name of each layer.
            run: The run, where no other callback of the `fit` tells it.

        Raises:
            UsageError: If an argument cannot be meant (a `ValueError`).
        """
        super().__init__()
        if log_dir is not None:
            check_log_dir(log_dir)
        self.log_dir = None if log_dir is None else str(log_dir)
        self.histogram_freq = histogram_freq
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = update_frequency(update_freq)
        self.embeddings_freq = embeddings_freq
        self.embeddings_metadata = embeddings_metadata
        self._profiled = profiled_batches(profile_batch)
        self._given = run
        # To another of its kind (see `unattended`); and whether it has.
        self.gives_way = self._is_away = False
        # The run whose steps are counted by another; None if we count.
        self._run: Run | None = None
        self._counted = 0
        self._journal: EventJournal | None = None
        self._is_own_journal = False
        self._loop: FitLoop | None = None
        # The turn that is trained: the step before it, and its batches.
        self._turn: tuple[int, int] | None = None
        self._graph_is_written = False
        self._profiler = Profiler(0, 0, folder="")
        self._embeddings: Embeddings | None = None
        self._updated = self._epoch_began = (0, 0.0)

    def get_state(self) -> dict[str, Any]:
        """What the next attempt goes on with."""
        return {
            "last_epoch": self._journal.last_epoch if self._journal else -1,
            "graph_is_written": self._graph_is_written,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on with it.

        Args:
            state: What `get_state` returned.
        """
        self._graph_is_written = bool(state.get("graph_is_written"))
        if self._journal is not None:
            self._journal.last_epoch = int(state.get("last_epoch", -1))

    # Training.

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Finds out where to write, and at which step."""
        self._loop = self._turn = None
        try:
            self._loop = FitLoop.running(self)
        except RuntimeError:
            self._attach(None)  # A loop of the user's own.
        else:
            self._attach(self._loop)
            self._loop.wrap_turns(partial(self._turns, self._loop))
        folder = self._journal.root / _TRAIN if self._journal else ""
        self._profiler = Profiler(*self._profiled, folder=str(folder))
        if self.embeddings_freq:
            self._embeddings = Embeddings(self._model, self.embeddings_metadata)

    def on_epoch_begin(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Shows what is shown once; all callbacks have begun by now."""
        if self.write_graph and not self._graph_is_written:
            self._graph_is_written = True
            self._show_graph()
        if self._embeddings is not None and self._journal is not None:
            configure = partial(self._embeddings.configure, self._journal.root)
            self._journal.do(configure)
        self._epoch_began = self._updated = self._step(), time.perf_counter()

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Shows the epoch's metrics, and what is shown each few epochs."""
        journal = self._journal
        if self._turn is not None:  # The loop was left by `break`.
            self._turn_ends(self._step())
        if journal is None:
            return
        shown_at = max(epoch, journal.last_epoch + 1)
        journal.last_epoch = shown_at
        self._show_epoch(shown_at, dict(logs or {}))
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            held = held_weights(self._model)
            values = partial(shown, held, images=self.write_images)
            self._add(_TRAIN, values, step=shown_at)
        if self._embeddings and epoch % self.embeddings_freq == 0:
            tables = self._embeddings.held()
            journal.do(partial(write_tables, journal.root, tables))

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Writes what waits."""
        self._profiler.after()
        self._loop = self._turn = None
        self._finish()

    # Evaluating.

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Shows how the evaluation came out, over the steps."""
        optimizer = getattr(self._model, "optimizer", None)
        if not logs or not hasattr(optimizer, "iterations") or self._is_away:
            return
        alone = self._journal is None
        if alone:
            self._attach(None)
        if self._run is not None:
            step = self._step()
        else:
            # `self.model` puts the variables back on JAX.
            iterations = self.model.optimizer.iterations
            step = int(keras.ops.convert_to_numpy(iterations))
        named = {f"evaluation_{k}_vs_iterations": v for k, v in logs.items()}
        self._add(_VALIDATION, partial(self._scalars, named), step=step)
        if alone:
            self._finish()

    # Batches, in a training loop of the user's own.

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Counts."""
        if self._loop is None:
            self._turn_begins(self._counted, 1)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Shows the batch."""
        if self._loop is None and self._turn is not None:
            self._turn_ends(self._turn[0] + 1, logs)

    # Batches, in `fit`.

    def _turns(self, loop: FitLoop, original: Any) -> Turns:
        """The turns of one epoch, looked at."""
        for turn in original():
            most = self._model.steps_per_execution
            batches = loop.batches_of_turn(turn, most=most)
            self._turn_begins(self._step(), batches)
            try:
                yield turn
            except GeneratorExit:
                if not self._model.stop_training:
                    self._turn = None  # There was no batch after all.
                raise
            step = self._counted + batches
            self._turn_ends(self._run.step if self._run else step)

    def _turn_begins(self, step: int, batches: int) -> None:
        self._turn = (step, batches)
        self._profiler.before(step + 1, step + batches)

    def _turn_ends(
        self, step: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Shows a turn, unless it was passed over.

        Args:
            step: The step that it came to.
            logs: What it reported; if None, `fit` knows.
        """
        assert self._turn is not None  # noqa: S101 - it was begun
        before, self._turn = self._turn[0], None
        if step <= before:
            return
        self._counted = step
        self._profiler.after(step)
        every = self.update_freq
        if isinstance(every, str) or step // every == before // every:
            return
        if logs is None and self._loop is not None:
            logs = self._loop.last_logs()
        named = dict(logs) if isinstance(logs, Mapping) else {}
        if self.write_steps_per_second:
            named["steps_per_second"] = self._speed(step, self._updated)
            self._updated = step, time.perf_counter()
        values = partial(self._scalars, named, prefix="batch_")
        if keras.backend.backend() == "torch":  # It may assign in place.
            values = partial(list, values())
        self._add(_TRAIN, values, step=step, run_step=step)

    def _step(self) -> int:
        """The present step, that of a turn that was broken off included."""
        if self._turn is not None and self._model.stop_training:
            return sum(self._turn)
        return self._run.step if self._run is not None else self._counted

    # Showing.

    def _show_graph(self) -> None:
        if type(self._model).__name__ not in ("Functional", "Sequential"):
            return
        try:
            with random_state.undisturbed():
                described = self._model.to_json()
        except Exception as error:  # noqa: BLE001 - a user's get_config
            say(f"the graph of layers is not shown: {error}")
            return
        self._add(
            _TRAIN,
            lambda: [summaries.keras_graph("keras", described)],
            step=0,
        )

    def _show_epoch(self, step: int, logs: dict[str, Any]) -> None:
        if not logs:
            return
        measured = {k[4:]: logs.pop(k) for k in [*logs] if k[:4] == "val_"}
        logs |= learning_rates(self._model.optimizer)
        if self.write_steps_per_second:
            speed = self._speed(self._step(), self._epoch_began)
            logs["steps_per_second"] = speed
        for folder, named in ((_TRAIN, logs), (_VALIDATION, measured)):
            values = partial(self._scalars, named, prefix="epoch_")
            self._add(folder, values, step=step)

    @staticmethod
    def _speed(step: int, since: tuple[int, float]) -> float:
        secs = time.perf_counter() - since[1]
        return (step - since[0]) / secs if secs > 0 else 0.0

    def _scalars(
        self, named: Mapping[str, Any], *, prefix: str = ""
    ) -> list[summaries.Value]:
        return summaries.scalars(named, prefix=prefix, skip=self._skip)

    def _skip(self, tag: str) -> None:
        if self._journal is not None:
            self._journal.say_once(f"{tag} is no number, and is not shown")

    def _add(
        self,
        folder: str,
        values: Any,
        *,
        step: int,
        run_step: int | None = None,
    ) -> None:
        if self._journal is not None:
            at = self._step() if run_step is None else run_step
            self._journal.add(folder, values, step=step, run_step=at)

    # Where to.

    def _attach(self, loop: FitLoop | None) -> None:
        """Finds the run, if there is one, and the journal."""
        known = loop.callback_list.callbacks if loop else ()
        others = [one for one in known if isinstance(one, TensorBoard)]
        self._is_away = self.gives_way and len(others) > 1
        if self._is_away:
            self._journal = self._run = None
            return
        backups = [one for one in known if isinstance(one, BackupAndRestore)]
        self._run = backups[0].open() if backups else None
        run = self._run or self._given or current_run()
        self._is_own_journal = False
        if run is not None and run.is_open and (self._run or not self.log_dir):
            root = Path(self.log_dir).absolute() if self.log_dir else None
            self._journal = run.logbook.events(root)
            return
        root = local_directory(self.log_dir or "logs")
        if self._journal is None or self._journal.root != root:
            self._journal = EventJournal(root)
        self._is_own_journal = True
        if run is not None:
            self._counted = max(self._counted, run.step)

    def _finish(self) -> None:
        if self._journal is not None and self._is_own_journal:
            self._journal.close()
