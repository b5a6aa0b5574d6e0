"""One `fit` under a run's protection: exact resume inside plain `model.fit`.

Invariant: between two training steps everything that the rest of the training
depends on is in the checkpoint; and what is put back is put back after every
other callback and Keras itself have set their beginnings, right before it is
used. Other callbacks never see a batch that is skipped.

The order of putting back, and why:

1. after every `on_train_begin` (they reset what they keep): variables,
   `History`, random state; `_initial_epoch` picks the epoch.
2. after every `on_epoch_begin` of an epoch that was left in the middle (Keras
   has reset the metrics; a scheduler has set its learning rate again):
   variables once more, metrics among them.
3. in the epoch's loop: the data's iterator, then the turns that were done are
   dropped, then the random state, right before the first new batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from colab_keras_bg.callbacks.agreement import Agreement
from colab_keras_bg.callbacks.contents import Contents, Taken
from colab_keras_bg.callbacks.fit_loop import FitLoop, Turns
from colab_keras_bg.callbacks.honesty import StepHonesty, say_not_exact
from colab_keras_bg.callbacks.stored_state import check_state
from colab_keras_bg.callbacks.timed_turns import wrap_timed
from colab_keras_bg.checkpoint.store import Checkpoint
from colab_keras_bg.data.source import Saved
from colab_keras_bg.data.sources import source_of
from colab_keras_bg.data.validation import Validation
from colab_keras_bg.errors import CheckpointError, UsageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.run import Run
from colab_keras_bg.training_state import build, random_state
from colab_keras_bg.training_state.callback_states import CallbackStates
from colab_keras_bg.training_state.plain import plain, untold
from colab_keras_bg.training_state.position import Position
from colab_keras_bg.training_state.surroundings import unsteady

__all__ = ["Training"]

# How many `fit` calls each model has come through in this process, by run: a
# second `fit` of the same model is the next part of the same run.
_fits_done: weakref.WeakKeyDictionary[Any, dict[str, int]] = (
    weakref.WeakKeyDictionary()
)


class Training:
    """Carries one `fit` from its first batch, or a later one, to its end."""

    def __init__(self, run: Run, model: Any, loop: FitLoop) -> None:
        """Takes a `fit` that is calling `on_train_begin`.

        Args:
            run: An open run.
            model: The model being fitted.
            loop: Its loop.
        """
        self._run = run
        self._model = model
        self._loop = loop
        self._source = source_of(loop.epoch_iterator)
        self._fit = _fits_done.get(model, {}).get(str(run.path), 0)
        self._epochs = int(loop.callback_list.params["epochs"])
        self._agreement = Agreement(model, self._source)
        self._resume: Checkpoint | None = None
        self._position = self._new_position(step=0)
        self._validation = Validation(loop.validation_data)
        self._contents = Contents(
            model, loop, self._source, self._validation, self._agreement
        )
        self._has_looked = False
        self._steps = StepHonesty(model)
        self._open_turn = 0
        self._is_past = False

    def begin(self) -> None:
        """After every callback's `on_train_begin`.

        Raises:
            UsageError: If something that `fit` was given cannot be meant.
            FingerprintMismatchError: If the checkpoint belongs to another
                model or optimizer.
            NoUsableCheckpointError: If there are checkpoints and none
                verifies.
        """
        ignored = self._loop.ignored_arguments
        if ignored:
            raise UsageError(
                f"Keras ignores {' and '.join(ignored)} beside bg.data...: "
                "give it to the function that makes the data."
            )
        self._loop.take_logs_back()  # An earlier `fit` may have been cut off.
        self._contents.callbacks = CallbackStates(self._loop.other_callbacks)
        found = self._checkpoint()
        if found is None:
            self._run.go_on_from(self._position.step, epoch=0)
            self._run.training_begins()
        else:
            self._put_back(found)
        used = self._loop.used_before
        say_not_exact([unsteady(), self._validation.not_exact, used])
        self._run.times.expect(self._loop.batches, self._position.fit_began)
        most = self._model.steps_per_execution
        wrap_timed(self._turns, self._loop, self._run.times, most=most)

    def epoch_begins(self, epoch: int) -> None:
        """After every callback's `on_epoch_begin`."""
        self._model._initial_epoch = None  # Keras reads and never clears it.
        resumed = self._resumed_in(epoch)
        saved = self._saved() if resumed is not None else None
        self._contents.look_again()
        if self._resume is not None and resumed is not None and resumed.turns:
            self._contents.assign(self._resume)
            self._apply_callback_states()
        else:
            self._position = self._at(epoch=epoch, batch=0, turns=0)
        self._source.epoch_begins(epoch, saved)
        self._run.at_step(self._position.step, epoch=epoch)

    def epoch_ends(self, epoch: int, logs: Mapping[str, Any] | None) -> None:
        """After every callback's `on_epoch_end`."""
        self._loop.take_logs_back()
        stopping = bool(self._model.stop_training)
        if self._open_turn and stopping:
            self._count(self._open_turn)  # The loop was left by `break`.
        self._open_turn = 0
        self._look_at_first_step()
        self._steps.epoch_is_done()
        measured = plain(logs or {})
        self._run.report(measured, epoch=epoch)
        last = stopping or epoch + 1 >= self._epochs
        self._position = self._at(
            epoch=epoch + 1, batch=0, turns=0, stopped=stopping
        )
        if self._run.saves.due(self._position.step, measured=measured) or last:
            self._save(iterator=None, measured=measured)

    def evaluation_begins(self) -> None:
        """After every callback's `on_test_begin`."""
        self._validation.begins(self._model._eval_epoch_iterator)

    def evaluation_ends(self) -> None:
        """After every callback's `on_test_end`."""
        self._validation.ends()

    def end(self) -> bool:
        """After every callback's `on_train_end`.

        Returns:
            Whether what the `fit` leaves is committed.
        """
        saved = True
        self._model._initial_epoch = None
        final = self._resume
        if final is not None and self._position.finished:
            self._contents.assign(final)  # Keras has ended it once more.
        else:
            self._position = self._at(
                epoch=self._position.epoch, batch=0, turns=0, finished=True
            )
            taken = self._take(iterator=None)
            saved = taken is not None and self._run.saves.save_final(
                self._position.step, *taken
            )
        self._resume = None
        _fits_done.setdefault(self._model, {})[str(self._run.path)] = (
            self._fit + 1
        )
        return saved

    def _checkpoint(self) -> Checkpoint | None:
        """The checkpoint that this `fit` goes on from."""
        newest = self._run.saves.newest()
        if newest is None:
            self._position = self._new_position(step=0)
            return None
        position = Position.from_json(check_state(newest).state["position"])
        if position.fit < self._fit:  # This fit has not saved yet.
            self._position = self._new_position(step=position.step)
            return None
        final = self._run.saves.final(self._fit)
        self._is_past = position.fit > self._fit
        if self._is_past:
            return final if final is not None else newest
        if final is not None and final.step == position.step:
            ended = Position.from_json(check_state(final).state["position"])
            if ended.epochs == self._epochs or (
                self._epochs < ended.epochs and not ended.stopped
            ):
                return final
            say(
                f"this fit had ended at epoch {ended.epoch} of {ended.epochs}"
                f"; going on to epoch {self._epochs}"
            )
        return newest

    def _put_back(self, found: Checkpoint) -> None:
        position = Position.from_json(found.state["position"])
        self._resume, self._position = found, position
        build.build(self._model, self._loop.epoch_iterator, found.state)
        self._agreement.check(found, where=str(self._run.path))
        turns = self._agreement.turns(position)
        if turns != position.turns:
            self._position = self._at(
                epoch=position.epoch, batch=position.batch, turns=turns
            )
        self._refuse_another_model(found)
        self._contents.assign(found)
        self._run.go_on_from(
            position.step,
            epoch=position.epoch - position.finished,
            reports_follow=self._is_past,
        )
        history = self._loop.history
        if history is not None:
            history.epoch = list(found.state["history"]["epoch"])
            history.history = {
                name: untold(values)
                for name, values in found.state["history"]["values"].items()
            }
        self._validation.go_on_from(found.state["validation"], found.tensors)
        self._apply_callback_states()
        random_state.apply(found.state["random"])
        ended = position.finished or (
            position.stopped and position.epochs == self._epochs
        )
        if ended or position.epoch >= self._epochs:
            self._model._initial_epoch = self._epochs
            # The next `fit` may go on with the same data.
            self._source.pass_by(self._saved(found))
            self._validation.pass_by()
            random_state.apply(found.state["random"])
            say(
                f"this fit had ended at step {position.step}; nothing is "
                "trained again"
            )
            return
        self._model._initial_epoch = position.epoch
        self._run.training_begins()
        say(
            f"continuing from step {position.step} (epoch "
            f"{position.epoch + 1} of {self._epochs}, batch {position.batch})"
        )

    def _refuse_another_model(self, found: Checkpoint) -> None:
        """One after the other, two models need two runs."""
        path = str(self._run.path)
        others = any(
            path in done and model is not self._model
            for model, done in _fits_done.items()
        )
        if others:
            self._agreement.check_after_another(found, where=path)

    def _apply_callback_states(self) -> None:
        if self._resume is not None:
            self._contents.callbacks.apply(
                self._resume.state["callbacks"], self._resume.tensors
            )

    def _resumed_in(self, epoch: int) -> Position | None:
        if self._resume is None or self._position.finished:
            return None
        return self._position if self._position.epoch == epoch else None

    def _turns(self, original: Callable[[], Turns]) -> Turns:
        """The turns of one epoch that are still to be trained."""
        found, self._resume = self._resume, None
        skip = self._position.turns
        saved: Saved | None = None
        loop_state = found.state["loop"] if found else {}
        keras_iterator = self._loop.epoch_iterator
        if found is not None:
            keras_iterator._num_batches = loop_state["num_batches"]
            self._loop.lend_logs(loop_state["logs"])
            saved = self._saved(found)
            if not skip:
                present = random_state.host_state()
                self._source.put_back(None, saved)
                random_state.apply(present, but_for=self._source.draws_from)
                keras_iterator._steps_seen = loop_state["steps_seen"]
        for index, turn in enumerate(original()):
            if index < skip:
                if index == 0 and saved is not None:
                    self._source.put_back(turn[-1], saved)
                continue
            begun = self._loop.begun(turn)
            if begun is None:
                return
            turn = begun
            if index == skip and found is not None:
                if skip:
                    # The loop has counted the coming turn, and those before
                    # it in this epoch only.
                    keras_iterator._steps_seen = (
                        loop_state["steps_seen"]
                        + self._model.steps_per_execution
                    )
                    random_state.apply(
                        found.state["random"], but_for=self._source.draws_from
                    )
                found = saved = None  # Its file is mapped no longer.
            elif index and self._run.saves.due(self._position.step):
                self._save(iterator=turn[-1])
            if index == 0:
                self._source.epoch_starts(turn[-1])
            self._open_turn = self._loop.batches_of_turn(
                turn, most=self._model.steps_per_execution
            )
            step = self._position.step + self._open_turn  # In its hooks, too.
            self._run.at_step(step, epoch=self._position.epoch)
            yield turn
            self._count(self._open_turn)
            self._look_at_first_step()

    def _look_at_first_step(self) -> None:
        """After the first step, and not in the middle of a save."""
        if not self._has_looked:
            self._has_looked = True
            self._agreement.fingerprint()
            self._contents.look()
            self._steps.first_is_done()

    def _saved(self, found: Checkpoint | None = None) -> Saved:
        """What the checkpoint that we go on from tells the data."""
        found = found or self._resume
        assert found is not None  # noqa: S101 - the callers have seen to it
        return Saved(
            state=found.state["data"],
            tensors=found.tensors,
            between=self._position.turns == 0,
            batch=self._position.batch,
            drawn=found.state["loop"]["steps_seen"],
            total=self._position.step - self._position.fit_began,
        )

    def _count(self, batches: int) -> None:
        position = self._position
        self._open_turn = 0
        self._position = replace(
            position,
            step=position.step + batches,
            batch=position.batch + batches,
            turns=position.turns + 1,
        )

    def _save(self, *, iterator: Any, measured: Any = None) -> None:
        step, times = self._position.step, self._run.times
        begun = times.clock()
        if (taken := self._take(iterator=iterator)) is not None:
            self._run.saves.save(step, *taken, measured=measured)
        times.saved(times.clock() - begun)

    def _take(self, *, iterator: Any) -> Taken | None:
        """What is to be saved; None if that cannot be had, which is said."""
        position = self._position
        try:
            return self._contents.take(position, iterator=iterator)
        except CheckpointError as error:
            self._run.saves.not_taken(position.step, error)
            return None

    def _new_position(self, *, step: int) -> Position:
        return Position(
            step=step,
            fit=self._fit,
            fit_began=step,
            steps_per_execution=self._model.steps_per_execution,
            epochs=self._epochs,
        )

    def _at(
        self,
        *,
        epoch: int,
        batch: int,
        turns: int,
        stopped: bool | None = None,
        finished: bool = False,
    ) -> Position:
        before = self._position
        return replace(
            self._new_position(step=before.step),
            fit_began=before.fit_began,
            epoch=epoch,
            batch=batch,
            turns=turns,
            stopped=before.stopped if stopped is None else stopped,
            finished=finished,
        )
