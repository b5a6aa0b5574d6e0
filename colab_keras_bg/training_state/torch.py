"""PyTorch: its random state, its devices, its determinism.

Invariant: reading the state draws nothing from it.
"""

from __future__ import annotations

import base64
import os
from typing import Any

import numpy as np

__all__ = [
    "accelerators",
    "apply_random_state",
    "device_memory",
    "enable_determinism",
    "generator_state",
    "is_deterministic",
    "random_state",
    "set_generator_state",
    "version",
]


def random_state() -> dict[str, Any]:
    """The state of PyTorch's global generators, as JSON values."""
    import torch

    state: dict[str, Any] = {"cpu": _to_text(torch.get_rng_state())}
    if torch.cuda.is_available():
        state["cuda"] = [_to_text(s) for s in torch.cuda.get_rng_state_all()]
    return state


def apply_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` returned."""
    import torch

    torch.set_rng_state(_from_text(state["cpu"]))
    if torch.cuda.is_available() and "cuda" in state:
        devices = range(torch.cuda.device_count())
        for device, text in zip(devices, state["cuda"], strict=False):
            torch.cuda.set_rng_state(_from_text(text), device)


def device_memory() -> list[dict[str, int]]:
    """What each GPU has in use, and may use, in bytes."""
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        found.append(
            {
                "used_bytes": total_bytes - free_bytes,
                "limit_bytes": total_bytes,
            }
        )
    return found


def accelerators() -> list[str]:
    """The kinds of accelerators that are used, one entry each."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(index) for index in range(count)]


def is_deterministic() -> bool:
    """Whether `use_deterministic_algorithms` was called."""
    import torch

    return bool(torch.are_deterministic_algorithms_enabled())


def enable_determinism() -> None:
    """Makes every operation give the same bits each time, or raise."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def version() -> str:
    """PyTorch's version."""
    import torch

    return str(torch.__version__)


def generator_state(generator: Any) -> str:
    """The state of a `torch.Generator`, as text."""
    return _to_text(generator.get_state())


def set_generator_state(generator: Any, state: str) -> None:
    """Puts back what `generator_state` returned."""
    generator.set_state(_from_text(state))


def _to_text(state: Any) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode("ascii")


def _from_text(text: str) -> Any:
    import torch

    numbers = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return torch.from_numpy(numbers.copy())
