"""What arrays hold, in a few words that tell them from others.

Invariant: the same values give the same words in every process. Arrays that
lie on a device are told by their form alone: they are not fetched for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from colab_keras_bg.checkpoint.hashing import content_hash
from colab_keras_bg.training_state.packed import Arrays, pack

__all__ = ["batch_hash", "described_arrays"]


def described_arrays(inputs: Any) -> list[str]:
    """Type, shape and content of arrays.

    Args:
        inputs: A nested structure of arrays and tensors.

    Returns:
        A line for each.
    """
    from keras import tree

    return [
        _described(leaf) for leaf in tree.flatten(inputs) if leaf is not None
    ]


def batch_hash(batch: Any, *, before: str) -> str:
    """A hash of a batch and of all before it.

    Args:
        batch: A nested structure of arrays and plain values.
        before: The hash of the batch before; empty for the first.
    """
    arrays: Arrays = {}
    parts = [before, repr(pack(batch, "batch", arrays))]
    parts += [
        f"{key} {array.dtype} {array.shape} {_content(array)}"
        for key, array in arrays.items()
    ]
    return content_hash("\n".join(parts).encode())


def _described(leaf: Any) -> str:
    if hasattr(leaf, "to_numpy"):  # Of pandas.
        leaf = leaf.to_numpy()
    kind = getattr(leaf, "dtype", type(leaf).__name__)
    shape = list(getattr(leaf, "shape", ()))
    return f"{kind}{shape} {_content(leaf)}".rstrip()


def _content(array: Any) -> str:
    if not isinstance(array, np.ndarray):
        return ""
    if array.dtype == object:  # Its bytes are addresses.
        return content_hash(repr(array.tolist()).encode())
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return content_hash(memoryview(flat))
