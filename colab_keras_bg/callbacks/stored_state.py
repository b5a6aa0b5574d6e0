"""What a checkpoint's state has to hold before any of it is used.

Invariant: a state that lacks something, or has it of another kind, is damage
that names it: whoever wrote it knew how to make the hashes right.
"""

from __future__ import annotations

from typing import Any

from colab_keras_bg.checkpoint.store import Checkpoint
from colab_keras_bg.errors import DamagedCheckpointError
from colab_keras_bg.training_state.position import Position

__all__ = ["check_state"]

_KINDS: dict[str, type | tuple[type, ...]] = {
    "position": dict,
    "loop": dict,
    "history": dict,
    "random": dict,
    "fingerprint": dict,
    "versions": dict,
    "callbacks": (dict, list),
}
_PARTS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "loop": {
        "steps_seen": int,
        "num_batches": (int, type(None)),
        "logs": (dict, type(None)),
    },
    "history": {"epoch": list, "values": dict},
    "fingerprint": {"model": dict},
}
_NEEDED = ("data", "validation", "build")


def check_state(found: Checkpoint) -> Checkpoint:
    """Returns a checkpoint if its state has the right form.

    Args:
        found: The checkpoint.

    Raises:
        DamagedCheckpointError: If it has not.
    """
    state = found.state
    for name in (*_KINDS, *_NEEDED):
        if name not in state:
            raise _damaged(found, f"its {name!r} is missing")
    for name, kind in _KINDS.items():
        _check(found, name, state[name], kind)
    for name, parts in _PARTS.items():
        for part, kind in parts.items():
            if part not in state[name]:
                raise _damaged(found, f"its {name}/{part} is missing")
            _check(found, f"{name}/{part}", state[name][part], kind)
    try:
        Position.from_json(state["position"])
    except (ValueError, KeyError) as error:
        raise _damaged(found, str(error)) from None
    return found


def _check(
    found: Checkpoint, name: str, value: Any, kind: type | tuple[type, ...]
) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _damaged(found, f"its {name} is {value!r:.80}")


def _damaged(found: Checkpoint, reason: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        found.step, reason=f"{found.manifest.state_file}: {reason}"
    )
