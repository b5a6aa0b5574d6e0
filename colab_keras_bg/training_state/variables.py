"""Every variable of a training, by a key that names its place.

Invariant: the key of a variable is where it sits in the model's structure
(as in a `.weights.h5` file), never its auto-numbered name: a cell that builds
the same model twice gives the same keys. Each variable of the model, its
optimizers and its metrics has exactly one key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["layers_by_path", "optimizers", "training_variables"]


def training_variables(model: Any) -> dict[str, Any]:
    """All variables that a continued training needs.

    Args:
        model: A built and compiled Keras model.

    Returns:
        The variables by key: `model/...`, `optimizer/...` (or the attribute
        of another optimizer) and `metrics/...`.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def add(key: str, variable: Any) -> None:
        if id(variable) not in seen:
            seen.add(id(variable))
            found[key] = variable

    for path, layer in layers_by_path(model).items():
        for place, variable in _own_variables(layer):
            add(f"{path}/{place}", variable)
    # What a tracker knows and the walk did not reach has its place in order.
    for index, variable in enumerate(model.variables):
        add(f"model/other/{index}", variable)
    for name, optimizer in optimizers(model).items():
        for index, variable in enumerate(optimizer.variables):
            add(f"{name}/vars/{index}", variable)
    for index, metric in enumerate(model.metrics):
        for part, variable in enumerate(metric.variables):
            add(f"metrics/{index}/vars/{part}", variable)
    return found


def optimizers(model: Any) -> dict[str, Any]:
    """The model's optimizers by attribute; the compiled one first.

    A model with its own `train_step` may keep several, such as a GAN's.
    """
    found: dict[str, Any] = {}
    main = getattr(model, "optimizer", None)
    if main is not None:
        found["optimizer"] = main
    for name, value in sorted(vars(model).items()):
        known = any(value is optimizer for optimizer in found.values())
        if not known and _is_optimizer(value):
            found[name.strip("_")] = value
    return found


def layers_by_path(model: Any) -> dict[str, Any]:
    """The model and all its layers, by path, each layer once."""
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def walk(layer: Any, path: str) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        found[path] = layer
        for name, child in _children(layer):
            walk(child, f"{path}/{name}")

    walk(model, "model")
    return found


def _own_variables(layer: Any) -> Iterator[tuple[str, Any]]:
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    for index, variable in enumerate(own):
        yield f"vars/{index}", variable
    for index, generator in enumerate(layer._seed_generators):
        yield f"seed_generators/{index}", generator.state


def _children(layer: Any) -> Iterator[tuple[str, Any]]:
    """The sublayers with names that do not depend on when they were made."""
    if type(layer).__name__ in ("Sequential", "Functional") or hasattr(
        layer, "_operations_by_depth"
    ):
        names: dict[str, int] = {}
        for child in layer.layers:
            name = _snake_case(type(child).__name__)
            count = names.get(name, 0)
            names[name] = count + 1
            yield f"layers/{name}_{count}" if count else f"layers/{name}", child
    by_attribute = dict(_attributes(layer))
    for index, child in enumerate(layer._layers):
        yield by_attribute.get(id(child), f"sublayers/{index}"), child


def _attributes(layer: Any) -> Iterator[tuple[int, str]]:
    for name, value in vars(layer).items():
        if name in ("_layers", "_operations", "_functional", "_tracker"):
            continue
        for path, item in _items(name, value):
            yield id(item), path


def _items(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _items(f"{path}/{_plain(str(key))}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _items(f"{path}/{index}", item)
    else:
        yield path, value


def _is_optimizer(value: Any) -> bool:
    return any(
        base.__name__ == "BaseOptimizer" and "keras" in base.__module__
        for base in type(value).__mro__
    )


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def _snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
