"""Layers, metrics, steps and callbacks that users write themselves."""

from __future__ import annotations

import types
from typing import Any

import keras
import numpy as np
from keras import layers, ops

TENSORFLOW = keras.backend.backend() == "tensorflow"


def compiled(model: Any, optimizer: Any = "adam", **options: Any) -> Any:
    """The model, ready for `fit`."""
    model.compile(optimizer, **{"loss": "mse", "metrics": ["mae"], **options})
    return model


def stacked(*inner: Any, shape: tuple[int, ...] = (12,)) -> Any:
    """A Sequential of some layers and an output."""
    return keras.Sequential([keras.Input(shape), *inner, layers.Dense(1)])


class Subclassed(keras.Model):
    """Sublayers in lists and dicts, one of them made at `build` only."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [layers.Dense(4) for _ in range(3)]
        self.heads = {
            "b": [layers.Dense(1), layers.Dropout(0.3)],
            "a": [layers.Dense(1), layers.GaussianNoise(0.1)],
        }
        self.pair = (layers.LayerNormalization(), layers.Dropout(0.1))

    def build(self, shape: Any) -> None:
        self.late = layers.Dense(4)
        self.late.build((None, 4))
        for index, block in enumerate(self.blocks):
            block.build(shape if index == 0 else (None, 4))
        for head in self.heads.values():
            head[0].build((None, 4))
        self.pair[0].build((None, 4))
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        for block in self.blocks:
            x = block(x)
        x = self.pair[1](self.pair[0](self.late(x)), training=training)
        ends = [
            head[1](head[0](x), training=training)
            for head in self.heads.values()
        ]
        return ends[0] + ends[1]


class OwnStep(keras.Model):
    """A `train_step` of its own, with noise and a metric of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.Dense(6, "relu")
        self.dropout = layers.Dropout(0.3)
        self.out = layers.Dense(1)
        self.noise = keras.random.SeedGenerator(5)
        self.tracker = keras.metrics.Mean(name="own")

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.dropout(self.inner(x), training=training))

    def loss_of(self, x: Any, y: Any) -> Any:
        noise = keras.random.normal(ops.shape(x), 0, 0.1, seed=self.noise)
        return ops.mean((self(x + noise, training=True) - y) ** 2)

    if TENSORFLOW:

        def train_step(self, data: Any) -> Any:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = self.loss_of(*data)
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            self.tracker.update_state(loss)
            return {"own": self.tracker.result()}

    else:

        def train_step(self, state: Any, data: Any) -> Any:
            import jax

            weights, others, slots, metrics = state

            def loss_of(weights: Any, others: Any) -> Any:
                mapping = [
                    *zip(self.trainable_variables, weights, strict=True),
                    *zip(self.non_trainable_variables, others, strict=True),
                ]
                with keras.StatelessScope(state_mapping=mapping) as scope:
                    loss = self.loss_of(*data)
                kept = self.non_trainable_variables
                return loss, [scope.get_current_value(v) for v in kept]

            graded = jax.value_and_grad(loss_of, has_aux=True)
            (loss, others), grads = graded(weights, others)
            weights, slots = self.optimizer.stateless_apply(
                slots, grads, weights
            )
            metrics = self.tracker.stateless_update_state(metrics, loss)
            logs = {"own": self.tracker.stateless_result(metrics)}
            return logs, (weights, others, slots, metrics)


def own_step() -> Any:
    """As people write it: not built, no loss given."""
    model = OwnStep()
    model.compile("adam")
    return model


class Judged(OwnStep):
    """One of its metrics is made at the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.fitness = keras.metrics.R2Score()
        for layer in (self.inner, self.dropout):
            layer.build((None, 12))
        self.out.build((None, 6))
        self.built = True

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker, self.fitness]

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        x, y = data
        self.fitness.update_state(y, self(x))
        return {**logs, "fitness": self.fitness.result()}


def judged() -> Any:
    """Its layers are built, and not its metrics."""
    model = Judged()
    model.compile("adam")
    return model


class Gan(keras.Model):
    """Two networks with an optimizer each, by attribute or in a dict."""

    def __init__(self, *, in_dict: bool = False) -> None:
        super().__init__()
        self.generator = stacked(layers.Dense(6, "relu"), shape=(4,))
        self.discriminator = keras.Sequential(
            [keras.Input((1,)), layers.Dense(6, "relu"), layers.Dropout(0.3)]
        )
        self.judge = layers.Dense(1)
        self.noise = keras.random.SeedGenerator(5)
        self.in_dict = in_dict
        self.built = True

    def compile(self) -> None:
        super().compile()
        g, d = keras.optimizers.Adam(1e-3), keras.optimizers.RMSprop(2e-3)
        if self.in_dict:
            self.trained_by = {"g": g, "d": d}
        else:
            self.g_optimizer, self.d_optimizer = g, d

    def call(self, x: Any) -> Any:
        return self.judge(self.discriminator(x))

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        real = data[1]
        seeds = keras.random.normal((ops.shape(real)[0], 4), seed=self.noise)
        with tf.GradientTape(persistent=True) as tape:
            made = self.judge(
                self.discriminator(self.generator(seeds), training=True)
            )
            true = self.judge(self.discriminator(real, training=True))
            d_loss = ops.mean(made) - ops.mean(true) + ops.mean(true**2)
            g_loss = -ops.mean(made)
        d = [
            *self.discriminator.trainable_variables,
            *self.judge.trainable_variables,
        ]
        g = self.generator.trainable_variables
        by = self.trained_by if self.in_dict else vars(self)
        names = ("d", "g") if self.in_dict else ("d_optimizer", "g_optimizer")
        by[names[0]].apply(tape.gradient(d_loss, d), d)
        by[names[1]].apply(tape.gradient(g_loss, g), g)
        return {"d": d_loss, "g": g_loss}


def gan(**options: Any) -> Any:
    """As in Keras' guide."""
    model = Gan(**options)
    model.compile()
    return model


class Drifting(layers.Layer):
    """Seed generators, weights and plain variables of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = [keras.random.SeedGenerator(n) for n in (1, 2)]
        self.count = keras.Variable(0.0, trainable=False, name="count")
        self.parts = {"gain": keras.Variable(np.ones(12, "float32"))}

    def build(self, shape: Any) -> None:
        self.seen = self.add_weight(
            shape=shape[-1:], initializer="zeros", trainable=False
        )

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.count.assign_add(1.0)
            self.seen.assign(0.9 * self.seen + 0.1 * ops.mean(x, axis=0))
            for seed in self.seeds:
                x = x + keras.random.normal(ops.shape(x), 0, 0.1, seed=seed)
        gain = self.parts["gain"] / (1 + 0.01 * self.count)
        return (x - self.seen) * gain


class Hidden(layers.Layer):
    """Variables that Keras does not track, in an object of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.own = types.SimpleNamespace(
            count=keras.Variable(0.0, trainable=False),
            seed=keras.random.SeedGenerator(4),
        )

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.own.count.assign_add(1.0)
            noise = keras.random.normal(ops.shape(x), seed=self.own.seed)
            x = x + 0.1 * noise
        return x / (1 + 0.01 * self.own.count)


class TensorFlowHeld(layers.Layer):
    """A variable and a generator of TensorFlow's."""

    def __init__(self) -> None:
        super().__init__()
        import tensorflow as tf

        self.count = tf.Variable(0.0, trainable=False)
        self.generator = tf.random.Generator.from_seed(7)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.count.assign_add(1.0)
            x = x + 0.1 * self.generator.normal(ops.shape(x))
        return x / (1 + 0.01 * self.count)


class Largest(keras.metrics.Metric):
    """A metric with state of two kinds."""

    def __init__(self) -> None:
        super().__init__(name="largest")
        self.largest = self.add_weight(name="largest", initializer="zeros")
        self.count = self.add_weight(
            name="count", initializer="zeros", dtype="int32"
        )

    def update_state(self, y: Any, predicted: Any, sample_weight=None) -> None:
        self.largest.assign(
            ops.maximum(self.largest, ops.max(ops.abs(y - predicted)))
        )
        self.count.assign_add(1)

    def result(self) -> Any:
        return self.largest + ops.cast(self.count, "float32")


class EachBatch(keras.callbacks.Callback):
    """Sets the learning rate by hand."""

    async_safe = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        rate = self.model.optimizer.learning_rate
        rate.assign(ops.convert_to_numpy(rate) * 0.97)


class EachEpoch(keras.callbacks.Callback):
    """Sets the learning rate by hand, by attribute."""

    async_safe = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        optimizer.learning_rate = float(optimizer.learning_rate) * 0.5
