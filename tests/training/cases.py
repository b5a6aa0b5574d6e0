"""All cases by name, as `fresh_process` finds them."""

from __future__ import annotations

import importlib.util

import argument_cases
import data_cases
import model_cases
import tf_data_cases
from harness import Case

__all__ = ["CASES", "not_here"]

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
