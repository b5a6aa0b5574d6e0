"""What an object keeps from one step to the next, as far as it can be seen.

Invariant: looking changes nothing and reads little of what is large; two
looks at an object that keeps nothing are equal.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np

__all__ = ["kept_by"]

_LOOKED_AT = 4096  # Elements of an array that has more.
_MOST = (0, 8, 64, 1024)  # Parts of a container, by how deep it may yet go.
_DEPTH = 3
# Of objects of these, nothing is known.
_FOREIGN = frozenset({"builtins", "jax", "keras", "tensorflow", "torch"})


def kept_by(
    item: Any, *, but_for: Collection[str] = (), model: Any = None
) -> dict[str, Any]:
    """What the attributes of an object hold, to be compared with later.

    Args:
        item: The object.
        but_for: Attributes that are not looked at.
        model: The model that is trained; it and its parts are not looked at.

    Returns:
        A value for each attribute that may be state, by name.
    """
    mine = _Mine(model)
    found = {
        name: _look(value, mine, _DEPTH)
        for name, value in vars(item).items()
        if name not in but_for
    }
    return {name: look for name, look in found.items() if look is not None}


class _Mine:
    """Whether something belongs to the model that is trained."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._ids: set[int] | None = None

    def __contains__(self, item: object) -> bool:
        if self._model is None:
            return False
        if self._ids is None:
            parts = [
                *self._model._flatten_layers(),
                *self._model.metrics,
                *self._model.variables,
                *getattr(self._model.optimizer, "variables", ()),
            ]
            self._ids = set(map(id, parts))
        return id(item) in self._ids


def _look(value: Any, mine: _Mine, depth: int) -> Any:
    """Something that is equal as long as the value is; None if unknown."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return repr(value)  # One that is no number equals itself here.
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return str(value.get_state())
    if isinstance(value, random.Random):
        return str(value.getstate())
    if isinstance(value, np.ndarray | np.generic):
        return _look_at_array(np.asarray(value))
    if isinstance(value, keras.Variable):
        return None if value in mine else _look_at_variable(value)
    if isinstance(value, keras.metrics.Metric | keras.Layer):
        if value in mine:
            return None
        return [_look_at_variable(variable) for variable in value.variables]
    if not depth:
        return None
    if isinstance(value, Mapping):
        items = list(value.items())[: _MOST[depth]]
        found = [(str(k), _look(v, mine, depth - 1)) for k, v in items]
        return len(value), found
    if isinstance(value, set | frozenset):
        return len(value), sorted(map(str, value))[: _MOST[depth]]
    if isinstance(value, list | tuple | deque):
        parts = list(value)
        half = _MOST[depth] // 2
        ends = parts[:half] + parts[-half:]
        return len(parts), [_look(part, mine, depth - 1) for part in ends]
    kind = type(value)
    if kind.__module__.partition(".")[0] in _FOREIGN or not hasattr(
        value, "__dict__"
    ):
        return None
    parts = [(k, _look(v, mine, depth - 1)) for k, v in vars(value).items()]
    return [part for part in parts if part[1] is not None] or None


def _look_at_variable(variable: Any) -> Any:
    try:
        return _look_at_array(keras.ops.convert_to_numpy(variable))
    except Exception:  # noqa: BLE001 - in a step on JAX it may have no value
        return None


def _look_at_array(array: np.ndarray[Any, Any]) -> Any:
    stride = max(1, array.size // _LOOKED_AT)
    some = array.reshape(-1)[::stride] if array.size else array
    return str(array.dtype), array.shape, some.tobytes()
