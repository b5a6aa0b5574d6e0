"""Runs that live in a bucket: by the command line, as a person does it.

A machine is a folder of spools; losing it is losing that folder and all of
its processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, Workplace
from waiting import until

from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.cli import exit_status
from colab_keras_bg.report.status import read_status
from colab_keras_bg.report.verification import verify_run
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.testing.loopback_gcs import Fault, LoopbackGcs

URL = "gs://bucket/runs/a"

# A training without a framework: step by step, and each of them is saved. It
# stops at the step that the file `stop` names, until that is gone.
TRAINS = """\
import pathlib, sys, time
import numpy as np
import colab_keras_bg as bg
from colab_keras_bg.tensor import LazyTensor

run = bg.current_run()
found = run.saves.newest()
weights = found.tensors["weights"].copy() if found else np.zeros(1000)
begin = found.step if found else 0
run.go_on_from(begin, epoch=0)
run.training_begins()
print("from", begin, flush=True)
for step in range(begin + 1, int(sys.argv[1]) + 1):
    weights = weights * 1.5 + step
    run.at_step(step, epoch=0)
    run.report({"loss": float(step)})
    run.saves.save(step, {"weights": LazyTensor.of(weights)}, {"step": step})
    run.saves.wait()
    print("step", step, flush=True)
    stop = pathlib.Path("stop")
    while stop.exists() and int(stop.read_text()) <= step:
        time.sleep(0.05)
        run.at_step(step, epoch=0)
end = int(sys.argv[1])
tensors = {"weights": LazyTensor.of(weights)}
run.saves.save_final(end, tensors, {"position": {"fit": 0}})
print("weights", weights.sum(), flush=True)
"""


class Machines:
    """Machines that know one bucket, each with a spool of its own."""

    def __init__(self, place: Workplace, server: LoopbackGcs) -> None:
        self.place = place
        self.server = server
        self.program = place.program(TRAINS)

    def environment(self, name: str = "a") -> dict[str, str]:
        return {
            **self.server.environment,
            "COLAB_KERAS_BG_SPOOLS": str(self.place.path / "spools" / name),
        }

    def start(
        self, *flags: str, name: str = "a", steps: int = 6, url: str = URL
    ) -> subprocess.Popen[bytes]:
        """Starts the training on a machine."""
        return self.place.start(
            "train",
            f"--run_dir={url}",
            *flags,
            self.program,
            "--",
            str(steps),
            environment=self.environment(name),
        )

    def train(self, *flags: str, **settings: Any) -> Ended:
        """Runs the training on a machine to its end."""
        return self.place.end(self.start(*flags, **settings))

    def run(self, *arguments: str, name: str = "a") -> Ended:
        """Runs a command on a machine."""
        return self.place.run(*arguments, environment=self.environment(name))

    def spool(self, name: str = "a") -> Path:
        """The one spool of a machine."""
        (found,) = (self.place.path / "spools" / name).iterdir()
        return found

    def stop_at(self, step: int | None) -> None:
        """Has the training stop at a step; None: go on."""
        file = self.place.path / "stop"
        if step is None:
            step = 10**9
        # As a whole: a training looks at any moment.
        file.with_suffix(".new").write_text(str(step))
        file.with_suffix(".new").rename(file)

    def wait_until_durable(self, step: int) -> None:
        """Returns when the bucket has a step."""
        until(lambda: self.durable_step() == step, what=f"step {step} there")

    def durable_step(self) -> int | None:
        with contextlib.closing(self.remote()) as remote:
            try:
                return Hold.from_bytes(remote.read("HEAD")).head.step
            except FileNotFoundError:
                return None

    def head(self) -> bytes:
        """What the bucket's HEAD is."""
        with contextlib.closing(self.remote()) as remote:
            return remote.read("HEAD")

    def remote(self) -> GcsStorage:
        """What a person sees in the bucket."""
        return GcsStorage("bucket", "runs/a", endpoint=self.server.url)

    def sidecars(self) -> list[int]:
        """The processes of all sidecars."""
        reports = (self.place.path / "spools").glob("*/*/.sidecar/report.json")
        return [json.loads(path.read_text())["pid"] for path in reports]

    def lose(self, process: subprocess.Popen[bytes], *, name: str) -> None:
        """The machine is gone: its processes, and then its disk."""
        process.kill()
        process.wait()
        self.kill_sidecars()
        shutil.rmtree(self.place.path / "spools" / name)

    def kill_sidecars(self) -> None:
        for pid in self.sidecars():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def machines(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machines]:
    """Machines, and the bucket that outlives them."""
    with LoopbackGcs(["bucket"], forbidden=["forbidden"]) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        machines = Machines(place, server)
        yield machines
        place.close()
        machines.kill_sidecars()


def result(ended: Ended) -> str:
    """What the training came to."""
    assert ended.status == exit_status.DONE, ended.err
    return ended.out.decode().splitlines()[-1]


def test_goes_on_elsewhere(machines: Machines) -> None:
    """
    The machine is lost with all that was on it; the same command on another
    one goes on from the durable step and comes to the same end, of which the
    bucket holds all.
    """
    expected = result(machines.train(url="gs://bucket/runs/undisturbed"))
    shutil.rmtree(machines.place.path / "spools")
    machines.stop_at(3)
    process = machines.start()
    machines.wait_until_durable(3)
    machines.lose(process, name="a")
    machines.stop_at(None)
    ended = machines.train("--take_over", name="b")
    assert "from 3" in ended.out.decode()
    assert result(ended) == expected
    found = verify_run(URL)
    assert found.damaged == []
    assert "checkpoint of step 6" in " ".join(found.whole)
    with contextlib.closing(machines.remote()) as remote:
        reports = remote.read("metrics.jsonl").splitlines()
        assert [json.loads(line)["step"] for line in reports] == [*range(1, 7)]
        assert {"DONE", "run.json", "status.json"} <= {
            info.name for info in remote.list()
        }
        assert Hold.from_bytes(remote.read("HEAD")).holder == ""


def test_done_is_known_elsewhere(machines: Machines) -> None:
    """
    The same command on a machine that has never seen the run says that it is
    done, fetches nothing and starts nothing; with more to do, it goes on.
    """
    machines.train()
    ended = machines.train(name="b")
    assert (ended.status, ended.out) == (exit_status.DONE, b"")
    assert f"{URL} is done since" in ended.err
    assert not (machines.place.path / "spools" / "b").exists()
    ended = machines.train(name="b", steps=8)
    assert "from 6" in ended.out.decode()
    assert machines.durable_step() == 8


def test_a_killed_attempt_drains_and_goes_on_here(machines: Machines) -> None:
    """
    Killed, its sidecar ships what is due and ends; the same command goes on.
    """
    machines.stop_at(3)
    process = machines.start()
    machines.wait_until_durable(3)
    process.kill()
    process.wait()
    machines.stop_at(None)
    ended = machines.train()
    assert "from 3" in ended.out.decode()
    assert machines.durable_step() == 6


def test_a_live_run_is_not_taken(machines: Machines) -> None:
    """
    Elsewhere, a second attempt on a live run ends with status 3 and a
    sentence. With --take_over it goes on, and the first ends with status 3;
    what it committed since is void.
    """
    machines.stop_at(3)
    first = machines.start()
    machines.wait_until_durable(3)
    refused = machines.train(name="b")
    assert refused.status == exit_status.HELD
    assert refused.err.splitlines()[-1].startswith("colab-keras-bg: The run in")
    assert "held by another live attempt" in refused.err
    (machines.place.path / "stop").write_text("3")
    second = machines.start("--take_over", name="b")
    lost = machines.place.end(first)
    assert lost.status == exit_status.HELD, lost.err
    assert "another machine has taken the run over" in lost.err
    machines.stop_at(None)
    ended = machines.place.end(second)
    assert ended.status == exit_status.DONE, ended.err
    assert machines.durable_step() == 6


def test_a_sidecar_that_comes_back_takes_nothing(machines: Machines) -> None:
    """
    Its sidecar killed, another machine takes the run and gives it back: the
    first attempt, though it was itself started with --take_over, ends with
    status 3; what it would commit is void.
    """
    machines.stop_at(3)
    first = machines.start("--take_over")
    machines.wait_until_durable(3)
    machines.kill_sidecars()
    machines.stop_at(5)
    second = machines.train("--take_over", name="b", steps=4)
    assert second.status == exit_status.DONE, second.err
    machines.stop_at(None)
    lost = machines.place.end(first)
    assert lost.status == exit_status.HELD, lost.err
    assert machines.durable_step() == 4


def test_a_live_run_that_uploads_is_not_taken(machines: Machines) -> None:
    """
    While an upload takes its time, the run's signs of life go on.
    """
    machines.server.faults.add(
        Fault("upload.*", "stall", name="*.safetensors", secs=45, times=1)
    )
    machines.stop_at(1)
    first = machines.start()
    until(
        lambda: "HEAD" in {i.name for i in machines.remote().list()},
        what="the run is taken",
    )
    refused = machines.train(name="b")
    assert refused.status == exit_status.HELD, refused.err
    machines.stop_at(None)
    first.kill()


def test_the_network_goes_and_comes(machines: Machines) -> None:
    """
    Without a network the training goes on, and says since when nothing is
    durable and why; when it is back, all is shipped.
    """
    machines.stop_at(2)
    process = machines.start(steps=9)
    machines.wait_until_durable(2)
    machines.server.stop()
    machines.stop_at(7)
    spool = machines.spool()
    until(
        lambda: 7 in CheckpointStore(_local(spool)).steps(),
        what="step 7 is committed here",
    )
    report = spool / ".sidecar" / "report.json"
    until(
        lambda: json.loads(report.read_text())["problem"],
        what="the sidecar has noticed",
        patience_secs=60,
    )
    status = machines.run("status", URL)
    assert status.status == exit_status.DONE, status.err
    shown = status.out.decode()
    assert "running" in shown
    assert "durable      step 2, " in shown
    assert "step 7 on its way there" in shown
    assert "problem      " in shown
    machines.server.start()
    machines.stop_at(None)
    ended = machines.place.end(process)
    assert ended.status == exit_status.DONE, ended.err
    assert "durable through step 2, " in ended.err
    assert "Training goes on" in ended.err
    assert machines.durable_step() == 9


def test_a_limit_to_what_is_not_durable(machines: Machines) -> None:
    """
    With --max_undurable, a run whose steps do not become durable ends with
    status 75; the same command goes on.
    """
    machines.stop_at(2)
    process = machines.start("--max_undurable=3s")
    machines.wait_until_durable(2)
    machines.server.stop()
    machines.stop_at(5)
    until(
        lambda: "Nothing has become durable for" in _errors_of(process),
        what="it is ended",
        patience_secs=60,
    )
    machines.server.start()
    assert process.wait(90) == exit_status.RESUMABLE
    machines.stop_at(None)
    assert machines.train().status == exit_status.DONE
    assert machines.durable_step() == 6


@pytest.mark.parametrize(
    ("url", "environment", "words"),
    [
        ("gs://nowhere/a", {}, ["nowhere", "bucket"]),
        ("gs://forbidden/a", {}, ["forbidden"]),
        (URL, {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"}, ["gs://"]),
        ("gs://bucket", {}, ["gs://BUCKET/FOLDER"]),
        ("gs://bucket/../a", {}, ["gs://BUCKET/FOLDER"]),
        ("s3://bucket/a", {}, ["s3://", "gs://BUCKET/FOLDER"]),
    ],
    ids=["no bucket", "no access", "no network", "no folder", "up", "s3"],
)
def test_trouble_at_the_start(
    url: str,
    environment: dict[str, str],
    words: list[str],
    machines: Machines,
) -> None:
    """
    What cannot work is said in one sentence, before anything is trained.

    Before it, a slow machine may hear that it is being waited for.
    """
    ended = machines.place.run(
        *("train", f"--run_dir={url}", machines.program, "--", "3"),
        environment={**machines.environment(), **environment},
    )
    assert ended.status in (exit_status.FAILED, exit_status.USAGE)
    assert ended.out == b""
    said = [
        line
        for line in ended.err.splitlines()
        if "has not answered yet" not in line
    ]
    assert 1 == len(said), ended.err
    for word in words:
        assert word in said[0]


def test_status_and_verify_from_anywhere(machines: Machines) -> None:
    """
    A machine that has never seen the run tells how it is, and finds damage.
    """
    machines.stop_at(3)
    process = machines.start()
    machines.wait_until_durable(3)
    until(
        lambda: _status(machines, "b")["shipping"].get("traffic"),
        what="its sign of life has come",
    )
    told = _status(machines, "b")
    assert (told["state"], told["durable_step"]) == ("running", 3)
    assert told["shipped_to"] == URL
    assert told["shipping"]["traffic"]["requests"]["POST"] > 0
    machines.stop_at(None)
    machines.place.end(process)
    told = _status(machines, "b")
    assert (told["state"], told["durable_step"]) == ("done", 6)
    assert machines.run("verify", URL, name="b").status == exit_status.DONE
    with contextlib.closing(machines.remote()) as remote:
        name = next(
            info.name
            for info in remote.list("checkpoints/")
            if info.name.endswith(".safetensors") and "6" in info.name
        )
        content = bytearray(remote.read(name))
        content[-1] ^= 1
        remote.replace(name, bytes(content))
    ended = machines.run("verify", URL, name="b")
    assert ended.status == exit_status.FAILED
    assert b"checkpoint of step 6" in ended.out


def test_ended_before_it_began(machines: Machines) -> None:
    """
    SIGTERM while the run is still being fetched: a sentence, status 75, and
    nothing was changed.
    """
    machines.train(steps=3)
    head = machines.head()
    machines.server.faults.add(Fault("get.media", "stall", times=None))
    process = machines.start(name="b", steps=6)
    assert machines.server.faults.wait_until_held(within_secs=30)
    process.terminate()
    ended = machines.place.end(process)
    machines.server.faults.clear()
    assert ended.status == exit_status.RESUMABLE
    assert ended.err.count("\n") == 1
    assert "run the same command again" in ended.err
    assert machines.head() == head
    assert machines.train(name="b").status == exit_status.DONE


def test_a_program_that_ends_without_a_final_state(machines: Machines) -> None:
    """
    A `with` block that saves and ends is done; `verify` misses nothing.
    """
    program = machines.place.program(
        """
        import numpy as np
        import colab_keras_bg as bg
        from colab_keras_bg.tensor import LazyTensor

        with bg.Run("run") as run:
            run.at_step(1, epoch=0)
            array = LazyTensor.of(np.ones(3))
            run.saves.save(1, {"a": array}, {"step": 1})
            run.saves.wait()
        """,
        name="block.py",
    )
    done = subprocess.run(
        [sys.executable, program], cwd=machines.place.path, check=False
    )
    assert done.returncode == 0
    ended = machines.run("verify", "run")
    assert ended.status == exit_status.DONE, ended.out
    assert b"checkpoint of step 1" in ended.out


def test_a_full_disk_shows(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run itself can no longer write down, `status` sees."""
    machines.stop_at(2)
    process = machines.start()
    machines.wait_until_durable(2)
    monkeypatch.setattr(LocalStorage, "free_bytes", lambda self: 1000)
    told = read_status(machines.spool())
    assert "is full" in (told.problem or "")
    machines.stop_at(None)
    machines.place.end(process)
    assert read_status(machines.spool()).problem is None


def test_starting_over_is_refused(machines: Machines) -> None:
    """
    A bucket renames nothing: what is there stays, and that is said.
    """
    machines.train(steps=2)
    ended = machines.train("--start_over", steps=2)
    assert ended.status == exit_status.USAGE
    assert "give another run directory" in ended.err
    assert machines.durable_step() == 2


def _status(machines: Machines, name: str) -> dict[str, Any]:
    ended = machines.run("status", "--json", URL, name=name)
    assert ended.status == exit_status.DONE, ended.err
    told: dict[str, Any] = json.loads(ended.out)
    return told


def _local(path: Path) -> Any:
    from colab_keras_bg.storage.local import LocalStorage

    return LocalStorage(path)


_errors: dict[int, str] = {}


def _errors_of(process: subprocess.Popen[bytes]) -> str:
    """What a process has said so far."""
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    text = (process.stderr.read() or b"").decode()
    _errors[process.pid] = _errors.get(process.pid, "") + text
    return _errors[process.pid]
