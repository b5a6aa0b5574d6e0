"""The random state that a training draws from, besides seed generators.

Invariant: `apply(capture())` changes nothing, and after `apply` the next
draws are those that would have come after `capture`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    "apply",
    "capture",
    "global_seed_generator",
    "numpy_state",
    "set_numpy_state",
]


def capture() -> dict[str, Any]:
    """The state of Python's, NumPy's and the backend's global generators.

    Returns:
        JSON values.
    """
    import keras

    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": numpy_state(),
    }
    if keras.backend.backend() == "tensorflow":
        from colab_keras_bg.training_state import tensorflow as adapter

        state["tensorflow"] = adapter.random_state()
    return state


def apply(state: Mapping[str, Any]) -> None:
    """Puts back what `capture` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    set_numpy_state(state["numpy"])
    if "tensorflow" in state:
        from colab_keras_bg.training_state import tensorflow as adapter

        adapter.apply_random_state(state["tensorflow"])


def numpy_state() -> dict[str, Any]:
    """The state of NumPy's global generator, as JSON values."""
    state: dict[str, Any] = _to_json(np.random.get_state(legacy=False))
    return state


def set_numpy_state(state: Mapping[str, Any] | None) -> None:
    """Puts back what `numpy_state` returned."""
    np.random.set_state(_from_json(state))


def global_seed_generator() -> dict[str, Any]:
    """Keras' global seed generator's variable, made if there is none yet.

    Layers without a seed of their own and `keras.random` without a seed draw
    from it.
    """
    from keras.src.random import seed_generator

    generator = seed_generator.global_seed_generator()
    return {"random/global_seed_generator": generator.state}


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.name}
    return value.item() if isinstance(value, np.generic) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"array", "dtype"}:
            return np.array(value["array"], dtype=np.dtype(value["dtype"]))
        return {key: _from_json(item) for key, item in value.items()}
    return value
