"""Machines are lost at random, while the far end fails at random."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest
from commands import Workplace
from test_runs_in_a_bucket import TRAINS

from colab_keras_bg.testing.lost_machines import LostMachines, far_end


@pytest.fixture(
    params=[
        "gcs",
        pytest.param("drive", marks=pytest.mark.slow),
        pytest.param("mounted", marks=pytest.mark.slow),
    ]
)
def lost(
    request: pytest.FixtureRequest,
    place: Workplace,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LostMachines]:
    """A training far away, of which the machines are lost."""
    # A step that takes a moment, so that there is something to interrupt.
    source = TRAINS.replace(
        "    run.saves.wait()\n", "    run.saves.wait()\n    time.sleep(0.2)\n"
    )
    program = place.program(source)
    monkeypatch.chdir(place.path)
    with contextlib.ExitStack() as stack:
        run_dir, environment, calm = far_end(
            request.param, place.path, stack, seed=7, rate=0.05
        )
        yield LostMachines(
            [program, "--", "25"],
            run_dir,
            environment,
            place.path,
            random.Random(f"machines {request.param}"),
            calm,
        )


def test_nothing_that_was_durable_is_lost(lost: LostMachines) -> None:
    """
    Whenever a machine goes, with its disk or without: what was called durable
    is there and verifies, and the next one comes to the end.
    """
    for _ in range(3):
        lost.kill_once(most_secs=1.0)
    assert lost.finish() == 0
    assert lost.wrong == []
    assert len(lost.kills) == 3
    console = lost.directory / f"machine-{lost._machine}" / "console.txt"
    assert console.read_text().count("weights ") == 1
