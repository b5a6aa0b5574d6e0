"""A tensor on its way to storage.

Invariant: dtype and shape are known before the values are, so that a file's
header can be written first; the values are let go as soon as they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LazyTensor"]


class LazyTensor:
    """A tensor whose values are fetched when they are hashed or written.

    Attributes:
        dtype: Its NumPy dtype (`ml_dtypes` for bfloat16 and float8).
        shape: Its shape.
        fetch: Returns the values, in any memory order; the same each time.
    """

    __slots__ = ("dtype", "fetch", "shape")

    def __init__(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        fetch: Callable[[], np.ndarray[Any, Any]],
    ) -> None:
        """Takes what is known before the values are."""
        self.dtype = dtype
        self.shape = shape
        self.fetch = fetch

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> LazyTensor:
        """A tensor whose values are there already."""
        return cls(array.dtype, array.shape, lambda: array)

    @property
    def size_bytes(self) -> int:
        """The size of its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def release(self) -> None:
        """Lets go of the values: nobody will fetch them again."""
        self.fetch = _released


def _released() -> np.ndarray[Any, Any]:
    raise RuntimeError("The values of this tensor were let go.")
