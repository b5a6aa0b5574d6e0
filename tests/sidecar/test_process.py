"""A sidecar process, a service like Google's, and what may happen to them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from checkpoint.saves import arrays_of, assert_is_whole, state_of
from waiting import until

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    RunHeldError,
    StorageRefusedError,
    UsageError,
)
from colab_keras_bg.journal.heartbeat import Heartbeat
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.sidecar import launching
from colab_keras_bg.sidecar.exchange import Report
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.sidecar.launching import LaunchedSidecar
from colab_keras_bg.sidecar.options import ShippingOptions
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import create_record, write_record
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.testing.loopback_gcs import Fault, LoopbackGcs

URL = "gs://bucket/runs/a"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackGcs]:
    """A service that a sidecar finds by its environment."""
    with LoopbackGcs(["bucket"], forbidden=["forbidden"]) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def remote(server: LoopbackGcs) -> Iterator[GcsStorage]:
    """What a person sees in the bucket."""
    with contextlib.closing(
        GcsStorage("bucket", "runs/a", endpoint=server.url)
    ) as storage:
        yield storage


class Machine:
    """A machine with a spool, a trainer and a sidecar."""

    def __init__(self, spool: Path, *, url: str = URL) -> None:
        spool.mkdir(parents=True, exist_ok=True)
        self.spool = spool
        self.sidecar = LaunchedSidecar(spool, url=url, keep={"keep_last": 2})
        self._before: list[LaunchedSidecar] = []

    def take_over(self) -> None:
        """From now on, whoever holds the run."""
        self._before = [self.sidecar]
        self.sidecar = LaunchedSidecar(
            self.spool,
            url=URL,
            keep={"keep_last": 2},
            options=ShippingOptions(take_over=True),
        )

    def directory_storage(self) -> LocalStorage:
        """The files of the spool."""
        return LocalStorage(self.spool)

    def processes(self) -> list[subprocess.Popen[bytes]]:
        """Its sidecars'."""
        found = [one._process for one in (*self._before, self.sidecar)]
        return [process for process in found if process is not None]

    def begin(self) -> Report:
        """What a trainer does before it trains."""
        self.directory = RunDirectory(self.spool)
        self.directory._lock = self.directory._acquire()
        try:
            self.sidecar.start()
            report = self.sidecar.wait_until_ready(lambda *_: None)
            self.directory.head = self.directory._read_head()
            self.directory.begin_attempt(command=["program"])
        except BaseException:
            self.directory.release()
            raise
        self.heartbeat = Heartbeat(
            self.directory.storage, lambda: {"state": "training"}
        )
        self.heartbeat.start()
        return report

    def save(self, step: int) -> None:
        """Commits a step, and reports."""
        tensors = {k: LazyTensor.of(v) for k, v in arrays_of(step).items()}
        with (self.spool / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
        manifest = self.directory.checkpoints.save(
            step,
            attempt=self.directory.attempt,
            tensors=tensors,
            state=state_of(step),
        )
        self.directory.publish(step=step, committed=manifest.created)

    def wait_until_durable(self, step: int) -> None:
        """Returns when the sidecar says so."""

        def is_durable() -> bool:
            report = self.sidecar.look_after()
            return report is not None and report.durable_step == step

        until(is_durable, what=f"step {step} is durable")

    def end(self) -> Report | None:
        """What a trainer does that is done."""
        self.heartbeat.stop()
        self.directory.end_attempt(exit_status=0, reason="done")
        self.directory.mark_done(
            step=self.directory.head.step, reason="done", command=["program"]
        )
        report = self.sidecar.finish(patience_secs=60)
        self.directory.release()
        return report

    def die(self) -> None:
        """The trainer is gone; its sidecar is not."""
        self.heartbeat.stop()
        self.directory.release()

    def kill_sidecar(self) -> None:
        """SIGKILL."""
        process = self.sidecar._process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """Machines; none of their processes outlives the test."""
    made: list[Machine] = []
    yield made
    for machine in made:
        for process in machine.processes():
            process.kill()
            process.wait()
        with contextlib.suppress(AttributeError):
            machine.die()


def machine(machines: list[Machine], path: Path, **settings: str) -> Machine:
    """One more."""
    machines.append(Machine(path, **settings))
    return machines[-1]


def step_there(remote: GcsStorage) -> int | None:
    """The newest step on the remote; it is whole."""
    found = CheckpointStore(remote).latest()
    if found is None:
        return None
    assert_is_whole(found, found.step)
    return found.step


def test_the_whole_life(
    server: LoopbackGcs,
    remote: GcsStorage,
    machines: list[Machine],
    tmp_path: Path,
) -> None:
    """
    Trained here, the machine is lost, gone on with there, done: the remote
    holds it all, and the second machine began where the first was durable.
    """
    first = machine(machines, tmp_path / "a")
    assert first.begin().durable_step is None
    assert first.directory.attempt == 1
    for step in (1, 2, 3):
        first.save(step)
        first.wait_until_durable(step)
        assert step_there(remote) == step
    first.heartbeat.stop()
    first.kill_sidecar()  # And with it the machine.
    second = machine(machines, tmp_path / "b")
    second.take_over()
    assert second.begin().durable_step == 3
    assert second.directory.attempt == 2
    found = second.directory.checkpoints.latest()
    assert_is_whole(found, 3)
    reports = (second.spool / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in reports] == [1, 2, 3]
    second.save(4)
    report = second.end()
    assert report is not None
    assert (report.phase, report.durable_step) == ("drained", 4)
    assert step_there(remote) == 4
    hold = Hold.from_bytes(remote.read("HEAD"))
    assert (hold.holder, hold.head.step, hold.head.attempt) == ("", 4, 2)
    for name in ("DONE", "run.json", "metrics.jsonl", "status.json"):
        assert remote.read(name) == (second.spool / name).read_bytes()
    third = machine(machines, tmp_path / "c")
    third.begin()
    assert RunDirectory(third.spool).done() is not None


def test_a_sidecar_that_dies_is_started_again(
    server: LoopbackGcs,
    remote: GcsStorage,
    machines: list[Machine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed at any time, it goes on; nothing durable is lost."""
    monkeypatch.setattr(launching, "_RESTART_SECS", 0.0)
    here = machine(machines, tmp_path / "a")
    here.begin()
    for step in (1, 2, 3):
        here.save(step)
        here.kill_sidecar()
        here.wait_until_durable(step)
    assert step_there(remote) == 3
    told = here.sidecar.look_after()
    assert told is not None
    assert "has died and was started again, 3 times" in str(told.local_problem)


def test_a_service_that_hangs_is_told(
    server: LoopbackGcs,
    machines: list[Machine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for the start is told what for, again and again."""
    monkeypatch.setattr(launching, "_WAITED_SECS", 0.2)
    server.faults.add(Fault(kind="stall", times=None))
    here = machine(machines, tmp_path / "a")
    here.sidecar.start()
    told: list[str] = []

    class EnoughError(Exception):
        pass

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        here.sidecar.wait_until_ready(lambda *_: None, tell)
    assert all(f"still waiting for {URL}, after" in text for text in told)


def test_a_sidecar_outlives_its_trainer(
    server: LoopbackGcs,
    remote: GcsStorage,
    machines: list[Machine],
    tmp_path: Path,
) -> None:
    """What was committed when the trainer died is shipped, then it ends."""
    here = machine(machines, tmp_path / "a")
    here.begin()
    here.save(1)
    here.die()
    process = here.sidecar._process
    assert process is not None
    assert process.wait(60) == 0
    assert step_there(remote) == 1
    assert Hold.from_bytes(remote.read("HEAD")).holder == ""


def test_the_network_goes_and_comes_back(
    server: LoopbackGcs,
    remote: GcsStorage,
    machines: list[Machine],
    tmp_path: Path,
) -> None:
    """It is told what is wrong and since when; then all that is due arrives."""
    here = machine(machines, tmp_path / "a")
    here.begin()
    here.save(1)
    here.wait_until_durable(1)
    server.stop()
    here.save(2)

    def told() -> bool:
        report = here.sidecar.look_after()
        return report is not None and report.problem is not None

    until(told, what="the trouble is told", patience_secs=60)
    report = here.sidecar.report()
    assert report is not None
    assert "cannot be reached" in str(report.problem)
    assert (report.durable_step, report.waiting) == (1, 1)
    server.start()
    here.wait_until_durable(2)
    assert here.sidecar.report().problem is None  # type: ignore[union-attr]
    assert step_there(remote) == 2


def test_two_machines(
    server: LoopbackGcs,
    remote: GcsStorage,
    machines: list[Machine],
    tmp_path: Path,
) -> None:
    """One that lives is not taken over; one that lost the run learns of it."""
    first = machine(machines, tmp_path / "a")
    first.begin()
    first.save(1)
    first.wait_until_durable(1)
    second = machine(machines, tmp_path / "b")
    with pytest.raises(RunHeldError, match="held by another live attempt"):
        second.begin()
    second.take_over()
    second.begin()
    second.save(2)
    second.wait_until_durable(2)
    first.save(3)

    def lost() -> bool:
        with contextlib.suppress(RunHeldError):
            first.sidecar.look_after()
            return False
        return True

    until(lost, what="the first has learnt of it")
    assert step_there(remote) == 2
    assert Head.read(remote).attempt == 2  # type: ignore[union-attr]


def test_a_copied_spool_is_another_machine(
    server: LoopbackGcs,
    remote: GcsStorage,
    machines: list[Machine],
    tmp_path: Path,
) -> None:
    """It does not get the run for having the notes of the one that has it."""
    first = machine(machines, tmp_path / "a")
    first.begin()
    first.save(1)
    first.wait_until_durable(1)
    shutil.copytree(
        tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns(".lock")
    )
    second = machine(machines, tmp_path / "b")
    with pytest.raises(RunHeldError, match="held by another live attempt"):
        second.begin()
    first.save(2)
    first.wait_until_durable(2)


def test_a_damaged_head_is_no_reason_to_take_a_live_run(
    server: LoopbackGcs,
    remote: GcsStorage,
    machines: list[Machine],
    tmp_path: Path,
) -> None:
    """Its heart beats all the same; that of a dead one does not."""
    first = machine(machines, tmp_path / "a")
    first.begin()
    first.save(1)
    first.wait_until_durable(1)
    until(lambda: remote.exists("status.json"), what="it gives signs of life")
    remote.replace("HEAD", b"garbage")
    second = machine(machines, tmp_path / "b")
    beating = threading.Event()

    def beat() -> None:
        while not beating.wait(1.0):
            write_record(remote, "status.json", {"heartbeat": time.time()})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunHeldError, match="damaged HEAD"):
            second.begin()
    finally:
        beating.set()
        thread.join()
    second.take_over()
    assert second.begin().durable_step == 1
    assert second.directory.attempt == 2


def test_another_run_s_spool(
    server: LoopbackGcs,
    remote: GcsStorage,
    machines: list[Machine],
    tmp_path: Path,
) -> None:
    """It is refused, also if all that is left there is the HEAD."""
    first = machine(machines, tmp_path / "a")
    first.begin()
    first.save(1)
    first.end()
    remote.delete("run.json")
    second = machine(machines, tmp_path / "b")
    create_record(second.directory_storage(), "run.json", {"run_id": "other"})
    with pytest.raises(StorageRefusedError, match="another run"):
        second.begin()


def test_one_that_hangs_is_told_and_started_again(
    server: LoopbackGcs,
    machines: list[Machine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sidecar that was stopped gives no sign of life; what is due goes on."""
    for name in ("_RESTART_SECS", "_SILENT_SECS"):
        monkeypatch.setattr(launching, name, 0.0)
    here = machine(machines, tmp_path / "a")
    here.begin()
    process = here.sidecar._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    here.save(1)
    told = here.sidecar.look_after()  # What it has said before.
    monkeypatch.setattr(launching, "_SILENT_SECS", 0.1)

    def problem() -> str:
        nonlocal told
        told = here.sidecar.look_after()
        return (told and told.problem) or ""

    until(lambda: "no sign of life" in problem(), what="it is told")
    assert process.poll() is None
    monkeypatch.setattr(launching, "_HUNG_SECS", 0.0)
    monkeypatch.setattr(launching, "_SILENT_SECS", 6.0)
    until(
        lambda: here.sidecar.look_after() and process.poll() is not None,
        what="it is ended",
        patience_secs=60,
    )
    here.wait_until_durable(1)


def test_an_earlier_one_that_hangs_is_not_waited_for(
    server: LoopbackGcs,
    machines: list[Machine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next attempt on this machine ends it, and gets the run."""
    first = machine(machines, tmp_path / "a")
    first.begin()
    process = first.sidecar._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    first.die()
    monkeypatch.setattr(launching, "_GIVE_WAY_SECS", 1.0)
    second = machine(machines, tmp_path / "a")
    second.begin()
    assert process.wait(10) == -signal.SIGKILL
    second.save(1)
    second.wait_until_durable(1)


@pytest.mark.parametrize(
    ("url", "kind", "text"),
    [
        ("gs://buckte/runs/a", StorageRefusedError, "no bucket 'buckte'"),
        ("gs://forbidden/runs/a", StorageRefusedError, "access is denied"),
        ("gs://bucket", UsageError, "gs://BUCKET/FOLDER"),
        ("gs://bucket/a b", UsageError, "gs://BUCKET/FOLDER"),
    ],
)
def test_what_cannot_begin_says_why(
    url: str,
    kind: type[Exception],
    text: str,
    server: LoopbackGcs,
    machines: list[Machine],
    tmp_path: Path,
) -> None:
    """One clear sentence at the start, and nothing is trained."""
    here = machine(machines, tmp_path / "a", url=url)
    with pytest.raises(kind, match=text):
        here.begin()


def test_it_is_small(
    server: LoopbackGcs, machines: list[Machine], tmp_path: Path
) -> None:
    """It loads no framework, and stands apart from the trainer's session."""
    here = machine(machines, tmp_path / "a")
    here.begin()
    assert here.sidecar._process is not None
    process = psutil.Process(here.sidecar._process.pid)
    assert os.getsid(process.pid) != os.getsid(0)
    libraries = {m.path for m in process.memory_maps() if ".so" in m.path}
    for framework in ("tensorflow", "jaxlib", "torch", "grpc"):
        assert not [path for path in libraries if f"/{framework}/" in path]
