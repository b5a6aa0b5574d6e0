"""The state of the other callbacks in a `fit`.

Invariant: a callback's state is what it says it is (`get_state`,
`set_state`) and, for Keras' own and what is derived from them, the attributes
listed here; nothing else of a callback is written. One that keeps state and
says nothing is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from colab_keras_bg.errors import CheckpointError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state.kept import kept_by
from colab_keras_bg.training_state.packed import Arrays, pack, unpack

__all__ = ["CallbackStates", "is_stranger"]

# What Keras' callbacks change while they run and would begin anew.
_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "EarlyStopping": (
        "wait",
        "stopped_epoch",
        "best",
        "best_weights",
        "best_epoch",
    ),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
    "ModelCheckpoint": (
        "best",
        "_batches_seen_since_last_saving",
        "_last_batch_seen",
    ),
    "OrbaxCheckpoint": (
        "best",
        "_batches_seen_since_last_saving",
        "_last_batch_seen",
        "_total_batches_seen",
    ),
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "TensorBoard": ("_global_train_batch", "_global_test_batch"),
    "CSVLogger": ("keys",),
    "LearningRateScheduler": (),
    "TerminateOnNaN": (),
    "LambdaCallback": (),
    "RemoteMonitor": (),
    "BackupAndRestore": (),
    "History": (),
    "ProgbarLogger": (),
}
# What Keras' own set anew themselves: no state, in a subclass either.
_PASSING: Mapping[str, tuple[str, ...]] = {
    "CSVLogger": ("append_header", "csv_file", "writer"),
    "ModelCheckpoint": ("_current_epoch",),
    "TensorBoard": (
        "_batch_start_time",
        "_epoch_start_time",
        "_is_tracing",
        "_prev_summary_state",
        "_previous_epoch_iterations",
        "_profiler_started",
        "_should_write_train_graph",
        "_train_accumulated_time",
        "_writers",
    ),
    "BackupAndRestore": (
        "_batches_seen_since_last_saving",
        "_current_epoch",
        "_last_batch_seen",
    ),
    "ProgbarLogger": ("seen", "target"),
    "History": ("epoch", "history"),
}
_BASE = frozenset({"_model", "params", "model", "validation_data"})


class CallbackStates:
    """The states of the callbacks of one `fit`."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        """Takes the callbacks as they are after `on_train_begin`.

        Args:
            callbacks: All of them but our own.
        """
        self._callbacks = dict(_named(callbacks))
        self._at_start = {
            name: _kept_by(callback)
            for name, callback in self._callbacks.items()
            if is_stranger(callback)
        }

    def capture(self) -> tuple[dict[str, Any], Arrays]:
        """The present states.

        Returns:
            JSON values, and the arrays in them by key.
        """
        self._name_strangers()
        arrays: Arrays = {}
        states = {}
        for name, callback in self._callbacks.items():
            state = _state_of(callback)
            if state is not None:
                states[name] = pack(state, f"callbacks/{name}", arrays)
        return states, arrays

    def apply(
        self, states: Mapping[str, Any], arrays: Mapping[str, Any]
    ) -> None:
        """Puts states back into the callbacks of the same name and order.

        Args:
            states: What `capture` returned.
            arrays: Likewise; more in it does no harm.
        """
        for name, callback in self._callbacks.items():
            if name in states:
                _set_state(callback, unpack(states[name], arrays))

    def _name_strangers(self) -> None:
        for name, before in list(self._at_start.items()):
            now = _kept_by(self._callbacks[name])
            changed = sorted(
                key for key in now if now[key] != before.get(key, _MISSING)
            )
            if changed:
                del self._at_start[name]
                say(
                    f"the callback {name.rpartition('/')[0]} keeps state "
                    f"({', '.join(changed[:5])}) that will be lost in an "
                    "interruption: give it get_state() and set_state(state)"
                )


_MISSING = object()


def _named(callbacks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Names that do not depend on where in the list others stand."""
    counts: dict[str, int] = {}
    for callback in callbacks:
        kind = type(callback).__name__
        if type(callback).__module__.startswith("colab_keras_bg."):
            kind = f"bg.{kind}"  # Beside Keras' own of the same name.
        counts[kind] = counts.get(kind, -1) + 1
        yield f"{kind}/{counts[kind]}", callback


def _attributes_of(callback: Any) -> tuple[str, ...] | None:
    """The attributes that Keras' own class keeps; None for a stranger."""
    for base in type(callback).__mro__:
        if base.__module__.startswith("keras.src.callbacks"):
            return _ATTRIBUTES.get(base.__name__)
    return None


def is_stranger(callback: Any) -> bool:
    """Whether a callback is of a class that does not speak for itself.

    Args:
        callback: A callback; Keras' own are known.
    """
    own = type(callback).__module__.startswith("keras.src.callbacks")
    return not own and not hasattr(callback, "get_state")


def _kept_by(callback: Any) -> dict[str, Any]:
    passing = {
        name
        for base in type(callback).__mro__
        if base.__module__.startswith("keras.src.callbacks")
        for name in _PASSING.get(base.__name__, ())
    }
    known = set(_attributes_of(callback) or ()) | _BASE | passing
    return kept_by(
        callback, but_for=known, model=getattr(callback, "_model", None)
    )


def _state_of(callback: Any) -> Any:
    """What is kept of a callback: its own words, and what Keras' class is."""
    own = _told_by(callback) if hasattr(callback, "get_state") else None
    names = _attributes_of(callback)
    if not names:
        return own
    return {"own": own, "keras": _keras_state_of(callback, names)}


def _told_by(callback: Any) -> Any:
    try:
        return callback.get_state()
    except Exception as error:
        raise CheckpointError(
            f"get_state() of the callback {type(callback).__name__} raised "
            f"{type(error).__name__}: {error}."
        ) from error


def _keras_state_of(callback: Any, names: Sequence[str]) -> dict[str, Any]:
    found = {n: getattr(callback, n) for n in names if hasattr(callback, n)}
    if "keys" in names:  # CSVLogger opens its file anew, and empties it.
        found["rows"] = _read(callback)
    return found


def _set_state(callback: Any, state: Any) -> None:
    own = state
    if _attributes_of(callback):
        _set_keras_state(callback, state["keras"])
        own = state["own"]
    if hasattr(callback, "set_state") and own is not None:
        callback.set_state(own)


def _set_keras_state(callback: Any, state: dict[str, Any]) -> None:
    rows = state.pop("rows", None)
    for name, value in state.items():
        setattr(callback, name, value)
    if rows is not None and callback.csv_file is not None:
        callback.csv_file.flush()
        callback.csv_file.seek(0)
        callback.csv_file.truncate()
        callback.csv_file.write(rows)
        callback.csv_file.flush()
        callback.append_header = not rows


def _read(logger: Any) -> str | None:
    if logger.csv_file is not None and not logger.csv_file.closed:
        logger.csv_file.flush()
    try:
        # Keras writes "\r\n"; read as it is, or each resume doubles them.
        with Path(logger.filename).open(newline="") as file:
            return file.read()
    except OSError:
        return None
