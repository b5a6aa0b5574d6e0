"""What a model and its optimizer are, so that a different one is noticed.

Invariant: a fingerprint holds JSON values only and nothing that changes when
the same code runs again: no auto-numbered name, no address, no weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from colab_keras_bg.training_state.variables import (
    REPLICA,
    layers_by_path,
    optimizers,
    training_variables,
)

__all__ = ["differences", "fingerprint", "optimizer_fingerprint"]

# Names are numbered automatically; the others follow from the input.
_VOLATILE = frozenset(
    {"name", "build_config", "shared_object_id", "registered_name", "module"}
)
# Containers list their children, by names; the children speak themselves.
_CONTAINERS = frozenset({"Sequential", "Functional"})


def fingerprint(model: Any) -> dict[str, Any]:
    """Describes a built and compiled model.

    Returns:
        `variables`: dtype and shape by key. `layers`: class and
        configuration by path. `optimizers`: the same by attribute.
    """
    variables = training_variables(model)
    return {
        "variables": {
            key: f"{_dtype(variable)}{list(variable.shape)}"
            for key, variable in variables.items()
            if not key.startswith(("metrics/", "untracked/", REPLICA))
        },
        "layers": {
            path: _described(layer)
            for path, layer in layers_by_path(model).items()
        },
        "optimizers": optimizer_fingerprint(model),
    }


def optimizer_fingerprint(model: Any) -> dict[str, Any]:
    """Class and configuration of each optimizer, by attribute.

    Taken before the first step: a callback may change the learning rate.
    """
    return {
        name: _described(optimizer)
        for name, optimizer in optimizers(model).items()
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints, a sentence each.

    Args:
        then: The fingerprint that was stored.
        now: The fingerprint of what is there.
    """
    found: list[str] = []
    for group in ("optimizers", "layers", "variables"):
        found.extend(_differences(then.get(group, {}), now.get(group, {}), ""))
    return found


def _differences(then: Any, now: Any, where: str) -> Iterator[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in [*then, *(key for key in now if key not in then)]:
            place = f"{where} {key}".strip()
            if key not in now:
                yield f"{place}: was {_short(then[key])}, is not there now"
            elif key not in then:
                yield f"{place}: was not there, is {_short(now[key])} now"
            else:
                yield from _differences(then[key], now[key], place)
    elif then != now:
        yield f"{where}: was {_short(then)}, is {_short(now)} now"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("class", value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _dtype(variable: Any) -> str:
    dtype = variable.dtype
    return str(getattr(dtype, "name", dtype))


def _described(item: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"class": type(item).__name__}
    if type(item).__name__ in _CONTAINERS:
        return described
    try:
        config = item.get_config()
    except Exception as error:  # noqa: BLE001 - a user's get_config may raise
        # anything; the variables still tell the layer apart.
        described["config"] = f"not available ({type(error).__name__})"
        return described
    described["config"] = _steady(config)
    return described


def _steady(value: Any) -> Any:
    """Keeps what is the same in every process, and drops the rest."""
    if isinstance(value, Mapping):
        if str(value.get("class_name")).endswith("DTypePolicy"):
            return str((value.get("config") or {}).get("name"))
        kept = {
            str(key): _steady(item)
            for key, item in value.items()
            if key not in _VOLATILE
        }
        if isinstance(kept.get("batch_shape"), list):
            # Of a model that Keras builds at its first batch, that one's.
            kept["batch_shape"] = [None, *kept["batch_shape"][1:]]
        return {key: item for key, item in kept.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_steady(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        # A learning rate comes back from a float32 variable.
        return float(f"{value:.6g}")
    return None
