"""The order of samples, as a pure function of (seed, epoch).

Invariant: the same on every backend, platform and version of this package:
it is NumPy's Philox with a fixed key, whose stream NumPy keeps stable, and a
sort of its numbers, not `Generator.permutation`, whose stream NumPy may
change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["epoch_order"]


def epoch_order(
    samples: int, *, seed: int, epoch: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order in which an epoch visits the samples.

    Args:
        samples: How many there are.
        seed: Any integer from 0 to 2**63 - 1.
        epoch: The epoch, from 0.

    Returns:
        A permutation of `range(samples)`, int64.
    """
    stream = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
    drawn = stream.random_raw(samples)
    # Stable: two equal draws, if ever, keep the order of their indices.
    return np.argsort(drawn, kind="stable").astype(np.int64)
