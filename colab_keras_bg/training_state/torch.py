"""PyTorch: its random state.

Invariant: reading the state draws nothing from it.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

__all__ = ["apply_random_state", "random_state"]


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


def _to_text(state: Any) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode("ascii")


def _from_text(text: str) -> Any:
    import torch

    numbers = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return torch.from_numpy(numbers.copy())
