"""Making the variables of a model that `fit` would make at its first step.

Invariant: nothing is drawn from the data and no variable gets a value that
matters: stored values are put in afterwards. Keras makes layers, compiled
metrics and optimizer slots lazily; what is not there cannot be restored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras

from colab_keras_bg.journal.announce import say
from colab_keras_bg.training_state.variables import (
    optimizers,
    training_variables,
)

__all__ = ["build", "describe"]


def describe(model: Any, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What `build` needs, as JSON values.

    Args:
        model: A built model.
        variables: Its `training_variables`.

    Returns:
        `optimizers`: for each optimizer, the keys of the variables that it
        was built for. `others`: the keys of variables that are neither
        weights nor theirs.
    """
    keys = {id(variable): key for key, variable in variables.items()}
    return {
        "optimizers": {
            name: [keys[id(v)] for v in _built_for(optimizer) if id(v) in keys]
            for name, optimizer in optimizers(model).items()
            if optimizer.built
        },
        "others": [
            key
            for key in variables
            if key.startswith(("metrics/", "untracked/"))
        ],
    }


def build(model: Any, epoch_iterator: Any, state: Mapping[str, Any]) -> None:
    """Builds what is not built yet.

    Args:
        model: A compiled model.
        epoch_iterator: The `EpochIterator` of the running `fit`.
        state: The state of the checkpoint that is to be restored.
    """
    built = state["build"]
    others = built.get("others", ())
    if keras.backend.backend() == "tensorflow" and not (
        _is_built(model) and _has(model, others)
    ):
        from colab_keras_bg.training_state import tensorflow as adapter

        _build_for(model, adapter.symbolic_batch(epoch_iterator), others)
    variables = training_variables(model)
    for name, optimizer in optimizers(model).items():
        keys = built["optimizers"].get(name)
        if not optimizer.built and keys is not None:
            optimizer.build([variables[k] for k in keys if k in variables])


def _build_for(model: Any, batch: Any, others: Collection[str]) -> None:
    """Builds what a first step on such a batch would build."""
    from colab_keras_bg.training_state import tensorflow as adapter

    if type(model).train_step is not keras.Model.train_step:
        # It need not call the model as a whole, nor with what `fit` is given.
        try:
            adapter.trace(model, batch)
        except Exception:  # noqa: BLE001, S110 - it may run eagerly only
            pass
        else:
            return
    try:
        try:
            model._symbolic_build(data_batch=batch)
        except Exception:  # noqa: BLE001 - it calls the model as `predict`
            # does, which need not work where a step does.
            _forget_masks(model)
            adapter.trace(model, batch)
        if not _has(model, others):
            adapter.trace(model, batch)
    except Exception as error:  # noqa: BLE001 - any user code may run
        say(
            "the model's metrics cannot be built before the first step "
            f"({type(error).__name__}: {error}); this epoch's averages "
            "begin at the present step"
        )


def _forget_masks(model: Any) -> None:
    """Drops what recurrent cells keep of a call that was cut off."""
    for layer in model._flatten_layers():
        for name in ("reset_dropout_mask", "reset_recurrent_dropout_mask"):
            getattr(layer, name, bool)()


def _has(model: Any, keys: Collection[str]) -> bool:
    return not keys or set(keys) <= set(training_variables(model))


def _is_built(model: Any) -> bool:
    parts = (model._compile_metrics, model._compile_loss)
    return all(layer.built for layer in model._flatten_layers()) and all(
        part is None or part.built for part in parts
    )


def _built_for(optimizer: Any) -> list[Any]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "_trainable_variables", []))
