"""Keras' loop of one running `fit`: its callbacks and its epochs.

Invariant: this is the one place that knows how `fit` is built inside. It is
found from a callback's own `on_train_begin`, up the call stack, because Keras
hands neither to callbacks; everything it changes is on objects that live as
long as that one `fit`, so that a `fit` that raises leaves nothing behind.

Read in Keras 3.10 to 3.15: `fit` holds `epoch_iterator`, whose `__iter__`
calls `_enumerate_iterator`, a generator of turns `(begin_step, [end_step,]
iterator)`. Code in a generator between two turns runs when every callback has
seen the finished step and the data has not moved: the place to save.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import keras

__all__ = ["FitLoop", "Turns", "epoch_iterator_of"]

Turns = Iterator[tuple[Any, ...]]

# The generators that any `fit` of this process was given.
_generators_used: weakref.WeakSet[Any] = weakref.WeakSet()


class FitLoop:
    """The running `fit` that a callback belongs to."""

    def __init__(
        self, callback_list: Any, epoch_iterator: Any, given: Mapping[str, Any]
    ) -> None:
        """See `running`."""
        self.callback_list = callback_list
        self.epoch_iterator = epoch_iterator
        self._given = dict(given)

    @classmethod
    def running(cls, callback: keras.callbacks.Callback) -> FitLoop:
        """Finds the `fit` whose `on_train_begin` is being called.

        Args:
            callback: A callback in its list.

        Raises:
            RuntimeError: If no `fit` of Keras is calling.
        """
        callback_list = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            names = frame.f_locals
            owner = names.get("self")
            if isinstance(owner, keras.callbacks.CallbackList) and any(
                known is callback for known in owner.callbacks
            ):
                callback_list = owner
            found = names.get("epoch_iterator")
            if callback_list is not None and hasattr(
                found, "_enumerate_iterator"
            ):
                return cls(callback_list, found, names)
            frame = frame.f_back
        raise RuntimeError(
            "This callback works inside `model.fit`, and no `fit` was found "
            f"above it (Keras {keras.__version__}). In a training loop of "
            "your own, save with `bg.Run` instead."
        )

    @property
    def ignored_arguments(self) -> list[str]:
        """Arguments of this `fit` that Keras does not look at.

        What is given beside a data adapter, such as those of `bg.data`, is
        left alone without a word.
        """
        adapter = self.epoch_iterator.data_adapter
        if self._given.get("x") is not adapter:
            return []
        names = ("y", "batch_size", "sample_weight", "class_weight")
        return [name for name in names if self._given.get(name) is not None]

    @property
    def validation_data(self) -> Any:
        """What this `fit` was given to validate on."""
        return self._given.get("validation_data")

    @property
    def used_before(self) -> str | None:
        """What to say of a generator that an earlier `fit` drew from."""
        given = [self._given.get("x"), self.validation_data]
        generators = [data for data in given if inspect.isgenerator(data)]
        used = [data for data in generators if data in _generators_used]
        _generators_used.update(generators)
        if not used:
            return None
        return (
            "an earlier fit drew from the same generator, and a new process "
            "begins it anew. Make a new generator for each fit"
        )

    @property
    def batches(self) -> int | None:
        """How many batches this `fit` trains on; None if nobody knows."""
        per_epoch = self.callback_list.params.get("steps")
        begun = self._given.get("initial_epoch") or 0
        epochs = int(self.callback_list.params["epochs"]) - int(begun)
        return None if per_epoch is None else max(0, epochs) * int(per_epoch)

    def wrap_turns(
        self, wrapper: Callable[[Callable[[], Turns]], Turns]
    ) -> None:
        """Puts a generator around the turns of each epoch.

        Args:
            wrapper: Is given the function that begins an epoch's turns, and
                yields those that `fit` is to see.
        """
        original = self.epoch_iterator._enumerate_iterator
        self.epoch_iterator._enumerate_iterator = lambda: wrapper(original)

    def last_logs(self) -> Any:
        """What the train function last returned in this epoch.

        Only between two turns, when `fit` stands above us in the call stack.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_locals.get("epoch_iterator") is self.epoch_iterator:
                return frame.f_locals.get("logs")
            frame = frame.f_back
        return None

    def lend_logs(self, logs: Mapping[str, Any] | None) -> None:
        """Gives `fit` the logs of the last step that was done before.

        It needs them where an epoch turns out to be over at once.

        Args:
            logs: What `last_logs` returned, as JSON values.
        """
        if not logs:
            return
        model = self.callback_list._model
        original = model._get_metrics_result_or_logs
        # Not by Keras' own __setattr__, which tracks what a model holds.
        object.__setattr__(
            model,
            "_get_metrics_result_or_logs",
            lambda now: original(now or dict(logs)),
        )

    def take_logs_back(self) -> None:
        """Ends what `lend_logs` began, also in a `fit` that was cut off."""
        model = self.callback_list._model
        if "_get_metrics_result_or_logs" in vars(model):
            object.__delattr__(model, "_get_metrics_result_or_logs")

    @property
    def length_is_sure(self) -> bool:
        """Whether a turn is only begun when there is a batch for it.

        Not so with `steps_per_epoch`, which may ask for more than there is,
        nor with a length that Keras has learnt, which is one too long.
        """
        adapter = self.epoch_iterator.data_adapter
        given = self.epoch_iterator.steps_per_epoch
        return given is None and adapter.num_batches is not None

    def begun(self, turn: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """A turn whose first batch is there; None if the data has ended.

        Keras on JAX cannot bear an epoch without a single step, such as one
        that goes on after its last batch: it has given the variables' values
        away by the time it finds out. So nothing is saved in a turn that turns
        out to be none.

        Args:
            turn: The turn that comes.
        """
        if self.length_is_sure or keras.backend.backend() != "jax":
            return turn
        for batch in turn[-1]:
            return *turn[:-1], itertools.chain([batch], turn[-1])
        with self.epoch_iterator.catch_stop_iteration():
            raise StopIteration  # What Keras does when it finds out.
        return None

    def call_last(self, callback: keras.callbacks.Callback) -> None:
        """Adds a callback behind all others, `History` and progress too.

        May be called from within `on_train_begin`: Keras then calls the new
        one's, too.
        """
        callback.set_params(self.callback_list.params)
        callback.set_model(self.callback_list._model)
        self.callback_list.callbacks[:] = [
            known
            for known in self.callback_list.callbacks
            if type(known) is not type(callback)
        ] + [callback]

    @property
    def other_callbacks(self) -> list[keras.callbacks.Callback]:
        """All callbacks of the list, but for those of ours without a state."""
        return [
            callback
            for callback in self.callback_list.callbacks
            if not type(callback).__module__.startswith("colab_keras_bg.")
            or hasattr(callback, "get_state")
        ]

    @property
    def history(self) -> keras.callbacks.History | None:
        """The `History` that `fit` returns."""
        history: keras.callbacks.History | None = self.callback_list._history
        return history

    def batches_of_turn(self, turn: tuple[Any, ...], *, most: int) -> int:
        """How many batches a turn trains on.

        Args:
            turn: What the loop yielded.
            most: `steps_per_execution`.
        """
        known = self.epoch_iterator._num_batches
        per_epoch = self.epoch_iterator.steps_per_epoch
        if known is None or per_epoch is not None:
            return most
        return max(1, min(most, int(known) - int(turn[0])))


def epoch_iterator_of(model: Any, **arguments: Any) -> Any:
    """The epoch iterator that `fit` would make of its arguments.

    Args:
        model: A compiled model.
        **arguments: Of `fit`, those that say what the data is.
    """
    backend = keras.backend.backend()
    trainer = importlib.import_module(f"keras.src.backend.{backend}.trainer")
    arguments["steps_per_execution"] = model.steps_per_execution
    if backend == "tensorflow":
        arguments["distribute_strategy"] = model.distribute_strategy
        return trainer.TFEpochIterator(**arguments)
    name = {"jax": "JAXEpochIterator", "torch": "TorchEpochIterator"}[backend]
    return getattr(trainer, name)(**arguments)
