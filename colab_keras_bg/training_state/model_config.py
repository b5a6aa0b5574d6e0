"""A model as values, and back, without running what was stored.

Invariant: a stored configuration is only ever given to Keras after every
object in it was found to be one of Keras' own that runs no stored code and
opens no file. What cannot be described is not stored; the program that made
the model is needed then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import keras

from colab_keras_bg.errors import UsageError
from colab_keras_bg.training_state import random_state

__all__ = ["described", "rebuilt"]

_MOST_CHARACTERS = 16 << 20

_MODULES = frozenset(
    {
        "keras",
        "keras.activations",
        "keras.constraints",
        "keras.dtype_policies",
        "keras.initializers",
        "keras.layers",
        "keras.losses",
        "keras.metrics",
        "keras.models",
        "keras.optimizers",
        "keras.optimizers.schedules",
        "keras.quantizers",
        "keras.random",
        "keras.regularizers",
    }
)
# Keras itself names these by where they are defined.
_MODELS = frozenset({"Functional", "Sequential"})
# They hold code, or load what they are told to.
_RUNS_CODE = frozenset(
    {
        "FlaxLayer",
        "JaxLayer",
        "Lambda",
        "TFSMLayer",
        "TorchModuleWrapper",
        "__lambda__",
    }
)
# In a configuration, a text here is the name of a file that is read.
_FILES = frozenset({"idf_weights", "vocabulary"})
_NO_MODULE = frozenset(
    {
        "__bytes__",
        "__ellipsis__",
        "__keras_tensor__",
        "__numpy__",
        "__slice__",
        "__tensor__",
        "__tuple__",
    }
)


def described(model: Any) -> str | None:
    """A model's configuration, as Keras writes it into a `.keras` file.

    Args:
        model: The model. Not in a step on JAX, where Keras has given the
            variables' values away.

    Returns:
        JSON; None if the model is not built, or cannot be described, or only
        by too much.
    """
    if not model.built:
        return None
    try:
        with random_state.undisturbed():
            text = json.dumps(keras.saving.serialize_keras_object(model))
    except Exception:  # noqa: BLE001 - a user's get_config may raise anything;
        # then the model's program is needed, which `rebuilt` says.
        return None
    return text if len(text) <= _MOST_CHARACTERS else None


def rebuilt(text: str | None) -> Any:
    """A model of a stored configuration, with variables of its own.

    Args:
        text: What `described` returned, from wherever it was stored.

    Returns:
        The model; compiled as it was if that needs nothing but Keras.

    Raises:
        UsageError: If the configuration needs more than Keras, or is none.
    """
    if not isinstance(text, str):
        raise UsageError(
            "the model could not be described when it was saved, so it has to "
            "be built by its program"
        )
    bare, whole = _parsed(text), _parsed(text)
    compile_config = bare.pop("compile_config", None)
    foreign = sorted(set(_foreign(bare)))
    if foreign:
        raise UsageError(
            f"the model needs {', '.join(foreign)}, which is not of Keras "
            "itself: it has to be built by its program"
        )
    if compile_config and not any(_foreign(compile_config)):
        try:
            return keras.saving.deserialize_keras_object(whole, safe_mode=True)
        except Exception:  # noqa: BLE001, S110 - a loss of the user's own,
            # under a name; the model can do without.
            pass
    try:
        return keras.saving.deserialize_keras_object(bare, safe_mode=True)
    except Exception as error:  # noqa: BLE001 - Keras raises of any kind
        lines = str(error).splitlines() or [type(error).__name__]
        raise UsageError(
            f"Keras cannot build the model from its configuration "
            f"({lines[0]:.200}): it has to be built by its program"
        ) from None


def _parsed(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or "class_name" not in config:
        raise UsageError("the stored configuration is none")
    return config


def _foreign(value: Any, depth: int = 0) -> Iterator[str]:
    """What of a configuration is not allowed, by name."""
    if depth > 200:
        yield "more depth than any model has"
        return
    if isinstance(value, dict):
        if "class_name" in value:
            yield from _foreign_class(value)
        for name, part in value.items():
            if name in _FILES and isinstance(part, str):
                yield f"the file {part!r:.80}"
            yield from _foreign(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield from _foreign(part, depth + 1)


def _foreign_class(value: dict[str, Any]) -> Iterator[str]:
    name, module = value["class_name"], value.get("module")
    # With a dot in it, a class's name leads to another module.
    if (
        not isinstance(name, str)
        or not name.isidentifier()
        or name in _RUNS_CODE
    ):
        yield f"{name!r:.80}"
    elif module is None:
        if name not in _NO_MODULE and "registered_name" in value:
            yield f"{name!r:.80}"
    elif module == "builtins":
        if name != "function" or not isinstance(value.get("config"), str):
            yield f"{name!r:.80}"
    elif module not in _MODULES and not (
        str(module).startswith("keras.src.models.") and name in _MODELS
    ):
        yield f"{f'{module}.{name}'!r:.80}"
