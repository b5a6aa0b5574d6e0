"""Runs that live in a mounted folder: by the command line, as in Colab."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, Workplace
from test_runs_in_a_bucket import TRAINS, result
from waiting import until

from colab_keras_bg.checkpoint.head import HEAD
from colab_keras_bg.cli import exit_status
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.testing.mounted_folder import MountedFolder


class Colab:
    """Machines that mount one Drive, one after the other."""

    def __init__(self, place: Workplace, drive: MountedFolder) -> None:
        self.place, self.drive = place, drive
        self.program = place.program(TRAINS)
        self.url = str(drive.path / "runs" / "a")

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.drive.environment,
            "COLAB_KERAS_BG_SPOOLS": str(self.place.path / "spools"),
        }

    def start(self, *flags: str, steps: int = 6) -> subprocess.Popen[bytes]:
        """Starts the training."""
        return self.place.start(
            *("train", f"--run_dir={self.url}", *flags),
            *(self.program, "--", str(steps)),
            environment=self.environment,
        )

    def train(self, *flags: str, steps: int = 6) -> Ended:
        return self.place.end(self.start(*flags, steps=steps))

    def status(self, run_dir: str | None = None) -> dict[str, Any]:
        ended = self.place.run(
            *("status", "--json", run_dir or self.url),
            environment=self.environment,
        )
        assert ended.status == exit_status.DONE, ended.err
        told: dict[str, Any] = json.loads(ended.out)
        return told

    def spool(self) -> Path:
        (found,) = (self.place.path / "spools").iterdir()
        return found

    def step_in(self, folder: Path) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            head = (folder / "runs" / "a" / HEAD).read_bytes()
            return Hold.from_bytes(head).head.step
        return None

    def wait_until_written(self, step: int) -> None:
        until(
            lambda: self.step_in(self.drive.cloud) == step,
            what=f"step {step} in the cloud",
            patience_secs=90,
        )

    def stop_at(self, step: int | None) -> None:
        file = self.place.path / "stop"
        file.unlink(missing_ok=True)
        if step is not None:
            file.write_text(str(step))

    def lose(self, process: subprocess.Popen[bytes]) -> None:
        """The machine is gone; the next one mounts what was uploaded."""
        process.kill()
        process.wait()
        self.kill_sidecars()
        shutil.rmtree(self.place.path / "spools")
        self.drive.lose_machine()

    def kill_sidecars(self) -> None:
        reports = (self.place.path / "spools").glob("*/.sidecar/report.json")
        for path in reports:
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)


@pytest.fixture
def colab(place: Workplace) -> Iterator[Colab]:
    """A mounted Drive, and machines."""
    with MountedFolder(place.path / "drive") as drive:
        colab = Colab(place, drive)
        yield colab
        place.close()
        colab.kill_sidecars()


def test_goes_on_on_the_next_machine(colab: Colab) -> None:
    """
    The trainer writes to the local disk only; what was uploaded when the
    machine was lost is gone on from, to the same end.
    """
    expected = result(colab.train())
    shutil.rmtree(colab.place.path / "spools")
    shutil.rmtree(colab.drive.path / "runs")
    colab.drive.wait_until_uploaded()
    colab.stop_at(3)
    process = colab.start()
    colab.wait_until_written(3)
    colab.drive.wait_until_uploaded()
    colab.drive.upload_after_secs = None
    colab.stop_at(4)
    until(lambda: colab.step_in(colab.drive.path) == 4, what="step 4")
    colab.lose(process)
    colab.drive.upload_after_secs = 0.0
    colab.stop_at(None)
    ended = colab.train("--take_over")
    assert "from 3" in ended.out.decode()
    assert result(ended) == expected
    told = colab.place.run("verify", colab.url, environment=colab.environment)
    assert told.status == exit_status.DONE, told.out


def test_nothing_is_called_durable(colab: Colab) -> None:
    """A mount does not tell what has arrived: that is said."""
    colab.train(steps=3)
    for run_dir in (colab.url, str(colab.spool())):
        told = colab.status(run_dir)
        assert told["durable_step"] is None
        assert told["unconfirmed_step"] == 3
    text = colab.place.run("status", colab.url, environment=colab.environment)
    assert b"not confirmed: step 3" in text.out


@pytest.mark.parametrize(
    "trouble",
    # A call is given a minute before it is said to hang.
    ["dies", pytest.param("stalls", marks=pytest.mark.slow), "is full"],
)
def test_trouble_is_told_and_waited_out(colab: Colab, trouble: str) -> None:
    """
    Training goes on, `status` says what is wrong; when the mount is back all
    that is due is written there.
    """
    expected = result(colab.train())
    shutil.rmtree(colab.place.path / "spools")
    shutil.rmtree(colab.drive.path / "runs")
    colab.stop_at(2)
    process = colab.start()
    colab.wait_until_written(2)
    words = {
        "dies": "the mount is dead",
        "stalls": "the mount hangs",
        "is full": "No space left",
    }[trouble]
    if trouble == "dies":
        colab.drive.die()
    elif trouble == "stalls":
        colab.drive.stall()
    else:
        colab.drive.fill()
    colab.stop_at(5)
    until(
        lambda: words in (colab.status(str(colab.spool()))["problem"] or ""),
        what="it is told",
        patience_secs=90,
    )
    assert colab.status(str(colab.spool()))["committed_step"] == 5
    assert colab.step_in(colab.drive.path) == 2
    colab.drive.recover()
    colab.wait_until_written(5)
    colab.stop_at(None)
    ended = colab.place.end(process)
    assert result(ended) == expected
    assert words in ended.err


def test_what_is_not_mounted_is_no_new_run(colab: Colab) -> None:
    """One sentence says so, before anything is trained."""
    shutil.rmtree(colab.drive.path)
    ended = colab.train()
    assert ended.status == exit_status.FAILED
    assert "nothing is mounted there" in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == b""
    assert not colab.drive.path.exists()
