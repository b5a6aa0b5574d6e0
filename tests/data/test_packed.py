"""What users keep in their states comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from colab_keras_bg.training_state.packed import Arrays, pack, unpack

VALUES: dict[str, Any] = {
    "plain": {"a": [1, 2.5, "c", None, True], "b": {"c": {}}},
    "an array": {"a": np.arange(6, dtype=np.int16).reshape(2, 3)},
    "an array without axes": [np.array(2.5, np.float32)],
    "a number of NumPy's": {"a": np.float32(0.1), "b": np.int64(3)},
    "bytes": b"\x00\xff",
    "whole numbers as keys": {0: 1, 1: {2: np.arange(2)}},
    "tuples as keys": {(0, "a"): 1.5},
    "the words that we use": {
        "array": "a",
        "inner": [{"base64": "b"}, {"items": [[1, 2]]}, {"array": "an array"}],
    },
}


@pytest.mark.parametrize("name", VALUES)
def test_packed_and_unpacked(name: str) -> None:
    """
    By way of JSON and arrays, a value comes back; numbers of NumPy's with
    their dtype, mappings with their keys.
    """
    arrays: Arrays = {}
    packed = json.loads(json.dumps(pack(VALUES[name], "x", arrays)))
    found = unpack(packed, arrays)
    assert described(VALUES[name]) == described(found)


def test_what_was_packed_does_not_change() -> None:
    """A callback goes on writing to its arrays while they are saved."""
    mine = np.zeros(3)
    arrays: Arrays = {}
    pack({"seen": mine}, "x", arrays)
    mine += 1
    assert not arrays["x/seen"].any()


def described(value: Any) -> Any:
    """A value as something that compares."""
    if hasattr(value, "dtype"):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    return value
