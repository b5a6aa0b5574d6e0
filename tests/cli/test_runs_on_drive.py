"""Runs that live on Google Drive: by the command line, as a person does it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from commands import Workplace
from test_runs_in_a_bucket import Machines, result
from waiting import until

from colab_keras_bg.cli import exit_status
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage.drive import DriveStorage
from colab_keras_bg.storage.segments import SegmentedStorage
from colab_keras_bg.testing.loopback_drive import Fault, LoopbackDrive

URL = "drive://My runs/digits/a"


class DriveMachines(Machines):
    """Machines that know one Drive, each with a spool of its own."""

    server: LoopbackDrive  # type: ignore[assignment]

    def start(
        self, *flags: str, name: str = "a", steps: int = 6, url: str = URL
    ) -> subprocess.Popen[bytes]:
        return super().start(*flags, name=name, steps=steps, url=url)

    def drive(self) -> SegmentedStorage:
        """What a person sees there."""
        files = DriveStorage("My runs", "digits/a", endpoint=self.server.url)
        return SegmentedStorage(files)

    def durable_step(self) -> int | None:
        with contextlib.closing(self.drive()) as drive:
            try:
                return Hold.from_bytes(drive.read("HEAD")).head.step
            except FileNotFoundError:
                return None

    def told(self) -> str | None:
        """What the sidecar says that is wrong."""
        report = self.spool() / ".sidecar" / "report.json"
        problem: str | None = json.loads(report.read_text())["problem"]
        return problem

    def status(self, name: str = "b") -> dict[str, Any]:
        ended = self.run("status", "--json", URL, name=name)
        assert ended.status == exit_status.DONE, ended.err
        told: dict[str, Any] = json.loads(ended.out)
        return told


@pytest.fixture
def machines(place: Workplace) -> Iterator[DriveMachines]:
    """Machines, and the Drive that outlives them."""
    with LoopbackDrive(["My runs"]) as server:
        machines = DriveMachines(place, server)  # type: ignore[arg-type]
        yield machines
        place.close()
        machines.kill_sidecars()


def test_goes_on_elsewhere(machines: DriveMachines) -> None:
    """
    The machine is lost with all that was on it; the same command on another
    one goes on from the durable step and comes to the same end. A person sees
    folders and files, none of them twice.
    """
    expected = result(machines.train(url="drive://My runs/undisturbed"))
    shutil.rmtree(machines.place.path / "spools")
    machines.stop_at(3)
    process = machines.start()
    machines.wait_until_durable(3)
    machines.lose(process, name="a")
    machines.stop_at(None)
    ended = machines.train("--take_over", name="b")
    assert "from 3" in ended.out.decode()
    assert result(ended) == expected
    told = machines.run("verify", URL, name="c")
    assert told.status == exit_status.DONE, told.out
    assert (machines.status()["state"], machines.durable_step()) == ("done", 6)
    names = [*machines.server.files()]
    for name in names:
        assert len(machines.server.at(name)) == 1
    assert "My runs/digits/a/DONE" in names
    with contextlib.closing(machines.drive()) as drive:
        reports = drive.read("metrics.jsonl").splitlines()
    assert [json.loads(line)["step"] for line in reports] == [*range(1, 7)]


def test_there_is_no_space(machines: DriveMachines) -> None:
    """
    Training goes on; it is told what is wrong and what to do; when there is
    space again all that is due arrives.
    """
    machines.stop_at(2)
    process = machines.start()
    machines.wait_until_durable(2)
    machines.server.quota_bytes = 0
    machines.stop_at(4)
    until(
        lambda: "Empty the trash" in (machines.told() or ""),
        what="it is told",
        patience_secs=60,
    )
    assert machines.durable_step() == 2
    machines.server.quota_bytes = None
    machines.wait_until_durable(4)
    machines.stop_at(None)
    ended = machines.place.end(process)
    assert ended.status == exit_status.DONE, ended.err
    assert machines.durable_step() == 6


@pytest.mark.parametrize(
    ("url", "fault", "words"),
    [
        ("drive://My rusn/a", None, ["no folder 'My rusn'", "Make it"]),
        ("drive://My runs", None, ["drive://FOLDER/PATH"]),
        ("drive://My runs/a b", None, ["drive://FOLDER/PATH"]),
        (URL, Fault(status=401, times=None), ["not accepted", "Log in"]),
        (URL, Fault(status=403, times=None), ["access is denied"]),
    ],
    ids=["no folder", "no path", "a space", "no credentials", "no access"],
)
def test_trouble_at_the_start(
    url: str, fault: Fault | None, words: list[str], machines: DriveMachines
) -> None:
    """What cannot work is said in one sentence, before anything is trained."""
    if fault is not None:
        machines.server.faults.add(fault)
    ended = machines.train(url=url)
    assert ended.status in (exit_status.FAILED, exit_status.USAGE)
    assert ended.out == b""
    assert ended.err.count("\n") == 1, ended.err
    for word in words:
        assert word in ended.err
    assert machines.server.files() == {}
