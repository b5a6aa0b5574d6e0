"""`tf.data` pipelines as people write them, for TensorFlow and JAX."""

from __future__ import annotations

from typing import Any

import keras
from data_cases import validated
from harness import Case
from model_cases import fine_tuned
from models import BATCH, SAMPLES, VALIDATION, X, Y, everything


def shuffled() -> Any:
    """A pipeline with a shuffle that differs in every epoch."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    return dataset.shuffle(SAMPLES).batch(BATCH).prefetch(2)


def with_python_function(*, shuffled: bool = False) -> Any:
    """A pipeline whose iterator TensorFlow cannot save."""
    import tensorflow as tf

    def twice(x: Any, y: Any) -> Any:
        doubled = tf.py_function(lambda v: 2 * v, [x], tf.float32)
        return tf.ensure_shape(doubled, [12]), y

    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    if shuffled:
        dataset = dataset.shuffle(SAMPLES)
    return dataset.map(twice).batch(BATCH)


def cached() -> Any:
    """A pipeline whose cache holds the order of its first pass."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    return dataset.shuffle(SAMPLES).cache().batch(BATCH).prefetch(2)


def shuffled_and_refused() -> Any:
    """A pipeline that TensorFlow cannot save, in another order each time."""
    return with_python_function(shuffled=True)


def keep_all(x: Any, y: Any) -> bool:
    """A filter: after it, nobody knows how many there are."""
    del x, y
    return True


CASES = {
    "tf.data": Case(everything, lambda: ((shuffled(),), VALIDATION)),
    "tf.data in turns of three": Case(
        lambda: everything(steps_per_execution=3),
        lambda: ((shuffled(),), VALIDATION),
    ),
    "tf.data, repeated": Case(
        everything, lambda: ((shuffled().repeat(),), {"steps_per_epoch": 5})
    ),
    "tf.data of unknown length": Case(
        everything, lambda: ((shuffled().filter(keep_all),), VALIDATION)
    ),
    "validated on tf.data": validated(lambda: shuffled().take(3)),
    "validated on tf.data, repeated": validated(
        lambda: shuffled().repeat(), steps=3
    ),
    "validated on tf.data of unknown length": validated(
        lambda: shuffled().filter(keep_all).take(3)
    ),
    "tf.data in two fits": Case(
        fine_tuned, lambda: ((shuffled(),), {"validation_data": shuffled()})
    ),
    "tf.data, cached after a shuffle": Case(
        everything, lambda: ((cached(),), {})
    ),
    "tf.data that cannot be saved, shuffled": Case(
        everything, lambda: ((shuffled_and_refused(),), {})
    ),
    "tf.data that cannot be saved": Case(
        everything, lambda: ((with_python_function(),), VALIDATION)
    ),
}
if keras.backend.backend() == "torch":  # Keras takes one step at a time there.
    del CASES["tf.data in turns of three"]
