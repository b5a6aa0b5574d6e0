"""A place that stands in for a run directory that stays dead."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from commands import Ended, Workplace
from test_runs_in_a_bucket import TRAINS, result
from waiting import until

from colab_keras_bg.checkpoint.head import HEAD
from colab_keras_bg.cli import exit_status
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.testing.loopback_gcs import Fault, LoopbackGcs

FIRST = "gs://bucket/runs/a"
SECOND = "gs://bucket/spare/a"


class Two:
    """Two folders, of which the first can die, and machines."""

    def __init__(self, place: Workplace, server: LoopbackGcs) -> None:
        self.place, self.server = place, server
        self.program = place.program(TRAINS)

    def environment(self, name: str = "a") -> dict[str, str]:
        return {
            **self.server.environment,
            "COLAB_KERAS_BG_SPOOLS": str(self.place.path / "spools" / name),
        }

    def start(
        self, *flags: str, name: str = "a", steps: int = 6
    ) -> subprocess.Popen[bytes]:
        """Starts the training on a machine."""
        return self.place.start(
            *("train", f"--run_dir={FIRST}", *flags),
            *(f"--fallback_dir={SECOND}", "--fallback_after=1s"),
            *(self.program, "--", str(steps)),
            environment=self.environment(name),
        )

    def train(self, *flags: str, **settings: Any) -> Ended:
        return self.place.end(self.start(*flags, **settings))

    def die(self) -> None:
        """The first answers nothing but errors from now on."""
        self.server.faults.add(Fault(name="runs/*", times=None))

    def recover(self) -> None:
        self.server.faults.clear()

    def step_in(self, folder: str) -> int | None:
        """The newest step that a folder's HEAD names."""
        hold = self.hold_of(folder)
        return hold.head.step if hold else None

    def hold_of(self, folder: str) -> Hold | None:
        with contextlib.closing(
            GcsStorage("bucket", f"{folder}/a", endpoint=self.server.url)
        ) as remote:
            try:
                return Hold.from_bytes(remote.read(HEAD))
            except FileNotFoundError:
                return None

    def wait_until(self, folder: str, step: int) -> None:
        until(
            lambda: self.step_in(folder) == step,
            what=f"step {step} in {folder}",
            patience_secs=90,
        )

    def stop_at(self, step: int | None) -> None:
        file = self.place.path / "stop"
        if step is None:
            step = 10**9
        # As a whole: a training looks at any moment.
        file.with_suffix(".new").write_text(str(step))
        file.with_suffix(".new").rename(file)

    def kill_sidecars(self) -> None:
        spools = self.place.path / "spools"
        for path in spools.glob("*/*/.sidecar/report.json"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)

    def lose(self, process: subprocess.Popen[bytes], *, name: str) -> None:
        """The machine is gone: its processes, and then its disk."""
        process.kill()
        process.wait()
        self.kill_sidecars()
        shutil.rmtree(self.place.path / "spools" / name)

    def status(self, url: str, name: str = "a") -> dict[str, Any]:
        ended = self.place.run(
            *("status", "--json", url), environment=self.environment(name)
        )
        told: dict[str, Any] = json.loads(ended.out)
        return told


@pytest.fixture
def two(place: Workplace) -> Iterator[Two]:
    """Both, and the service that they lie on."""
    with LoopbackGcs(["bucket"]) as server:
        two = Two(place, server)
        yield two
        place.close()
        two.kill_sidecars()


def test_takes_over_and_gives_back(two: Two) -> None:
    """
    The run directory dies: what is committed goes to the other place, which
    is said; it comes back, and all that is due is shipped to it.
    """
    expected = result(two.train(name="undisturbed"))
    two.place.path.joinpath("spools").rename(two.place.path / "before")
    with contextlib.closing(
        GcsStorage("bucket", "runs/a", endpoint=two.server.url)
    ) as remote:
        for info in list(remote.list()):
            remote.delete(info.name)
    two.stop_at(3)
    process = two.start()
    two.wait_until("runs", 3)
    two.die()
    two.stop_at(4)
    two.wait_until("spare", 4)
    two.recover()
    two.wait_until("runs", 4)
    until(
        lambda: two.hold_of("spare").holder == "",  # type: ignore[union-attr]
        what="the other place is given back",
    )
    two.stop_at(None)
    assert result(two.place.end(process)) == expected
    assert two.step_in("runs") == 6
    assert two.status(FIRST)["state"] == "done"


@pytest.mark.slow
def test_goes_on_elsewhere_from_what_is_newer(two: Two) -> None:
    """
    The machine is lost while the other place stands in. On the next one, the
    run directory is still dead, and then it is back: each time training goes
    on from the newest step of both.
    """
    two.stop_at(2)
    process = two.start()
    two.wait_until("runs", 2)
    two.die()
    two.stop_at(4)
    two.wait_until("spare", 4)
    two.lose(process, name="a")
    two.stop_at(5)
    process = two.start("--take_over", name="b")
    two.wait_until("spare", 5)
    two.lose(process, name="b")
    two.recover()
    assert two.step_in("runs") == 2
    two.stop_at(None)
    ended = two.train("--take_over", name="c")
    assert "from 5" in ended.out.decode()
    assert f"skipped {FIRST}, which is older than {SECOND}" in ended.err
    assert result(ended).startswith("weights")
    assert two.step_in("runs") == 6


def test_a_dead_run_directory_is_never_a_new_run(two: Two) -> None:
    """
    Where the other place knows nothing of the run, it cannot begin: what is
    in the run directory is not known.
    """
    two.die()
    ended = two.train()
    assert ended.status == exit_status.FAILED
    assert f"{FIRST} answers with status 503" in ended.err
    assert "from 0" not in ended.out.decode()
    assert two.step_in("spare") is None


@pytest.mark.slow
def test_it_is_told(two: Two) -> None:
    """
    The console and `status` say that the run directory is dead, and where the
    run is shipped to meanwhile.
    """
    two.stop_at(2)
    process = two.start()
    two.wait_until("runs", 2)
    two.die()
    two.stop_at(3)
    two.wait_until("spare", 3)
    spool = next((two.place.path / "spools" / "a").glob("*-a-*"))
    until(
        lambda: SECOND in (two.status(str(spool))["problem"] or ""),
        what="it is told",
        patience_secs=60,
    )
    told = two.status(str(spool))
    assert (told["state"], told["durable_step"]) == ("running", 3)
    assert told["shipped_to"] == SECOND
    assert FIRST in told["problem"]
    two.kill_sidecars()  # The next one carries on there.
    two.stop_at(4)
    two.wait_until("spare", 4)
    until(
        lambda: two.status(str(spool))["durable_step"] == 4,
        what="that is told, too",
    )
    told = two.status(str(spool))
    assert (told["shipped_to"], FIRST in told["problem"]) == (SECOND, True)
    two.recover()
    two.stop_at(None)
    ended = two.place.end(process)
    assert ended.status == exit_status.DONE, ended.err
    assert f"it is shipped to {SECOND} from now on" in ended.err


@pytest.mark.slow
def test_it_is_said_where_the_end_lies(two: Two) -> None:
    """
    A run that ends while the other place stands in says that the run
    directory lacks it; the same command, when that is back, brings it there.
    """
    two.stop_at(2)
    process = two.start()
    two.wait_until("runs", 2)
    two.die()
    two.stop_at(None)
    ended = two.place.end(process)
    assert ended.status == exit_status.DONE, ended.err
    assert f"it is shipped to {SECOND}" in ended.err
    assert f"The same command, when {FIRST} is back, ships it" in ended.err
    two.recover()
    assert (2, 6) == (two.step_in("runs"), two.step_in("spare"))
    assert two.train().status == exit_status.DONE
    assert two.step_in("runs") == 6
