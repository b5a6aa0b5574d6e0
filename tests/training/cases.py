"""All cases by name, as `fresh_process` finds them."""

from __future__ import annotations

import data_cases
import model_cases
import tf_data_cases
from harness import Case

__all__ = ["CASES"]

CASES: dict[str, Case] = {
    **data_cases.CASES,
    **model_cases.CASES,
    **tf_data_cases.CASES,
}
