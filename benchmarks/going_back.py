"""How long a training takes to its first new batch, from far into an epoch.

Compared with the first batch of a training that begins: what going back costs
beyond that. Beside it, what drawing the batches before it takes by itself:
the least that a replay can cost.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import colab_keras_bg as bg

BATCH = 4
WIDTH = 256


class _AttemptOverError(Exception):
    """Ends an attempt."""


class UntilBatch(keras.callbacks.Callback):
    """Ends the attempt after so many batches; notes when the first came."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self._left = batches
        self.first: float | None = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.first is None:
            self.first = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._left -= 1
        if not self._left:
            raise _AttemptOverError

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class Numbered(keras.utils.PyDataset):
    """Batches by number."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x) // BATCH

    def __getitem__(self, index: int) -> Any:
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self._x[part], self._y[part]


def sources(x: Any, y: Any) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """By name, what makes the data and the arguments that go with it."""

    def generator() -> Iterator[Any]:
        batches = Numbered(x, y)
        while True:
            yield from (batches[i] for i in range(len(batches)))

    def tf_data() -> Any:
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((x, y))
        return dataset.shuffle(1000, seed=1).batch(BATCH).prefetch(2)

    found: dict[str, Callable[[], tuple[Any, Any]]] = {
        "bg.data.arrays": lambda: (
            (bg.data.arrays(x, y, batch_size=BATCH),),
            {},
        ),
        "bg.data.indexed": lambda: (
            (
                bg.data.indexed(
                    lambda i: (x[i], y[i]), samples=len(x), batch_size=BATCH
                ),
            ),
            {},
        ),
        "arrays": lambda: ((x, y), {"batch_size": BATCH}),
        "a PyDataset": lambda: ((Numbered(x, y),), {}),
        "a generator": lambda: (
            (generator(),),
            {"steps_per_epoch": len(x) // BATCH},
        ),
    }
    if keras.backend.backend() == "tensorflow":
        found["tf.data"] = lambda: ((tf_data(),), {})
    return found


def first_batch_after(
    make: Callable[[], tuple[Any, Any]], run_dir: Path, batches: int
) -> float:
    """Seconds from `fit` to its first new batch; ends after `batches`."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    until = UntilBatch(batches)
    args, kwargs = make()
    with bg.Run(run_dir, save_freq=max(1, batches - 1)) as run:
        started = time.perf_counter()
        with contextlib.suppress(_AttemptOverError):
            model.fit(
                *args,
                **kwargs,
                epochs=2,
                verbose=0,
                callbacks=[*run.callbacks(), until],
            )
        run.saves.wait()
    assert until.first is not None
    return until.first - started


def drawing(make: Callable[[], tuple[Any, Any]], batches: int) -> float:
    """Seconds that drawing so many batches takes by itself."""
    args, kwargs = make()
    kwargs.pop("steps_per_epoch", None)
    from colab_keras_bg.callbacks.fit_loop import epoch_iterator_of

    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    names = dict(zip(("x", "y"), args, strict=False))
    iterator = iter(epoch_iterator_of(model, **names, **kwargs)._get_iterator())
    started = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return time.perf_counter() - started


def main() -> None:
    """Measures what the arguments say, and prints JSON."""
    batches, rounds = map(int, sys.argv[1:3])
    draw = np.random.default_rng(0)
    x = draw.normal(size=(batches * BATCH, WIDTH)).astype("float32")
    y = x[:, :1]
    far = int(batches * 0.9)
    found = {}
    for name, make in sources(x, y).items():
        begin, back, alone = [], [], []
        for _ in range(rounds):
            directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
            begin.append(first_batch_after(make, directory / "new", far))
            # The checkpoint is the one before the last batch.
            back.append(first_batch_after(make, directory / "new", 1))
            alone.append(drawing(make, far))
            shutil.rmtree(directory)
        found[name] = {
            "begin_ms": statistics.median(begin) * 1e3,
            "back_ms": statistics.median(back) * 1e3,
            "drawing_ms": statistics.median(alone) * 1e3,
        }
    print(
        json.dumps(
            {
                "backend": keras.backend.backend(),
                "batches": far,
                "sources": found,
            }
        )
    )


if __name__ == "__main__":
    main()
