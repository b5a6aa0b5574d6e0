"""A snapshot is a deep copy of its instant, whatever the training does then."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import keras
import model_cases
import numpy as np
import pytest
from cases import not_here
from models import BATCH, X, Y, everything

from colab_keras_bg.training_state.snapshot import Snapshots
from colab_keras_bg.training_state.variables import training_variables

ON_JAX = keras.backend.backend() == "jax"
# Each kind of variable: of layers, optimizers, metrics, seeds, several dtypes.
KINDS = [
    "an own train_step",
    "LSTM with recurrent dropout",
    "augmentation",
    "own metrics",
    "int8 with LoRA",
    "float8",
    "mixed_float16",
    "bfloat16",
    "accumulation with EMA",
    "jit_compile=True",
    "jit_compile=False",
    "run_eagerly=True",
    "a GAN with two optimizers",
    "a variable and a generator of TensorFlow's",
]


@pytest.fixture(autouse=True)
def policy_put_back() -> Iterator[None]:
    """Some models set the dtype policy for all that come after."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


class Snapping(keras.callbacks.Callback):
    """Takes a snapshot and a deep copy of the same instant, once."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at, self.seen = at, 0
        self.snapshot: dict[str, Any] = {}
        self.copies: dict[str, Any] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self._at:
            variables = training_variables(self._model)
            snapshots = Snapshots(variables, model=self._model)
            self.snapshot = snapshots.take()
            self.copies = {
                key: np.array(value.fetch())
                for key, value in snapshots.take().items()
            }


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")
@pytest.mark.parametrize("name", KINDS)
def test_snapshot_is_a_deep_copy(name: str) -> None:
    """
    Three steps later, each value of a snapshot is what it was, though most of
    the variables have changed since.
    """
    if (reason := not_here(name)) is not None:
        pytest.skip(reason)
    case = model_cases.CASES[name]
    keras.utils.set_random_seed(3)
    model = case.model()
    args, kwargs = case.data()
    snapping = Snapping(at=3)
    model.fit(
        *args, **kwargs, epochs=1, verbose=0, callbacks=[snapping], shuffle=True
    )
    assert snapping.seen >= 6
    assert len(snapping.snapshot) == len(training_variables(model))
    for key, held in snapping.snapshot.items():
        values = held.fetch()
        assert held.dtype == values.dtype, key
        assert held.shape == values.shape, key
        copy = snapping.copies[key]
        assert copy.tobytes() == np.ascontiguousarray(values).tobytes(), key
    later = Snapshots(training_variables(model), model=model).take()
    changed = [
        key
        for key, value in later.items()
        if np.ascontiguousarray(value.fetch()).tobytes()
        != snapping.copies[key].tobytes()
    ]
    assert len(changed) > 1


def test_snapshot_copies_nothing() -> None:
    """
    On TensorFlow, and on JAX on a CPU, a snapshot shares the buffers.
    """
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch assigns in place: it is copied")
    model = everything()
    model.fit(X, Y, batch_size=BATCH, epochs=1, verbose=0)
    variables = training_variables(model)
    first = Snapshots(variables, model=model).take()
    second = Snapshots(variables, model=model).take()
    for key, held in first.items():
        assert np.shares_memory(held.fetch(), second[key].fetch()), key


def test_released_values_are_given_back() -> None:
    """
    Releasing a value lets go of its buffer, and only of that.
    """
    model = everything()
    variables = training_variables(model)
    held = Snapshots(variables, model=model).take()
    first, second, *_ = held
    held[first].release()
    with pytest.raises(RuntimeError, match="were let go"):
        held[first].fetch()
    gc.collect()
    assert held[second].fetch().shape == held[second].shape


@pytest.mark.skipif(not ON_JAX, reason="JAX' devices tell how full they are")
def test_no_room_for_a_copy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Where a copy on the accelerator would not fit, the values are copied to
    the host, which is said once; a copy that fits lies on the device.
    """
    from colab_keras_bg.training_state import jax as adapter

    model = everything()
    variables = training_variables(model)
    monkeypatch.setattr(adapter, "_on_host", lambda values: False)
    adapter._say_no_room.cache_clear()
    on_device = Snapshots(variables, model=model).take()
    assert "no room" not in capsys.readouterr().err
    monkeypatch.setattr(adapter, "_fit_again", lambda values: False)
    for _ in range(2):
        on_host = Snapshots(variables, model=model).take()
    assert 1 == capsys.readouterr().err.count("has no room for a second copy")
    for key, held in on_host.items():
        expected = on_device[key].fetch()
        assert np.array_equal(expected, held.fetch()), key
        assert not np.shares_memory(expected, held.fetch()), key


@pytest.mark.skipif(not ON_JAX, reason="JAX' devices tell how full they are")
@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        (None, True),
        ({}, True),
        ({"bytes_limit": 1000, "bytes_in_use": 900}, False),
        ({"bytes_limit": 1 << 30, "bytes_in_use": 1 << 20}, True),
    ],
)
def test_whether_a_copy_fits(stats: Any, expected: bool) -> None:
    """
    A device that tells how full it is decides; one that does not is trusted.
    """
    from colab_keras_bg.training_state import jax as adapter

    class Device:
        def memory_stats(self) -> Any:
            return stats

    class Shard:
        device = Device()
        data = np.zeros(1000, "uint8")

    class Value:
        addressable_shards = (Shard(),)

    assert expected is adapter._fit_again([Value()])
