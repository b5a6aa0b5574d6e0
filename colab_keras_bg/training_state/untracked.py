"""What a model holds beside what Keras tracks.

Invariant: looking changes nothing; only the attributes of the model, of its
layers that hold anything, and of the user's own objects in them are read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = [
    "TensorFlowVariable",
    "held",
    "held_by_schedule",
    "is_optimizer",
    "plain_name",
    "untracked",
]

# Objects of these hold nothing of the user's.
_LIBRARIES = frozenset({"keras", "tensorflow", "numpy", "jax", "torch"})
_PLAIN = frozenset({"__main__", "types"})
_SIMPLE = (bool, int, float, str, bytes, type(None))
_DEEPEST = 4
_MOST_ITEMS = 1000
# Where Keras and TensorFlow write down for themselves what they track.
_KNOWN = frozenset(
    {
        "_inbound_nodes",
        "_layers",
        "_metrics",
        "_non_trainable_variables",
        "_outbound_nodes",
        "_seed_generators",
        "_self_unconditional_checkpoint_dependencies",
        "_self_unconditional_dependency_names",
        "_trainable_variables",
    }
)


def untracked(
    held: Iterable[tuple[str, Any]], layers: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """What a step may change and Keras does not know."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        return  # A step changes what it is given, which Keras knows.
    known = {id(layer) for layer in layers.values()}
    for key, value in held:
        if isinstance(value, keras.Layer):
            if id(value) not in known:
                for index, variable in enumerate(value.variables):
                    yield f"{key}/vars/{index}", variable
        elif isinstance(value, keras.Variable):
            yield key, value
        elif isinstance(value, keras.random.SeedGenerator):
            yield key, value.state
        elif backend == "tensorflow":
            yield from _tensorflows(key, value)


def _tensorflows(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    import tensorflow as tf

    if isinstance(value, tf.random.Generator):
        value = value.state
    if isinstance(value, tf.Variable) and value.shape.is_fully_defined():
        kind = value.dtype
        if kind.is_floating or kind.is_integer or kind.is_bool:
            yield key, TensorFlowVariable(value)


class TensorFlowVariable:
    """A variable of TensorFlow's, to be treated like one of Keras'."""

    def __init__(self, variable: Any) -> None:
        self.value = variable
        self.dtype = variable.dtype
        self.shape = tuple(variable.shape)
        self.assign = variable.assign


def held(layers: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the model holds, and those of its layers that hold anything.

    Keras' own layers track what they hold; but not a recurrent layer its
    states, nor a compiled model its optimizer.
    """
    for path, layer in layers.items():
        own = type(layer).__module__.partition(".")[0] == "keras"
        holds = hasattr(layer, "states") or hasattr(layer, "optimizer")
        if path == "model" or holds or not own:
            for place, value in _reachable(layer, ""):
                yield f"{path}{place}".removeprefix("model/"), value


def held_by_schedule(optimizer: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What an optimizer's learning-rate schedule holds.

    Args:
        optimizer: An optimizer.
        name: What the keys begin with.
    """
    import keras

    schedule = getattr(optimizer, "_learning_rate", None)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        for place, value in _reachable(schedule, ""):
            yield f"{name}/learning_rate{place}", value


def _reachable(
    value: Any, path: str, *, seen: set[int] | None = None
) -> Iterator[tuple[str, Any]]:
    """What an object holds, in containers and the user's objects, too."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    at_top = not seen
    seen.add(id(value))
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, (Mapping, list, tuple)) and len(value) > _MOST_ITEMS:
        pass  # A vocabulary or the like, and not a list of layers.
    elif isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    elif at_top or (path.count("/") <= _DEEPEST and _is_users(value)):
        parts = sorted(
            (item for item in vars(value).items() if item[0] not in _KNOWN),
            key=lambda item: (item[0].startswith("_"), item[0]),
        )
    if not at_top:
        yield path, value
    for name, item in parts:
        if not isinstance(item, _SIMPLE):
            place = f"{path}/{plain_name(str(name))}"
            yield from _reachable(item, place, seen=seen)


def _is_users(value: Any) -> bool:
    """Whether an object is of a class of the user's."""
    import keras

    package = type(value).__module__.partition(".")[0]
    return (
        hasattr(value, "__dict__")
        and package not in _LIBRARIES
        and (package in _PLAIN or package not in sys.stdlib_module_names)
        and not isinstance(value, (keras.Layer, keras.metrics.Metric, type))
        and not is_optimizer(value)
    )


def is_optimizer(value: Any) -> bool:
    """Whether a value is one of Keras' optimizers, or of a class of them."""
    return any(
        base.__name__ == "BaseOptimizer" and "keras" in base.__module__
        for base in type(value).__mro__
    )


def plain_name(text: str) -> str:
    """A text without what a key's part cannot hold."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)
