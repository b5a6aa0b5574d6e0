"""What a layer has computed from its variables, and keeps beside them.

Invariant: after variables were put in, a layer computes with those. Keras'
own loading sees to that in `load_own_variables`; we assign variables alone.
"""

from __future__ import annotations

from typing import Any

import keras

from colab_keras_bg.training_state.variables import layers_by_path

__all__ = ["derive"]


def derive(model: Any) -> None:
    """Has layers compute anew what they derive from their variables.

    Keras' `Normalization` keeps its mean and variance so, reshaped; a user's
    layer may do the same, and says so by having a `finalize_state`. Keras'
    other layers with one (lookups) have no variables that are assigned.

    Args:
        model: A model whose variables were assigned.
    """
    for layer in layers_by_path(model).values():
        finalize = getattr(layer, "finalize_state", None)
        own = type(layer).__module__.partition(".")[0] == "keras"
        if not callable(finalize) or not layer.built:
            continue
        if isinstance(layer, keras.layers.Normalization) or not own:
            finalize()
