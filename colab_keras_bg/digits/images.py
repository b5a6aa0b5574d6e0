"""The 1,797 handwritten digits that ship in this package (see DATA.md).

Invariant: the same images in the same order and the same division into
training and validation, always.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Digits", "load"]

_VALIDATION_SAMPLES = 360


class Digits(NamedTuple):
    """Images and their labels.

    Attributes:
        images: float32 `(samples, 8, 8, 1)`, from 0 to 1.
        labels: int32 `(samples,)`, from 0 to 9.
    """

    images: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int32]]


def load() -> tuple[Digits, Digits]:
    """The digits to train on, and those to validate with.

    Returns:
        1,437 and 360 samples; the writers' order is mixed once, always alike.
    """
    source = resources.files("colab_keras_bg.digits").joinpath("digits.npz")
    with source.open("rb") as file, np.load(file, allow_pickle=False) as data:
        images, labels = data["images"], data["labels"]
    mixed = np.random.Generator(np.random.Philox(1797)).permutation(len(labels))
    images = (images[mixed, :, :, np.newaxis] / 16).astype(np.float32)
    labels = labels[mixed].astype(np.int32)
    cut = len(labels) - _VALIDATION_SAMPLES
    return (
        Digits(images[:cut], labels[:cut]),
        Digits(images[cut:], labels[cut:]),
    )
