"""Making the variables of a model that `fit` would make at its first step.

Invariant: nothing is drawn from the data and no variable gets a value that
matters: stored values are put in afterwards. Keras makes layers, compiled
metrics and optimizer slots lazily; what is not there cannot be restored.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import keras

from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state.variables import (
    optimizers,
    training_variables,
)

__all__ = ["build", "describe", "versions"]


def describe(model: Any) -> dict[str, Any]:
    """What `build` needs, as JSON values.

    Returns:
        `optimizers`: for each optimizer, the keys of the variables that it
        was built for.
    """
    keys = {
        id(variable): key for key, variable in training_variables(model).items()
    }
    return {
        "optimizers": {
            name: [keys[id(v)] for v in _built_for(optimizer) if id(v) in keys]
            for name, optimizer in optimizers(model).items()
            if optimizer.built
        }
    }


def build(model: Any, epoch_iterator: Any, state: Mapping[str, Any]) -> None:
    """Builds what is not built yet.

    Args:
        model: A compiled model.
        epoch_iterator: The `EpochIterator` of the running `fit`.
        state: The state of the checkpoint that is to be restored.
    """
    if not _is_built(model) and keras.backend.backend() == "tensorflow":
        from colab_keras_bg.training_state import tensorflow as adapter

        batch = adapter.symbolic_batch(epoch_iterator)
        try:
            model._symbolic_build(data_batch=batch)
        except Exception as error:  # noqa: BLE001 - any user code may run
            say(
                "the model's metrics cannot be built before the first step "
                f"({type(error).__name__}: {error}); this epoch's averages "
                "begin at the present step"
            )
    variables = training_variables(model)
    for name, optimizer in optimizers(model).items():
        keys = state["build"]["optimizers"].get(name)
        if not optimizer.built and keys is not None:
            optimizer.build([variables[k] for k in keys if k in variables])


def versions() -> dict[str, str]:
    """What an exact continuation may depend on."""
    backend = keras.backend.backend()
    found = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "keras": keras.__version__,
        "backend": backend,
    }
    if backend == "tensorflow":
        import tensorflow

        found["tensorflow"] = tensorflow.__version__
    elif backend == "jax":
        import jax

        found["jax"] = jax.__version__
    return found


def _is_built(model: Any) -> bool:
    parts = (model._compile_metrics, model._compile_loss)
    return all(layer.built for layer in model._flatten_layers()) and all(
        part is None or part.built for part in parts
    )


def _built_for(optimizer: Any) -> list[Any]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "_trainable_variables", []))
