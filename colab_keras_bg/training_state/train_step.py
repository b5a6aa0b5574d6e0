"""What a training step does that a checkpoint cannot hold.

Invariant: looking runs nothing: only graphs that are traced already, or are
traced for the looking, are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras

from colab_keras_bg.training_state.variables import training_variables

__all__ = ["not_exact"]

# TensorFlow keeps the state of these in the kernel, where nobody reads it.
_RANDOM = frozenset(
    {
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "TruncatedNormal",
    }
)
_PYTHON = frozenset({"EagerPyFunc", "PyFunc", "PyFuncStateless"})


def not_exact(model: Any, *, batch: Any = None) -> list[str]:
    """What the model's step does that will not go on as it was.

    Args:
        model: A built and compiled model.
        batch: What a batch looks like, to trace the step for the looking; if
            None, only what `fit` has traced is read.

    Returns:
        A sentence for each, with its cure. Only TensorFlow's graphs show it.
    """
    if keras.backend.backend() != "tensorflow":
        return []
    from colab_keras_bg.training_state import tensorflow as adapter

    graphs = adapter.traced(model)
    if batch is not None:
        graphs.append(adapter.trace(model, batch))
    return [*_operations(graphs), *_variables(model, graphs)]


def _operations(graphs: Iterable[Any]) -> Iterator[str]:
    kinds = set()
    for graph in graphs:
        described = graph.as_graph_def()
        kinds |= {node.op for node in described.node}
        for function in described.library.function:
            kinds |= {node.op for node in function.node_def}
    if kinds & _RANDOM:
        yield (
            "the training step draws from TensorFlow's stateful random "
            f"operations ({', '.join(sorted(kinds & _RANDOM))}), which begin "
            "anew in a new process: draw with keras.random and a "
            "keras.random.SeedGenerator that a layer holds"
        )
    if kinds & _PYTHON:
        yield (
            "the training step calls a Python function "
            f"({', '.join(sorted(kinds & _PYTHON))}): state that it keeps is "
            "not saved; keep it in a variable of a layer"
        )


def _variables(model: Any, graphs: Iterable[Any]) -> Iterator[str]:
    known = set()
    for variable in training_variables(model).values():
        value = variable.value
        known |= {id(value), *map(id, getattr(value, "values", ()))}
    known.add(id(_value_of_global_seed()))
    names = {
        variable.name
        for graph in graphs
        for variable in graph.variables
        if id(variable) not in known
    }
    if names:
        yield (
            "the training step uses variables that no layer, optimizer or "
            f"metric of the model holds ({', '.join(sorted(names)[:3])}): "
            "they are not saved; make them attributes of a layer"
        )


def _value_of_global_seed() -> Any:
    from colab_keras_bg.training_state.random_state import (
        GLOBAL_SEED,
        global_seed_generator,
    )

    held = global_seed_generator().get(GLOBAL_SEED)
    return getattr(held, "value", None)
