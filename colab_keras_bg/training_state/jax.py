"""JAX: snapshots copied on the device, before the next step takes the buffers.

Invariant: nothing returned here shares a buffer with the training state: the
training step donates its arguments, which deletes them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = [
    "accelerators",
    "enable_determinism",
    "is_deterministic",
    "read",
    "value_of",
    "version",
]

_FLAG = "--xla_gpu_deterministic_ops=true"


def read(variables: Mapping[str, Any], *, model: Any) -> dict[str, Any]:
    """The present values of Keras variables, copied on the device.

    Args:
        variables: Keras variables by key.
        model: The model being fitted; between two steps of an epoch the
            values lie in its state and not in the variables.

    Returns:
        JAX arrays by key.
    """
    live = _live_values(model)
    values = {
        # Not live.get: a variable's value is not there between two steps.
        key: live[id(variable)] if id(variable) in live else variable.value  # noqa: SIM401
        for key, variable in variables.items()
    }
    copied: dict[str, Any] = _copy()(values)
    return copied


def value_of(array: Any) -> np.ndarray[Any, Any]:
    """The values of a JAX array, on the host."""
    return np.asarray(array)


def _live_values(model: Any) -> dict[int, Any]:
    state = getattr(model, "_jax_state", None)
    if not state or getattr(model, "_jax_state_synced", True):
        return {}
    optimizer = getattr(model, "optimizer", None)
    groups = {
        "trainable_variables": model.trainable_variables,
        "non_trainable_variables": model.non_trainable_variables,
        "optimizer_variables": getattr(optimizer, "variables", []),
        "metrics_variables": model.metrics_variables,
    }
    return {
        id(variable): value
        for name, variables in groups.items()
        for variable, value in zip(variables, state[name], strict=True)
    }


@functools.cache
def _copy() -> Callable[[Any], Any]:
    import jax
    import jax.numpy as jnp

    def copy(values: Any) -> Any:
        return jax.tree_util.tree_map(jnp.copy, values)

    compiled: Callable[[Any], Any] = jax.jit(copy)
    return compiled


def accelerators() -> list[str]:
    """The kinds of accelerators that are used, one entry each."""
    import jax

    return [d.device_kind for d in jax.devices() if d.platform != "cpu"]


def is_deterministic() -> bool:
    """Whether XLA was told to be, on GPUs; TPUs are."""
    import jax

    on_gpu = any(device.platform == "gpu" for device in jax.devices())
    return not on_gpu or _FLAG in os.environ.get("XLA_FLAGS", "")


def enable_determinism() -> None:
    """Tells XLA, which looks before its first computation."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}".strip()


def version() -> str:
    """JAX's version."""
    import jax

    return str(jax.__version__)
