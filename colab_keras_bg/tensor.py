"""A tensor on its way to storage.

Invariant: dtype and shape are known before the values are, so that a file's
header can be written first; the values are fetched once and then let go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LazyTensor"]


@dataclass(frozen=True)
class LazyTensor:
    """A tensor whose values are fetched when they are written.

    Attributes:
        dtype: Its NumPy dtype (`ml_dtypes` for bfloat16 and float8).
        shape: Its shape.
        fetch: Returns the values, in any memory order. Called once.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fetch: Callable[[], np.ndarray[Any, Any]]

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> LazyTensor:
        """A tensor whose values are there already."""
        return cls(array.dtype, array.shape, lambda: array)

    @property
    def size_bytes(self) -> int:
        """The size of its values."""
        return math.prod(self.shape) * self.dtype.itemsize
