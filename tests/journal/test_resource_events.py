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

BEGAN = 1e9


def line(secs: float, **more: object) -> dict[str, object]:
    """
    A line of what is used so long after the run was begun.
    """
    when = BEGAN + secs
    return {"time": when, "step": 7, "cores": 4.0, "cores_busy": 1.0, **more}


def test_shown_over_the_time_that_has_passed(tmp_path: Path) -> None:
    """
    Each line is shown once, also of several attempts, while the training
    stands still, and if its steps were lost; what cannot be shown is passed
    over, and a clock that is behind goes on.
    """
    (tmp_path / "run.json").write_text(f'{{"created": {BEGAN}}}')
    logbook = Logbook(tmp_path, run_id=lambda: "a run")
    append_resources(tmp_path, 1, line(5))
    logbook.show_resources(1)
    assert not (tmp_path / "tensorboard").exists()
    logbook.log(1, {"loss": 1.0})
    logbook.sync()
    for secs in (10, 20.5):
        append_resources(tmp_path, 1, line(secs, process_bytes=2 * 10**9))
    logbook.show_resources(1)
    logbook.show_resources(1)
    append_resources(tmp_path, 1, {"time": "x", "step": 7, "cores": 1.0})
    logbook.cut_back(3)
    append_resources(tmp_path, 2, line(3000, gpus=[{"utilisation": 0.5}]))
    append_resources(tmp_path, 2, line(2990, gpus=[{"utilisation": 0.75}]))
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

    assert [(n, 0.25) for n in (5, 10, 20, 3000, 3001)] == shown("cpu")
    assert [(10, 2.0), (20, 2.0)] == shown("process_gb")
    assert [(3000, 0.5), (3001, 0.75)] == shown("gpu0_utilisation")


def test_a_run_without_a_beginning(tmp_path: Path) -> None:
    """
    Where nobody knows when a run was begun, it is with the first line.
    """
    (tmp_path / "run.json").write_text("[]")
    logbook = Logbook(tmp_path, run_id=lambda: "a run")
    logbook.log(1, {"loss": 1.0})
    logbook.sync()
    for secs in (10, 20, 1e300):
        append_resources(tmp_path, 1, line(secs))
    logbook.show_resources(1)
    logbook.close()
    found = EventAccumulator(str(tmp_path / "tensorboard/resources")).Reload()
    assert [0, 10, 11] == [event.step for event in found.Tensors("cpu")]


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
