"""What a sidecar does on its own machine, and how it ends there."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from waiting import until

from colab_keras_bg.errors import StorageUnavailableError, UsageError
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.journal.machine import Machine, Memory
from colab_keras_bg.journal.raw_console import RawConsole, raw_consoles
from colab_keras_bg.journal.resources import read_resources
from colab_keras_bg.sidecar import duties as duties_module
from colab_keras_bg.sidecar import exchange, launching
from colab_keras_bg.sidecar.attending import Trainer, Word
from colab_keras_bg.sidecar.duties import Duties, duties_of
from colab_keras_bg.sidecar.exchange import Orders, Report
from colab_keras_bg.sidecar.launching import LaunchedSidecar
from colab_keras_bg.sidecar.pumping import Pumping
from colab_keras_bg.sidecar.sampling import Sampling
from colab_keras_bg.sidecar.watch_options import WatchOptions
from colab_keras_bg.sidecar.watching import LocalSidecar
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.storage.records import write_record


class Counting:
    """A duty that counts, and fails at will."""

    interval_secs = 0.0
    warnings = ("it will rain. Take an umbrella.",)

    def __init__(self) -> None:
        self.done = self.finished = 0
        self.error: Exception | None = None

    def do(self) -> None:
        self.done += 1
        if self.error is not None:
            raise self.error

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Duties are done as fast as can be."""
    monkeypatch.setattr(duties_module, "_POLL_SECS", 0.001)


@pytest.mark.parametrize("kind", [OSError, ValueError, KeyError])
def test_one_that_fails_is_told_and_tried_again(
    kind: type[Exception],
) -> None:
    """
    What goes wrong with one duty is told until it is over, and keeps none of
    the others from being done.
    """
    failing, other = Counting(), Counting()
    failing.error = kind("no space")
    duties = Duties([failing, other])
    duties.start()
    until(lambda: "no space" in (duties.problem or ""), what="it is told")
    before = other.done
    until(lambda: other.done > before, what="the other is done")
    failing.error = None
    until(lambda: duties.problem is None, what="it is over")
    duties.finish()
    duties.finish()
    assert (1, 1) == (failing.finished, other.finished)
    assert Counting.warnings * 2 == duties.warnings


def test_each_at_its_time() -> None:
    """
    A duty is done when its time has come, and no sooner.
    """
    now = [0.0]
    rare, often = Counting(), Counting()
    rare.interval_secs = 100.0
    duties = Duties([rare, often], clock=lambda: now[0])
    duties.start()
    until(lambda: often.done > 5, what="the other is done")
    assert 1 == rare.done
    now[0] = 101.0
    until(lambda: rare.done > 1, what="it is done again")
    duties.finish()
    assert 2 == rare.done


def test_raw_output_stays_for_who_is_at_work(tmp_path: Path) -> None:
    """
    What a process still writes to is not removed from under it.
    """
    raw = RawConsole.of(tmp_path, 1)
    os.close(raw.open())
    raw.path.write_bytes(b"one\ntwo")
    pumping = Pumping(tmp_path, limit_bytes=10**6)
    lock = DirectoryLock.acquire(tmp_path, holder="the test")
    pumping.finish()
    assert [raw] == raw_consoles(tmp_path)
    lock.release()
    pumping.finish()
    assert [] == raw_consoles(tmp_path)


class Filling(Machine):
    """A machine whose memory fills up."""

    used_bytes = 8 * 10**9

    def memory(self) -> Memory:
        self.used_bytes += 10**8
        return Memory(self.used_bytes, 16 * 10**9)


def test_what_will_run_out_is_told(tmp_path: Path) -> None:
    """
    A duty that samples warns of what its looks show.
    """
    moments = itertools.count(1000, 10)
    sampling = Sampling(
        tmp_path,
        interval_secs=10.0,
        machine=Filling(),
        clock=lambda: float(next(moments)),
    )
    write_record(
        LocalStorage(tmp_path), STATUS, {"attempt": 1, "pid": os.getpid()}
    )
    duties = Duties([sampling])
    assert () == duties.warnings
    for _ in range(10):
        sampling.do()
    (warning,) = duties.warnings
    assert "out of memory in about" in warning
    looks = len(list(read_resources(LocalStorage(tmp_path), 1)))
    sampling.finish()  # A last look.
    assert looks + 1 == len(list(read_resources(LocalStorage(tmp_path), 1)))


class Telling:
    """Is told how a sidecar is doing."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self) -> None:
        self.said.append("start")

    def tell(self, *, phase: str) -> None:
        self.said.append(phase)

    def stop(self) -> None:
        self.said.append("stop")


def test_a_disk_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whether the trainer lives cannot be told now: it waits until it can be.
    What ends it otherwise still stops what it has begun.
    """
    words = iter([StorageUnavailableError("EIO"), Word.FINISH, KeyError("bug")])

    def word(self: Trainer) -> Word:
        said = next(words)
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(Trainer, "word", word)
    telling = Telling()
    sidecar = LocalSidecar(
        tmp_path,
        telling,  # type: ignore[arg-type]
        drain=lambda: telling.said.append("drain"),
        sleep=lambda secs: None,
    )
    sidecar.run()
    assert ["start", "watching", "drain", "drained", "stop"] == telling.said
    with pytest.raises(KeyError, match="bug"):
        sidecar.run()
    assert "stop" == telling.said[-1]


def test_what_is_asked_for(tmp_path: Path) -> None:
    """
    Orders say which duties there are.
    """
    assert () == duties_of(tmp_path, Orders()).warnings
    duties = duties_of(tmp_path, Orders(console_bytes=10**6))
    assert 1 == len(duties._duties)
    duties = duties_of(
        tmp_path, Orders(console_bytes=10**6, resources_secs=10.0)
    )
    assert 2 == len(duties._duties)


def test_sampling_belongs_to_who_is_at_work(tmp_path: Path) -> None:
    """
    A line is written for the attempt whose process lives, and none after.
    """
    storage = LocalStorage(tmp_path)
    sampling = Sampling(tmp_path, interval_secs=1.0)
    sampling.do()  # Nothing has begun.
    write_record(storage, STATUS, {"attempt": 3, "pid": os.getpid()})
    sampling.do()
    sampling.do()
    write_record(storage, STATUS, {"attempt": 4, "pid": 2**22 + 7})
    sampling.finish()
    assert 2 == len(list(read_resources(storage, 3)))
    assert [] == list(read_resources(storage, 4))
    (tmp_path / STATUS).write_text("damaged")
    sampling.do()


class Local:
    """A run on this disk with a sidecar process."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self.lock = DirectoryLock.acquire(path, holder="the test")
        self.sidecar = LaunchedSidecar(
            path,
            url="",
            keep={"keep_last": 2},
            watch=WatchOptions(
                console_bytes=10**6, resources_secs=1.0, report_secs=0.0
            ),
        )
        self.sidecar.start()
        self.raw = RawConsole.of(path, 1)
        self.handle = self.raw.open()
        until(
            lambda: (self.sidecar.report() or Report()).phase == "watching",
            what="it is at work",
        )

    def print(self, text: bytes) -> None:
        os.write(self.handle, text)

    def log(self) -> bytes:
        try:
            return (self.path / "attempts/0001/console.log").read_bytes()
        except FileNotFoundError:
            return b""


def test_local_run(tmp_path: Path) -> None:
    """
    A run on this disk has a sidecar that stores what is printed, needs no
    storage client, and ends when it is told to.
    """
    local = Local(tmp_path / "run")
    local.print(b"printed\n")
    until(lambda: b"Z printed\n" in local.log(), what="it is stored")
    process = local.sidecar._process
    assert process is not None
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "grpc" not in maps
    assert psutil.Process(process.pid).memory_info().rss < 50e6
    local.print(b"no end")
    found = local.sidecar.finish(patience_secs=30)
    assert found is not None
    assert "drained" == found.phase
    assert local.log().endswith(b"Z no end\n")
    assert 0 == process.wait(30)
    os.close(local.handle)
    local.lock.release()


def test_it_outlives_who_is_killed(tmp_path: Path) -> None:
    """
    When nobody holds the run any more, what was printed is stored, the raw
    file is removed, and the sidecar ends.
    """
    local = Local(tmp_path / "run")
    local.print(b"the last words")
    os.close(local.handle)
    local.lock.release()
    process = local.sidecar._process
    assert process is not None
    assert 0 == process.wait(30)
    assert local.log().endswith(b"Z the last words\n")
    assert [] == raw_consoles(local.path)


def test_one_that_is_killed_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Nothing is lost when it is killed; that it was is told.
    """
    monkeypatch.setattr(launching, "_RESTART_SECS", 0.0)
    local = Local(tmp_path / "run")
    local.print(b"one\n")
    process = local.sidecar._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    local.print(b"two\n")

    def told() -> str:
        found = local.sidecar.look_after()
        return (found and found.local_problem) or ""

    until(lambda: "has died" in told(), what="it is told")
    local.sidecar.finish(patience_secs=30)
    texts = [line[25:] for line in local.log().splitlines()]
    assert [b"one", b"two"] == texts
    os.close(local.handle)
    local.lock.release()


def test_killed_right_before_the_end(tmp_path: Path) -> None:
    """
    One that is dead when the end is to be waited for is started once more, at
    once.
    """
    local = Local(tmp_path / "run")
    process = local.sidecar._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    local.print(b"late\n")
    begun = time.monotonic()
    found = local.sidecar.finish(patience_secs=60)
    assert found is not None
    assert "drained" == found.phase
    assert time.monotonic() - begun < 30
    assert local.log().endswith(b"Z late\n")
    os.close(local.handle)
    local.lock.release()


def test_it_ends_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One that has ended because nothing was left is not started again, however
    long it had run.
    """
    local = Local(tmp_path / "run")
    monkeypatch.setattr(launching, "_RESTART_SECS", 0.0)
    local.sidecar.finish(patience_secs=30)
    process = local.sidecar._process
    local.sidecar.look_after()
    assert local.sidecar._process is process
    assert 0 == exchange.read(local.path, Orders).deaths  # type: ignore[union-attr]
    os.close(local.handle)
    local.lock.release()


def test_options_as_they_are_written() -> None:
    """
    Sizes and times have units; each can be turned off.
    """
    assert WatchOptions() == WatchOptions.of()
    assert WatchOptions() == WatchOptions.of(
        console=True, resources=True, report=True
    )
    found = WatchOptions.of(console="1.5GB", resources="30s", report="off")
    assert WatchOptions(1_500_000_000, 30.0, 0.0) == found
    for off in (None, False, "off"):
        found = WatchOptions.of(console=off, resources=off, report=off)
        assert not found.wanted
        assert WatchOptions(0, 0.0, 0.0) == found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"console": "much"}, "console='much' cannot be meant: give how much"),
        ({"console": "1kB"}, "100kB or more"),
        ({"resources": "0.1s"}, "resources='0.1s' cannot be meant"),
        ({"report": "1s"}, "10 s or more"),
        ({"report": "often"}, "report='often' cannot be meant"),
    ],
)
def test_options_that_cannot_be_meant(
    options: dict[str, str], words: str
) -> None:
    """
    They are refused, with what to give.
    """
    with pytest.raises(UsageError, match=words):
        WatchOptions.of(**options)  # type: ignore[arg-type]
