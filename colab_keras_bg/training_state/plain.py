"""Values of logs and histories as JSON values.

Invariant: a number comes back as the same number: floats keep every bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["plain", "told", "untold"]

_ARRAY, _TUPLE = "__array__", "__tuple__"
# Who wrote what is read is not known: no objects, and no texts of any length.
_NUMBERS = frozenset(
    ["bool", "bfloat16"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    + [f"float{bits}" for bits in (16, 32, 64)]
)


def plain(value: Any) -> Any:
    """The JSON form of numbers, arrays and containers of them.

    Args:
        value: What a log or a history holds.

    Returns:
        The same in Python's own types; `str(value)` for anything unknown.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    try:
        return np.asarray(value, dtype=float).tolist()
    except (TypeError, ValueError):
        return str(value)


def told(value: Any) -> Any:
    """The JSON form of a value of which the type matters, too.

    Args:
        value: What a `History` holds.

    Returns:
        As `plain`, but that `untold` makes arrays and tuples of it again.
    """
    if (
        isinstance(value, np.ndarray | np.generic)
        and value.dtype.name in _NUMBERS
    ):
        kind = "" if isinstance(value, np.ndarray) else "scalar"
        return {_ARRAY: [value.dtype.name, kind, plain(value)]}
    if isinstance(value, tuple):
        return {_TUPLE: [told(item) for item in value]}
    if isinstance(value, list):
        return [told(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): told(item) for key, item in value.items()}
    return plain(value)


def untold(value: Any) -> Any:
    """What `told` was given."""
    if isinstance(value, list):
        return [untold(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TUPLE}:
        return tuple(untold(item) for item in value[_TUPLE])
    if value.keys() == {_ARRAY}:
        try:
            name, kind, values = value[_ARRAY]
            if name not in _NUMBERS:
                return value
            array = np.array(values, dtype=name)
        except (TypeError, ValueError):
            return value  # Nothing that `told` has written.
        return array[()] if kind else array
    return {key: untold(item) for key, item in value.items()}
