"""Trains a small convolutional classifier on handwritten digits.

Invariant: written as a user would write it, against the public surface only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

import colab_keras_bg as bg
from colab_keras_bg.digits import images

__all__ = ["ProgressLines", "build_model", "main"]

_SECS_BETWEEN_LINES = 5.0


def main(arguments: Sequence[str]) -> None:
    """Trains until done.

    Args:
        arguments: The program's command line.
    """
    parser = argparse.ArgumentParser(prog="digits")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=32)
    options = parser.parse_args(arguments)
    run = bg.current_run()
    if run is None:
        raise RuntimeError(
            "Start this with `colab-keras-bg train --run_dir=...`."
        )
    seed = 0 if run.seed is None else run.seed
    keras.utils.set_random_seed(seed % 2**32)
    training, validation = images.load()
    model = build_model()
    print(
        f"training on {len(training.labels)} handwritten digits, validating "
        f"on {len(validation.labels)}; {model.count_params():,} parameters, "
        f"{options.epochs} epochs, Keras {keras.__version__} on "
        f"{keras.backend.backend()}"
    )
    history = model.fit(
        bg.data.arrays(
            training.images,
            training.labels,
            batch_size=options.batch_size,
            seed=seed,
        ),
        epochs=options.epochs,
        validation_data=(validation.images, validation.labels),
        validation_batch_size=120,
        callbacks=[ProgressLines(), *run.callbacks()],
        verbose=0,
    )
    accuracy = history.history["val_accuracy"][-1]
    print(
        f"finished {len(history.epoch)} epochs at step {run.step}: "
        f"validation accuracy {accuracy:.2%}"
    )


def build_model() -> keras.Model:
    """A compiled classifier: `(batch, 8, 8, 1)` to 10 logits."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class ProgressLines(keras.callbacks.Callback):
    """Prints a line every few seconds, at the end of an epoch."""

    def __init__(self) -> None:
        """Starts the clock."""
        super().__init__()
        self._printed = time.monotonic()

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Prints, if it is time or the last epoch."""
        last = epoch + 1 == self.params["epochs"]
        if last or time.monotonic() - self._printed >= _SECS_BETWEEN_LINES:
            self._printed = time.monotonic()
            shown = logs or {}
            print(
                f"epoch {epoch + 1}/{self.params['epochs']}  "
                f"loss {shown.get('loss', float('nan')):.4f}  "
                f"val_loss {shown.get('val_loss', float('nan')):.4f}  "
                f"val_accuracy {shown.get('val_accuracy', 0.0):.2%}",
                flush=True,
            )
