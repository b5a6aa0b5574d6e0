"""What a run logs: for programs, and for TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tensorboard.util.tensor_util import make_ndarray

from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.logbook import Logbook
from colab_keras_bg.journal.metrics import read_metrics


@pytest.fixture
def logbook(tmp_path: Path) -> Iterator[Logbook]:
    """A run's logbook."""
    made = Logbook(tmp_path, run_id=lambda: "0123456789abcdef")
    yield made
    made.close()  # Its thread.


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """The lines for programs, without the time."""
    found = [*read_metrics(run_dir / "metrics.jsonl")]
    return [{k: v for k, v in one.items() if k != "time"} for one in found]


def shown(run_dir: Path) -> dict[str, list[tuple[int, Any]]]:
    """What TensorBoard shows."""
    reader = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return {
        tag: [
            (e.step, make_ndarray(e.tensor_proto)) for e in reader.Tensors(tag)
        ]
        for tag in reader.Tags()["tensors"]
    }


def test_numbers_and_texts(logbook: Logbook, tmp_path: Path) -> None:
    """A number is a scalar and a text a text, in both, at the same step."""
    logbook.log(7, {"accuracy": np.float32(0.5), "note": "it *works*"})
    logbook.close()
    assert [{"step": 7, "accuracy": 0.5, "note": "it *works*"}] == lines(
        tmp_path
    )
    assert {
        "accuracy": [(7, 0.5)],
        "note": [(7, b"it *works*")],
    } == shown(tmp_path)


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, object()])
def test_what_is_neither(logbook: Logbook, tmp_path: Path, value: Any) -> None:
    """What is neither is refused by name, and nothing is written."""
    with pytest.raises(UsageError, match="numbers and texts can be logged: b"):
        logbook.log(1, {"a": 1, "b": value})
    with pytest.raises(UsageError, match="hyperparameter b is"):
        logbook.hparams(1, {"a": 1, "b": value})
    logbook.close()
    assert [] == [*tmp_path.iterdir()]


def test_both_are_synced(logbook: Logbook, tmp_path: Path) -> None:
    """What was logged is on disk in both before a checkpoint is committed."""
    goes_on = threading.Event()
    logbook.events().do(goes_on.wait)
    logbook.log(1, {"a": 1})
    syncing = threading.Thread(target=logbook.sync)
    syncing.start()
    syncing.join(0.05)
    waits = syncing.is_alive()
    goes_on.set()
    syncing.join()
    assert waits
    assert {"a": [(1, 1)]} == shown(tmp_path)
    logbook.close()


def test_hparams_once(tmp_path: Path) -> None:
    """Hyperparameters are there once, however often the program begins."""
    values = {"lr": np.float64(1e-3), "units": 64, "bias": True, "name": "a"}
    for _ in range(3):
        logbook = Logbook(tmp_path, run_id=lambda: "0123456789abcdef")
        logbook.hparams(4, values)
        logbook.close()
    assert [{"step": 4, "hparams": values}] == lines(tmp_path)
    assert ["_hparams_/session_start_info"] == [*shown(tmp_path)]
    assert 1 == len([*(tmp_path / "tensorboard").iterdir()])
    logbook.hparams(4, {**values, "units": 32})
    logbook.close()
    assert 2 == len(lines(tmp_path))


def test_both_go_back(logbook: Logbook, tmp_path: Path) -> None:
    """What was logged beyond a step is gone in both."""
    for step in range(5):
        logbook.log(step, {"a": step})
    logbook.sync()
    assert 2 == logbook.cut_back(2)
    logbook.log(3, {"a": 33})
    logbook.close()
    assert [0, 1, 2, 3] == [line["step"] for line in lines(tmp_path)]
    assert [(0, 0), (1, 1), (2, 2), (3, 33)] == shown(tmp_path)["a"]


def attempt(run_dir: Path, *, goes_on_from: int | None, until: int) -> None:
    """A program that logs before, in and after a training."""
    run_dir.mkdir(exist_ok=True)
    logbook = Logbook(run_dir, run_id=lambda: "0123456789abcdef")
    step = goes_on_from or 0
    logbook.log(step, {"start": 1.0, "step": 3.0})
    logbook.log(step, {"note": "same"})
    logbook.cut_back(step)
    for number in range(step, until + 1):
        logbook.log(number, {"lr": 0.1, "loss": float("nan")})
    if until == 5:
        if step < 5:
            logbook.report(5, {"loss": 0.5}, epoch=0)
        logbook.log(5, {"test": 0.9, "note": "same"})
        logbook.log(5, {"note": "same"})
    logbook.close()


def test_a_program_that_is_run_again(tmp_path: Path) -> None:
    """
    What an earlier attempt has logged before the training went on, or at the
    step that it goes on from, is not there twice; all else is there.
    """
    attempt(tmp_path / "whole", goes_on_from=None, until=5)
    again = tmp_path / "again"
    attempt(again, goes_on_from=None, until=2)
    attempt(again, goes_on_from=0, until=4)  # Nothing had been saved.
    attempt(again, goes_on_from=3, until=5)
    attempt(again, goes_on_from=5, until=5)
    # As texts: NaN is unlike itself.
    assert str(lines(tmp_path / "whole")) == str(lines(again))
    assert 11 == len(lines(again))
    for tag, values in shown(tmp_path / "whole").items():
        steps = [step for step, _ in values]
        assert steps == [step for step, _ in shown(again)[tag]]


def test_the_same_once_more(tmp_path: Path) -> None:
    """
    What one attempt logs twice is meant; and so is another value, a step
    further, or what only looks like it.
    """
    first = Logbook(tmp_path, run_id=lambda: "0123456789abcdef")
    first.cut_back(0)
    first.log(5, {"a": 1.0})
    first.log(5, {"a": 1.0})
    first.report(5, {"loss": 1.0, "b": 2.0})
    first.close()
    second = Logbook(tmp_path, run_id=lambda: "0123456789abcdef")
    second.cut_back(5)
    second.log(5, {"a": 2.0})
    second.log(5, {"b": 2.0})  # It was reported beside another.
    second.log(6, {"a": 1.0})
    second.log(5, {"a": 1.0})
    second.close()
    assert [(5, 1.0), (5, 1.0), (5, 2.0), (6, 1.0), (5, 1.0)] == [
        (line["step"], line["a"]) for line in lines(tmp_path) if "a" in line
    ]
    assert 2 == sum("b" in line for line in lines(tmp_path))


def test_what_was_dropped_is_not_there(tmp_path: Path) -> None:
    """
    What was logged beyond the step that is gone on from, or before it, is no
    reason not to log the same there; nor is what this attempt has logged.
    """
    first = Logbook(tmp_path, run_id=lambda: "0123456789abcdef")
    first.cut_back(0)
    for step in range(10):
        first.log(step, {"a": float(step)})
    first.close()
    second = Logbook(tmp_path, run_id=lambda: "0123456789abcdef")
    second.cut_back(5)
    second.log(5, {"a": 3.0})
    second.log(5, {"a": 8.0})
    second.log(5, {"b": 1.0})
    second.log(5, {"b": 1.0})
    second.close()
    found = [(line["step"], line.get("a")) for line in lines(tmp_path)]
    assert [(n, float(n)) for n in range(6)] == found[:6]
    assert [(5, 3.0), (5, 8.0), (5, None), (5, None)] == found[6:]
