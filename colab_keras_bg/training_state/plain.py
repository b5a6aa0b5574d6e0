"""Values of logs and histories as JSON values.

Invariant: a number comes back as the same number: floats keep every bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """The JSON form of numbers, arrays and containers of them.

    Args:
        value: What a log or a history holds.

    Returns:
        The same in Python's own types; `str(value)` for anything unknown.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    try:
        return np.asarray(value, dtype=float).tolist()
    except (TypeError, ValueError):
        return str(value)
