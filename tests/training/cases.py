"""All cases by name, as `fresh_process` finds them."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Container, Iterable

import argument_cases
import data_cases
import keras
import model_cases
import pytest
import tf_data_cases
from _pytest.mark import ParameterSet
from harness import Case

__all__ = ["CASES", "in_turns", "not_here"]

CASES: dict[str, Case] = {
    **data_cases.CASES,
    **argument_cases.CASES,
    **model_cases.CASES,
    **tf_data_cases.CASES,
}


def not_here(name: str) -> str | None:
    """Why a case cannot be trained here; None if it can."""
    if not model_cases.TENSORFLOW and name in model_cases.ONLY_ON_TENSORFLOW:
        return model_cases.ONLY_ON_TENSORFLOW[name]
    if "tf.data" in name and importlib.util.find_spec("tensorflow") is None:
        return "there is no TensorFlow"
    return None


def in_turns(
    names: Iterable[str], *, slow: Container[str] = ()
) -> list[ParameterSet]:
    """Cases as parameters: in a run of the tests, half of them on a backend.

    What trains on TensorFlow and on JAX is trained on the one or on the other,
    in turns; all of them with `-m slow`, too. Elsewhere each is trained.

    Args:
        names: The cases.
        slow: Those that are left to `-m slow` on each backend.
    """
    backends = itertools.cycle(["tensorflow", "jax"])
    found = []
    for name in names:
        is_slow = name in slow
        if not is_slow and name not in model_cases.ONLY_ON_TENSORFLOW:
            other = next(backends)
            is_slow = keras.backend.backend() == other
        marks = [pytest.mark.slow] * is_slow
        found.append(pytest.param(name, marks=marks))
    return found
