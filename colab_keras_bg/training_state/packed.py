"""Nested values of users' and libraries' states, as JSON values and arrays.

Invariant: `unpack(pack(value))` has the same numbers, arrays and bytes; lists
stand for tuples. Nothing in a packed value is executed to read it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from colab_keras_bg.training_state.plain import plain

__all__ = ["Arrays", "pack", "unpack"]

Arrays = dict[str, np.ndarray[Any, Any]]

# What stands for something else, as the only key.
_WORDS = frozenset({"array", "base64", "items"})


def pack(value: Any, path: str, arrays: Arrays) -> Any:
    """Takes the arrays out of a nested value.

    Args:
        value: Numbers, text, bytes, arrays, and containers of them.
        path: What the arrays' keys begin with.
        arrays: Is given the arrays, by key.

    Returns:
        JSON values, with the arrays' keys in their places.
    """
    if isinstance(value, Mapping):
        if not _is_plain(value):  # JSON knows texts as keys only.
            pairs = [[key, item] for key, item in value.items()]
            return {"items": pack(pairs, path, arrays)}
        return {
            str(key): pack(item, f"{path}/{key}", arrays)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            pack(item, f"{path}/{index}", arrays)
            for index, item in enumerate(value)
        ]
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if hasattr(value, "shape") and not _is_odd(value):
        # A copy: who it belongs to goes on writing to it.
        arrays[path] = np.array(value)
        return {"array": path}
    return plain(value)


def unpack(value: Any, arrays: Mapping[str, Any]) -> Any:
    """Puts the arrays back.

    Args:
        value: What `pack` returned.
        arrays: Likewise; more in it does no harm.
    """
    if isinstance(value, Mapping):
        if set(value) == {"array"} and value["array"] in arrays:
            array = np.array(arrays[value["array"]])
            return (
                array if array.shape else array[()]
            )  # One of NumPy's numbers.
        if set(value) == {"base64"} and isinstance(value["base64"], str):
            return base64.b64decode(value["base64"])
        if set(value) == {"items"}:
            pairs = unpack(value["items"], arrays)
            return {_hashable(key): item for key, item in pairs}
        return {key: unpack(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [unpack(item, arrays) for item in value]
    return value


def _is_odd(value: Any) -> bool:
    """Whether a NumPy scalar is a text, a date or of more than 64 bits."""
    return isinstance(value, np.generic) and (
        value.dtype.kind not in "biuf" or value.dtype.itemsize > 8
    )


def _is_plain(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping can stand for itself, and for nothing else."""
    keys = set(value)
    return all(isinstance(key, str) for key in keys) and not (
        len(keys) == 1 and keys <= _WORDS
    )


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key
