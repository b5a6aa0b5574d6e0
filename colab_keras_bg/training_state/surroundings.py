"""What training runs on, as far as its last bits may depend on it.

Invariant: looking changes nothing and draws nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

__all__ = [
    "device_memory",
    "differing",
    "enable_determinism",
    "surroundings",
    "unsteady",
]


def surroundings() -> dict[str, Any]:
    """Versions and devices, as JSON values."""
    backend = keras.backend.backend()
    found = {
        "python": platform.python_version(),
        "processor": _processor(),
        "keras": keras.__version__,
        "backend": backend,
        "accelerators": [],
    }
    adapter = _adapter(backend)
    if adapter is not None:
        found[backend] = adapter.version()
        found["accelerators"] = adapter.accelerators()
    return found


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was and may change the last bits.

    Args:
        then: What `surroundings` returned when the checkpoint was saved.
        now: What it returns.
    """
    return [
        f"{name} was {_short(then[name])} and is {_short(now.get(name))}"
        for name in then
        # Python's own version decides no bit.
        if name not in ("python", "machine") and then[name] != now.get(name)
    ]


def unsteady() -> str | None:
    """Why the same step may give other bits on this machine; None if not."""
    adapter = _adapter(keras.backend.backend())
    if adapter is None or not adapter.accelerators():
        return None
    if adapter.is_deterministic():
        return None
    return (
        f"operations on {_short(adapter.accelerators())} may add up in another "
        "order each time, so that last bits differ even without an "
        "interruption: start with --deterministic to be exact, at some cost in "
        "speed"
    )


def device_memory() -> list[dict[str, int]]:
    """What each accelerator has in use, and may use, as far as is known."""
    adapter = _adapter(keras.backend.backend())
    found: list[dict[str, int]] = adapter.device_memory() if adapter else []
    return found


def enable_determinism() -> None:
    """Asks the backend for the same bits each time; before the first step."""
    adapter = _adapter(keras.backend.backend())
    if adapter is not None:
        adapter.enable_determinism()


def _adapter(backend: str) -> ModuleType | None:
    adapter: ModuleType
    if backend == "tensorflow":
        from colab_keras_bg.training_state import tensorflow as adapter
    elif backend == "jax":
        from colab_keras_bg.training_state import jax as adapter
    elif backend == "torch":
        from colab_keras_bg.training_state import torch as adapter
    else:
        return None
    return adapter


def _processor() -> str:
    """The processor's model: other vector units may round otherwise."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.machine()


def _short(value: Any) -> str:
    if isinstance(value, list):
        counts = {kind: value.count(kind) for kind in value}
        return " + ".join(f"{n} x {kind}" for kind, n in counts.items()) or "-"
    return str(value)
