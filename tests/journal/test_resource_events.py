"""What a run uses, in TensorBoard."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tensorboard.util.tensor_util import make_ndarray

from colab_keras_bg.journal.logbook import Logbook
from colab_keras_bg.journal.resource_events import shown_resources
from colab_keras_bg.journal.resources import append_resources


def line(step: int, **more: object) -> dict[str, object]:
    """
    A line of what is used.
    """
    return {"time": 1e9, "step": step, "cores": 4.0, "cores_busy": 1.0, **more}


def test_shown_at_the_step_of_the_training(tmp_path: Path) -> None:
    """
    Each line is shown once, at its step, also of several attempts; what
    cannot be shown is passed over.
    """
    logbook = Logbook(tmp_path, run_id=lambda: "a run")
    append_resources(tmp_path, 1, line(0))
    logbook.show_resources(1)
    assert not (tmp_path / "tensorboard").exists()
    logbook.log(1, {"loss": 1.0})
    logbook.sync()
    for step in (10, 20):
        append_resources(tmp_path, 1, line(step, process_bytes=2 * 10**9))
    logbook.show_resources(1)
    logbook.show_resources(1)
    append_resources(tmp_path, 1, {"time": 1e9, "step": "x", "cores": None})
    append_resources(tmp_path, 2, line(30, gpus=[{"utilisation": 0.5}]))
    logbook.show_resources(1)
    logbook.show_resources(2)
    logbook.close()
    found = EventAccumulator(str(tmp_path / "tensorboard/resources"))
    found.Reload()

    def shown(tag: str) -> list[tuple[int, float]]:
        return [
            (event.step, float(make_ndarray(event.tensor_proto)))
            for event in found.Tensors(tag)
        ]

    assert [(n, 0.25) for n in (0, 10, 20, 30)] == shown("cpu")
    assert [(10, 2.0), (20, 2.0)] == shown("process_gb")
    assert [(30, 0.5)] == shown("gpu0_utilisation")


def test_what_anyone_may_have_written() -> None:
    """
    Only numbers are shown.
    """
    assert {} == shown_resources(
        {"cores": 0, "cores_busy": 1, "gpus": 7, "step_secs": "fast"}
    )
    assert {"gpu1_celsius": 60.0} == shown_resources(
        {"gpus": ["x", {"celsius": 60, "power_watts": None}]}
    )
