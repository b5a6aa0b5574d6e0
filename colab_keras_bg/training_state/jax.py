"""JAX: snapshots that the next step, which takes buffers over, leaves alone.

Invariant: nothing returned here is changed or deleted by a later step.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from colab_keras_bg.journal.announce import say

__all__ = [
    "accelerators",
    "device_memory",
    "enable_determinism",
    "is_deterministic",
    "read",
    "start_profile",
    "stop_profile",
    "value_of",
    "version",
]

# What a copy takes, and some room for what a step takes besides.
_MARGIN = 1.2
_FLAG = "--xla_gpu_deterministic_ops=true"


def read(variables: Sequence[Any], *, model: Any) -> list[Any]:
    """The present values, as arrays that stay what they are.

    On a CPU as views of the buffers: a step to which a buffer is given that
    somebody looks at leaves it alone and makes a new one. On an accelerator as
    copies there, or on the host if there is no room.

    Args:
        variables: Keras variables.
        model: The model being fitted; between two steps of an epoch the
            values lie in its state and not in the variables.

    Returns:
        Arrays of NumPy or JAX, in the order given.
    """
    live = _live_values(model)
    values = [
        # Not live.get: a variable's value is not there between two steps.
        live[id(variable)] if id(variable) in live else variable.value  # noqa: SIM401
        for variable in variables
    ]
    if _on_host(values):
        return [np.asarray(value) for value in values]
    if _fit_again(values):
        copied: list[Any] = _copy()(values)
        return copied
    _say_no_room()
    return [np.array(value) for value in values]


def value_of(array: Any) -> np.ndarray[Any, Any]:
    """The values of an array, on the host."""
    return np.asarray(array)


def _on_host(values: Sequence[Any]) -> bool:
    """Whether all of them are in the memory that NumPy sees."""
    return all(
        device.platform == "cpu"
        for value in values[:1]
        for device in value.devices()
    )


@functools.cache
def _say_no_room() -> None:
    say(
        "the accelerator has no room for a second copy of the training state: "
        "each save stops the training while it is copied to the host"
    )


def _fit_again(values: Sequence[Any]) -> bool:
    """Whether the devices have room for a copy; yes if they do not tell."""
    needed: dict[Any, int] = {}
    for value in values:
        for shard in value.addressable_shards:
            needed.setdefault(shard.device, 0)
            needed[shard.device] += int(shard.data.nbytes)
    for device, size_bytes in needed.items():
        stats = device.memory_stats() or {}
        limit, used = stats.get("bytes_limit"), stats.get("bytes_in_use")
        if limit and used is not None and limit - used < _MARGIN * size_bytes:
            return False
    return True


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


def device_memory() -> list[dict[str, int]]:
    """What each accelerator has in use, and may use, in bytes."""
    import jax

    found = []
    for device in jax.local_devices():
        stats = device.memory_stats() if device.platform != "cpu" else None
        if stats:
            names = {"used_bytes": "bytes_in_use", "limit_bytes": "bytes_limit"}
            found.append(
                {ours: int(stats[n]) for ours, n in names.items() if n in stats}
            )
    return found


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


def start_profile(folder: str) -> None:
    """Begins to look at what takes how long.

    Args:
        folder: Where the profile goes.
    """
    import jax

    jax.profiler.start_trace(folder)


def stop_profile() -> None:
    """Writes the profile."""
    import jax

    jax.profiler.stop_trace()


def version() -> str:
    """JAX's version."""
    import jax

    return str(jax.__version__)
