"""Small models and data to train in tests."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

SAMPLES, BATCH = 53, 8  # Seven batches, the last of five.

_random = np.random.default_rng(0)
X = _random.normal(size=(SAMPLES, 12)).astype("float32")
Y = (X[:, :1] * 2 - X[:, 1:2] ** 2).astype("float32")
VALIDATION = {"validation_data": (X[:20], Y[:20])}


def everything(**compiled: Any) -> keras.Model:
    """Every kind of state: noise, moving averages, schedule, EMA, slots."""
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.GaussianNoise(0.1),
            layers.Dense(16),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3),
            layers.Dense(1),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, 60)
    model.compile(
        keras.optimizers.AdamW(schedule, use_ema=True),
        "mse",
        metrics=["mae"],
        **compiled,
    )
    return model


def unbuilt() -> keras.Model:
    """A model whose variables `fit` makes at its first step."""
    model = keras.Sequential(
        [layers.Dense(16), layers.Dropout(0.3), layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model
