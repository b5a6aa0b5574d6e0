"""The values of all variables at one instant, and putting them back.

Invariant: what `take` returns equals a deep copy of the same instant, however
long it is kept; taking it costs the training thread no copy on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from colab_keras_bg.tensor import LazyTensor

__all__ = ["assign", "take"]


def take(variables: Mapping[str, Any], *, model: Any) -> dict[str, LazyTensor]:
    """Holds the present values of variables.

    Args:
        variables: Keras variables by key.
        model: The model that they belong to.

    Returns:
        A tensor for each key, whose values are fetched when it is written.
    """
    import keras

    backend = keras.backend.backend()
    values: Mapping[str, Any]
    fetch: Callable[[Any], np.ndarray[Any, Any]]
    if backend == "tensorflow":
        from colab_keras_bg.training_state import tensorflow as adapter

        values, fetch = adapter.read(variables), adapter.value_of
    elif backend == "jax":
        from colab_keras_bg.training_state import jax as jax_adapter

        values = jax_adapter.read(variables, model=model)
        fetch = jax_adapter.value_of
    else:  # The backend may assign in place: copy.
        values = {
            key: np.array(keras.ops.convert_to_numpy(variable.value))
            for key, variable in variables.items()
        }
        fetch = np.asarray
    return {
        key: LazyTensor(
            np.dtype(_numpy_dtype(values[key])),
            tuple(variable.shape),
            _Once(values[key], fetch),
        )
        for key, variable in variables.items()
    }


def assign(
    variables: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray[Any, Any]],
    *,
    keys: Iterable[str] | None = None,
) -> None:
    """Puts stored values into variables.

    Args:
        variables: Keras variables by key.
        tensors: The values by key.
        keys: Only these; all that are in both if None.
    """
    for key in variables if keys is None else keys:
        if key in tensors:
            variables[key].assign(tensors[key])


class _Once:
    """Fetches a value and lets it go."""

    def __init__(
        self, value: Any, fetch: Callable[[Any], np.ndarray[Any, Any]]
    ) -> None:
        self._value: list[Any] = [value]
        self._fetch = fetch

    def __call__(self) -> np.ndarray[Any, Any]:
        return self._fetch(self._value.pop())


def _numpy_dtype(value: Any) -> Any:
    dtype = value.dtype
    return getattr(dtype, "as_numpy_dtype", dtype)
