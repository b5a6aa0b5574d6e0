"""The console of a run that is shipped, over lost machines."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from commands import Workplace
from test_runs_in_a_bucket import URL, Machines
from waiting import until

from colab_keras_bg.cli import exit_status
from colab_keras_bg.testing.loopback_gcs import Fault, LoopbackGcs


@pytest.fixture
def machines(place: Workplace) -> Iterator[Machines]:
    """Machines, and the bucket that they know."""
    with LoopbackGcs(["bucket"]) as server:
        machines = Machines(place, server)
        yield machines
        place.close()
        machines.kill_sidecars()


def theirs(out: bytes) -> list[str]:
    """What the program has printed."""
    lines = out.decode().splitlines()
    return [line for line in lines if not line.startswith("colab-keras-bg:")]


def test_after_a_machine_is_lost(machines: Machines) -> None:
    """
    What attempts on machines that are gone have printed is read from the
    bucket, and what this machine prints from its own disk.
    """
    machines.stop_at(3)
    first = machines.start()
    machines.wait_until_durable(3)
    until(
        lambda: "step 3" in theirs(machines.run("logs", URL, name="z").out),
        what="what it has printed is in the bucket",
    )
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    machines.kill_sidecars()
    shutil.rmtree(machines.place.path / "spools" / "a")
    machines.stop_at(5)
    second = machines.start("--take_over", name="b")

    def spool_says() -> list[str]:
        return theirs(machines.run("logs", URL, name="b").out)

    expected = ["from 0", "step 1", "step 2", "step 3"]
    until(
        lambda: spool_says() == [*expected, "from 3", "step 4", "step 5"],
        what="both machines' output is one stream",
    )
    assert ["from 3", "step 4", "step 5"] == theirs(
        machines.run("logs", "--attempt=2", URL, name="b").out
    )
    # Out of reach, what is on this machine is shown.
    machines.server.faults.add(Fault(times=None))
    ended = machines.run("logs", URL, name="b")
    machines.server.faults.clear()
    assert ["from 3", "step 4", "step 5"] == theirs(ended.out)[-3:]
    assert "What is on this machine is shown" in ended.err
    machines.stop_at(None)
    assert machines.place.end(second).status == exit_status.DONE
    lines = theirs(machines.run("logs", URL, name="z").out)
    assert [*expected, "from 3", "step 4", "step 5", "step 6"] == lines[:-1]
