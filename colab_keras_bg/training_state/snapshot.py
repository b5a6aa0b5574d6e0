"""The values of all variables at one instant, and putting them back.

Invariant: what `Snapshots.take` returns equals a deep copy of the same
instant, however long it is kept; on TensorFlow, and on JAX on a CPU, taking it
copies nothing, and on an accelerator only there, as long as it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from colab_keras_bg.tensor import LazyTensor

__all__ = ["Snapshots", "assign", "dtype_of"]

_Fetch = Callable[[Any], np.ndarray[Any, Any]]


class Snapshots:
    """Takes snapshots of variables that are always the same ones.

    What can be known of them beforehand is found out once.
    """

    def __init__(self, variables: Mapping[str, Any], *, model: Any) -> None:
        """Takes the variables.

        Args:
            variables: Keras variables by key, all built.
            model: The model that they belong to.
        """
        self._read, self._fetch = _reader(variables, model)
        self._known = [
            (key, dtype_of(v), tuple(v.shape)) for key, v in variables.items()
        ]

    def take(self) -> dict[str, LazyTensor]:
        """Holds the present values.

        Returns:
            A tensor for each key, whose values are fetched when it is written.
        """
        fetch = self._fetch
        return {
            key: LazyTensor(dtype, shape, partial(fetch, value))
            for (key, dtype, shape), value in zip(
                self._known, self._read(), strict=True
            )
        }


def _reader(
    variables: Mapping[str, Any], model: Any
) -> tuple[Callable[[], list[Any]], _Fetch]:
    """What reads all of them, in their order, and what fetches one's values."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        from colab_keras_bg.training_state import tensorflow as adapter

        return adapter.reader(variables.values()), adapter.value_of
    if backend == "jax":
        from colab_keras_bg.training_state import jax as jax_adapter

        read = partial(jax_adapter.read, list(variables.values()), model=model)
        return read, jax_adapter.value_of

    def copied() -> list[Any]:  # The backend may assign in place.
        return [
            np.array(keras.ops.convert_to_numpy(variable.value))
            for variable in variables.values()
        ]

    return copied, np.asarray


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


def dtype_of(variable: Any) -> np.dtype[Any]:
    """The dtype of a variable's values.

    Args:
        variable: A Keras variable, or one of TensorFlow's.
    """
    # NumPy knows bfloat16 and float8 by name once Keras is imported.
    dtype: np.dtype[Any] = np.dtype(
        getattr(variable.dtype, "name", variable.dtype)
    )
    return dtype
