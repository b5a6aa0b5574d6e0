"""Every variable of a training, by a key that names its place.

Invariant: the key of a variable is where it sits in the model's structure
(as in a `.weights.h5` file), never its auto-numbered name: a cell that builds
the same model twice gives the same keys. Each variable of the model, its
optimizers and its metrics has exactly one key; and so has each that Keras does
not track, but a layer or loss of the user's holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from colab_keras_bg.training_state.untracked import (
    TensorFlowVariable,
    held,
    held_by_schedule,
    is_optimizer,
    plain_name,
    untracked,
)

__all__ = ["REPLICA", "layers_by_path", "optimizers", "training_variables"]

REPLICA = "replica/"
# What Keras keeps in a layer that is no place of a sublayer.
_NOT_CHILDREN = frozenset({"_layers", "_operations", "_functional", "_tracker"})
_NO_LAYER = (str, int, float, bool, bytes, type(None))


def training_variables(model: Any) -> dict[str, Any]:
    """All variables that a continued training needs.

    Args:
        model: A built and compiled Keras model.

    Returns:
        The variables by key: `model/...`, `optimizer/...` (or the attribute
        of another optimizer), `metrics/...` and `untracked/...`; then, as
        `replica/0/...`, what each replica has of those that may differ.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def add(key: str, variable: Any) -> None:
        if id(variable) not in seen:
            seen.add(id(variable))
            found[key] = variable

    layers = layers_by_path(model)
    for path, layer in layers.items():
        for place, variable in _own_variables(layer):
            add(f"{path}/{place}", variable)
    # What a tracker knows and the walk did not reach has its place in order.
    for index, variable in enumerate(model.variables):
        add(f"model/other/{index}", variable)
    found_held = list(held(layers))
    trained_by = _optimizers(model, found_held)
    for name, optimizer in trained_by.items():
        for index, variable in enumerate(optimizer.variables):
            add(f"{name}/vars/{index}", variable)
    for index, metric in enumerate(model.metrics):
        for part, variable in enumerate(metric.variables):
            add(f"metrics/{index}/vars/{part}", variable)
    for name, optimizer in trained_by.items():
        found_held += held_by_schedule(optimizer, name)
    for key, variable in untracked(found_held, layers):
        add(f"untracked/{key}", variable)
    strategy = getattr(model, "_distribute_strategy", None)
    if type(strategy).__name__ == "MirroredStrategy":
        alike = [v for o in trained_by.values() for v in o.variables]
        for layer in layers.values():
            alike += layer._trainable_variables
        found |= dict(_of_replicas(found, but_for=alike))
    return found


def optimizers(model: Any) -> dict[str, Any]:
    """The model's optimizers by attribute; the compiled one first.

    A model with its own `train_step` may keep several, such as a GAN's: as
    attributes, in lists or dicts, or in models that it is made of.
    """
    return _optimizers(model, held(layers_by_path(model)))


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
    if not layer._layers:
        return
    by_attribute = dict(_attributes(layer))
    for index, child in enumerate(layer._layers):
        yield by_attribute.get(id(child), f"sublayers/{index}"), child


def _attributes(layer: Any) -> Iterator[tuple[int, str]]:
    for name, value in vars(layer).items():
        if name in _NOT_CHILDREN or isinstance(value, _NO_LAYER):
            continue
        for path, item in _items(name, value):
            yield id(item), path


def _items(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _items(f"{path}/{plain_name(str(key))}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _items(f"{path}/{index}", item)
    else:
        yield path, value


def _optimizers(model: Any, held: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    main = getattr(model, "optimizer", None)
    if main is not None:
        found["optimizer"] = main
    seen = {id(main)}
    for key, value in held:
        if is_optimizer(value) and id(value) not in seen:
            seen.add(id(value))
            found[key.strip("_")] = value
    return found


def _of_replicas(
    variables: Mapping[str, Any], *, but_for: Iterable[Any]
) -> Iterator[tuple[str, Any]]:
    """What the replicas of a `MirroredStrategy` have of their own.

    Metrics and moving averages: their sum or mean would go on with other
    bits. Weights and what optimizers keep are the same everywhere.
    """
    alike = {id(variable) for variable in but_for}
    for key, variable in variables.items():
        parts = getattr(variable.value, "values", ())
        if len(parts) > 1 and id(variable) not in alike:
            for index, part in enumerate(parts):
                yield f"{REPLICA}{index}/{key}", TensorFlowVariable(part)


def _snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
