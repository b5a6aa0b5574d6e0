"""The random state that a training draws from, besides seed generators.

Invariant: `apply(capture())` changes nothing, and after `apply` the next
draws are those that would have come after `capture`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

__all__ = [
    "GLOBAL_SEED",
    "TORCH",
    "apply",
    "capture",
    "global_seed_generator",
    "host_state",
    "numpy_state",
    "set_host_state",
    "set_numpy_state",
    "undisturbed",
]

GLOBAL_SEED = "random/global_seed_generator"
TORCH = "torch"


def capture() -> dict[str, Any]:
    """The state of Python's, NumPy's and the backend's global generators.

    Returns:
        JSON values.
    """
    import keras

    state = host_state()
    if keras.backend.backend() == "tensorflow":
        from colab_keras_bg.training_state import tensorflow as adapter

        state["tensorflow"] = adapter.random_state()
    return state


def apply(state: Mapping[str, Any], *, but_for: Collection[str] = ()) -> None:
    """Puts back what `capture` returned.

    Args:
        state: What `capture` returned.
        but_for: Generators that are as they should be: `python`, `numpy`.
    """
    set_host_state({k: v for k, v in state.items() if k not in but_for})
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


def host_state() -> dict[str, Any]:
    """The states of the generators that data may draw from, as JSON values.

    Returns:
        `python` and `numpy`; with PyTorch as the backend, `torch`.
    """
    import keras

    version, numbers, gauss = random.getstate()
    state = {"python": [version, list(numbers), gauss], "numpy": numpy_state()}
    if keras.backend.backend() == "torch":
        from colab_keras_bg.training_state import torch as adapter

        state[TORCH] = adapter.random_state()
    return state


def set_host_state(state: Mapping[str, Any]) -> None:
    """Puts back what `host_state` returned, or a part of it."""
    if "python" in state:
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
    if "numpy" in state:
        set_numpy_state(state["numpy"])
    if TORCH in state:
        from colab_keras_bg.training_state import torch as adapter

        adapter.apply_random_state(state[TORCH])


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Puts the generators of `host_state` back when the block ends.

    What looks at a model may draw from them: Keras makes seeds that way.
    """
    before = host_state()
    try:
        yield
    finally:
        set_host_state(before)


def global_seed_generator(*, make: bool = False) -> dict[str, Any]:
    """Keras' global seed generator's variable, if there is one.

    Layers without a seed of their own and `keras.random` without a seed draw
    from it. Keras makes it when it is first needed, from Python's random
    state; making it earlier would change what comes.

    Args:
        make: Whether to make it if there is none.
    """
    from keras.src.backend.common import global_state
    from keras.src.random import seed_generator

    generator = global_state.get_global_attribute("global_seed_generator")
    if generator is None and make:
        generator = seed_generator.global_seed_generator()
    return {} if generator is None else {GLOBAL_SEED: generator.state}


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
