"""Models of every kind that people train, on every backend that can."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
from harness import Case
from keras import layers
from models import BATCH, SAMPLES, X, Y, everything, unbuilt
from written_by_users import (
    TENSORFLOW,
    Drifting,
    EachBatch,
    EachEpoch,
    Hidden,
    Largest,
    Subclassed,
    TensorFlowHeld,
    compiled,
    gan,
    judged,
    own_step,
    stacked,
)

import colab_keras_bg as bg

__all__ = ["CASES", "ONLY_ON_TENSORFLOW", "TENSORFLOW"]


_random = np.random.default_rng(1)
SEQUENCES = _random.normal(size=(SAMPLES, 5, 3)).astype("float32")
IMAGES = _random.uniform(size=(SAMPLES, 6, 6, 3)).astype("float32")
WORDS = _random.integers(0, 20, size=(SAMPLES, 5)).astype("int32")


class PartsUnbuilt(keras.Model):
    """Has a part that Keras builds at its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.part = keras.Sequential(
            [layers.Dense(5, "relu"), layers.Dropout(0.2)]
        )
        self.last = layers.Dense(1)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.last(self.part(x, training=training))


def cannot_predict() -> keras.Model:
    """One that Keras trains, and cannot call but in training."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3)(layers.RandomCrop(5, 5)(inputs))
    x = layers.ConvLSTM2D(2, 2, dropout=0.1)(x[:, None])
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))


def on(x: Any, y: Any = Y, *, size: int = BATCH) -> Callable[[], Any]:
    """What `fit` is given."""
    return lambda: ((bg.data.arrays(x, y, batch_size=size, seed=3),), {})


def trained_by(optimizer: Callable[[], Any], **options: Any) -> Case:
    """A plain model with an optimizer that is not."""

    def model() -> Any:
        inner = (layers.Dense(6, "relu"), layers.Dropout(0.3))
        return compiled(stacked(*inner), optimizer(), **options)

    return Case(model, on(X))


def made_of(*inner: Callable[[], Any], x: Any = X) -> Case:
    """A model of such layers."""
    return Case(
        lambda: compiled(
            stacked(*(make() for make in inner), shape=x.shape[1:])
        ),
        on(x),
    )


# Models by their shape.


def functional() -> Any:
    """Branches that meet, of layers of one class."""
    x = keras.Input((12,))
    left, right = layers.Dense(4)(x), layers.Dense(4, "relu")(x)
    both = layers.Add()([layers.Dropout(0.2)(left), right])
    return compiled(keras.Model(x, layers.Dense(1)(both)))


def nested() -> Any:
    """A model in a model in a model, and one of them twice."""
    inner = keras.Sequential([layers.Dense(4), layers.Dropout(0.2)])
    middle = keras.Sequential([inner, layers.BatchNormalization()])
    x = keras.Input((12,))
    left, right = middle(x), middle(x * 2)
    return compiled(keras.Model(x, layers.Dense(1)(left + right)))


def shared() -> Any:
    """One layer in two places, one in two layers."""
    x = keras.Input((12,))
    twice = layers.Dense(12, "tanh")
    noise = layers.GaussianDropout(0.2)
    both = noise(twice(noise(twice(x))))
    return compiled(keras.Model(x, layers.Dense(1)(both)))


def several_ends() -> Any:
    """Inputs and outputs by name, each with its own loss and weight."""
    a, b = keras.Input((12,), name="a"), keras.Input((5, 3), name="b")
    both = layers.Concatenate()([layers.Dense(4)(a), layers.Flatten()(b)])
    both = layers.Dropout(0.2)(both)
    outputs = {
        "how_much": layers.Dense(1, name="how_much")(both),
        "which": layers.Dense(3, name="which")(both),
    }
    model = keras.Model({"a": a, "b": b}, outputs)
    which = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        "adam",
        loss={"how_much": "mse", "which": which},
        loss_weights={"how_much": 0.3, "which": 2.0},
        metrics={"how_much": ["mae"], "which": ["accuracy"]},
        weighted_metrics={"how_much": ["mse"]},
    )
    return model


# Layers and metrics with state.


def measured() -> Any:
    """Metrics of the user's and of Keras', with more state than a mean."""
    metrics = [Largest(), keras.metrics.R2Score(), "mae"]
    return compiled(stacked(layers.Dropout(0.2)), metrics=metrics)


def stateful() -> Any:
    """A recurrent layer whose state goes on from batch to batch."""
    x = keras.Input(batch_shape=(BATCH, 5, 3))
    y = layers.GRU(4, stateful=True, dropout=0.2)(x)
    return compiled(keras.Model(x, layers.Dense(1)(y)))


def attentive() -> Any:
    """Words, attention with dropout, and its like."""
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(20, 4)(x)
    y = layers.MultiHeadAttention(2, 3, dropout=0.2)(y, y) + y
    y = layers.LayerNormalization()(y)
    return compiled(keras.Model(x, layers.Dense(1)(layers.Flatten()(y))))


# What is not trained, or not in float32.


def frozen() -> Any:
    """A frozen base, and a frozen layer beside it."""
    base = keras.Sequential([layers.Dense(6), layers.BatchNormalization()])
    base.trainable = False
    still = layers.Dense(6)
    still.trainable = False
    return compiled(stacked(base, still, layers.Dropout(0.2)))


def lora() -> Any:
    """A base that is adapted at low rank."""
    model = stacked(layers.Dense(6), layers.Dropout(0.2))
    model.layers[0].enable_lora(2)
    return compiled(model)


def quantized(mode: str, *, rank: int | None = None) -> Any:
    """Weights of few bits, adapted at low rank or not."""
    model = stacked(layers.Dense(8), layers.Dropout(0.2))
    model.quantize(mode)
    if rank is not None:
        model.layers[0].enable_lora(rank)
    return compiled(model)


def in_policies() -> Any:
    """A dtype policy for each layer."""
    return compiled(
        stacked(
            layers.Dense(6, dtype="mixed_float16"),
            layers.Dropout(0.2, dtype="bfloat16"),
            layers.Dense(6, dtype="bfloat16"),
            layers.BatchNormalization(dtype="float32"),
            layers.Dense(6, dtype="float8_from_float32"),
        )
    )


def mixed(policy: str) -> Any:
    """All of it in a policy, as set for the whole program."""
    keras.config.set_dtype_policy(policy)
    return everything()


def loss_scaled(**options: Any) -> Any:
    """A scale that overflows at first, and grows again soon."""
    return keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(**options),
        initial_scale=2.0**127,
        dynamic_growth_steps=3,
    )


def scaled_in_float16() -> Any:
    """Explicitly, with a model that needs it."""
    keras.config.set_dtype_policy("mixed_float16")
    return compiled(
        stacked(layers.Dense(6), layers.Dropout(0.2)), loss_scaled()
    )


# Several `fit` calls.


class FineTuned(keras.Model):
    """Stands for a program that fits, thaws, compiles and fits again."""

    def fit(self, data: Any, **options: Any) -> Any:
        first = super().fit(data, **options)
        self.layers[1].trainable = True
        compiled(self, keras.optimizers.SGD(1e-3, momentum=0.9))
        again = data
        if hasattr(data, "start_at"):  # Ours is for one fit.
            again = bg.data.arrays(X, Y, batch_size=BATCH, seed=4)
        second = super().fit(again, **options)
        second.history = {
            name: first.history[name] + values
            for name, values in second.history.items()
        }
        return second


def fine_tuned() -> Any:
    """Frozen at first."""
    x = keras.Input((12,))
    base = layers.Dense(6)
    base.trainable = False
    y = layers.Dense(1)(layers.Dropout(0.3)(base(x)))
    return compiled(FineTuned(x, y))


# What else changes a training.


def two_cpus() -> AbstractContextManager[Any]:
    """A strategy over two logical devices, made before TensorFlow begins."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()


def _optimizer(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(keras.optimizers, name)(**options)


def _with(callback: Callable[[], Any]) -> Case:
    plain = trained_by(_optimizer("Adam"))
    return Case(plain.model, plain.data, callbacks=lambda: [callback()])


CASES = {
    # By their shape.
    "a functional model": Case(functional, on(X)),
    "nested models": Case(nested, on(X)),
    "shared layers": Case(shared, on(X)),
    "several inputs, outputs and losses": Case(
        several_ends,
        on(
            {"a": X, "b": SEQUENCES},
            {"how_much": Y, "which": WORDS[:, 0] % 3},
        ),
    ),
    "sublayers in lists and dicts": Case(lambda: compiled(Subclassed()), on(X)),
    "an own train_step": Case(own_step, on(X)),
    "lazily built": Case(unbuilt, on(X)),
    # By their layers.
    "LSTM with recurrent dropout": made_of(
        lambda: layers.LSTM(4, dropout=0.2, recurrent_dropout=0.2), x=SEQUENCES
    ),
    "a stateful GRU": Case(
        stateful, on(SEQUENCES[: 6 * BATCH], Y[: 6 * BATCH])
    ),
    "embedding and attention with dropout": Case(attentive, on(WORDS)),
    "augmentation": made_of(
        lambda: layers.RandomFlip(),
        lambda: layers.RandomRotation(0.2),
        lambda: layers.RandomContrast(0.2),
        lambda: layers.Conv2D(2, 3),
        layers.Flatten,
        x=IMAGES,
    ),
    "spectral normalization": made_of(
        lambda: layers.SpectralNormalization(layers.Dense(6)),
        lambda: layers.Dropout(0.2),
    ),
    "own seed generators and variables": made_of(Drifting),
    "own metrics": Case(measured, on(X)),
    # By what is trained, and in what dtype.
    "frozen parts": Case(frozen, on(X)),
    "LoRA": Case(lora, on(X)),
    "int8": Case(lambda: quantized("int8"), on(X)),
    "int8 with LoRA": Case(lambda: quantized("int8", rank=2), on(X)),
    "int4 with LoRA": Case(lambda: quantized("int4", rank=2), on(X)),
    "float8": Case(lambda: quantized("float8"), on(X)),
    "a dtype policy for each layer": Case(in_policies, on(X)),
    "mixed_float16": Case(lambda: mixed("mixed_float16"), on(X)),
    "mixed_bfloat16": Case(lambda: mixed("mixed_bfloat16"), on(X)),
    "bfloat16": Case(lambda: mixed("bfloat16"), on(X)),
    "float16 with LossScaleOptimizer": Case(scaled_in_float16, on(X)),
    # By their optimizer.
    "accumulation": trained_by(
        _optimizer("Adam", gradient_accumulation_steps=3)
    ),
    "accumulation with EMA": trained_by(
        _optimizer(
            "AdamW",
            gradient_accumulation_steps=2,
            use_ema=True,
            ema_overwrite_frequency=3,
        )
    ),
    "accumulation under a loss scale": trained_by(
        lambda: loss_scaled(gradient_accumulation_steps=3)
    ),
    "weight decay and clipnorm": trained_by(
        _optimizer("SGD", momentum=0.9, weight_decay=0.01, clipnorm=0.5)
    ),
    "an exponential schedule": trained_by(
        lambda: keras.optimizers.Nadam(
            keras.optimizers.schedules.ExponentialDecay(1e-2, 4, 0.9)
        )
    ),
    "Lion": trained_by(_optimizer("Lion", learning_rate=1e-3)),
    "Adafactor": trained_by(_optimizer("Adafactor", learning_rate=1e-2)),
    "Ftrl": trained_by(_optimizer("Ftrl", learning_rate=1e-2)),
    "AMSGrad": trained_by(_optimizer("Adam", amsgrad=True)),
    # By how they are compiled and called.
    "jit_compile=True": trained_by(_optimizer("Adam"), jit_compile=True),
    "jit_compile=False": trained_by(_optimizer("Adam"), jit_compile=False),
    "run_eagerly=True": trained_by(_optimizer("Adam"), run_eagerly=True),
    "run_eagerly=True, unbuilt": Case(
        lambda: compiled(
            keras.Sequential([layers.Dense(5, "relu"), layers.Dense(1)]),
            run_eagerly=True,
        ),
        on(X),
    ),
    "run_eagerly=True, an unbuilt part": Case(
        lambda: compiled(PartsUnbuilt(), run_eagerly=True), on(X)
    ),
    "two fits, thawed in between": Case(fine_tuned, on(X)),
    "LearningRateScheduler": _with(
        lambda: keras.callbacks.LearningRateScheduler(lambda _, rate: rate / 2)
    ),
    "a learning rate set each batch": _with(EachBatch),
    "a learning rate set each epoch": _with(EachEpoch),
}
CASES |= {
    "a recurrent cell that cannot predict": Case(
        lambda: compiled(cannot_predict()), on(IMAGES)
    ),
    "a metric made at the first step": Case(judged, on(X)),
    "a GAN with two optimizers": Case(gan, on(X)),
    "a GAN, optimizers in a dict": Case(lambda: gan(in_dict=True), on(X)),
    "variables in an object of the user's": made_of(Hidden),
    "a variable and a generator of TensorFlow's": made_of(TensorFlowHeld),
    "MirroredStrategy": Case(everything, on(X), scope=two_cpus),
}
# What Keras cannot train on another backend, and why.
_ONE = "Keras on JAX carries the state of one optimizer through a step"
ONLY_ON_TENSORFLOW = {
    "a recurrent cell that cannot predict": "Keras fails in its first step",
    "a metric made at the first step": "JAX takes all metrics before it",
    "a GAN with two optimizers": _ONE,
    "a GAN, optimizers in a dict": _ONE,
    "variables in an object of the user's": "JAX carries tracked ones only",
    "a variable and a generator of TensorFlow's": "it is TensorFlow's",
    "MirroredStrategy": "it is TensorFlow's",
}
