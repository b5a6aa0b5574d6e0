"""The files of a run that grow, at the far end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from colab_keras_bg.journal.console_log import ConsoleLog
from colab_keras_bg.journal.event_files import EventFolder, cut_back
from colab_keras_bg.journal.event_records import records
from colab_keras_bg.journal.summaries import scalars
from colab_keras_bg.sidecar import appending
from colab_keras_bg.sidecar.fetching import Fetcher
from colab_keras_bg.sidecar.growing import ATTEMPTS, GrowingFiles
from colab_keras_bg.storage import MemoryStorage
from colab_keras_bg.storage.local import LocalStorage

RUN = "a run"


class Counting(MemoryStorage):
    """Counts what it was sent and asked, from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_bytes = self.asked = 0
        self._within = False

    def append(self, name: str, content: bytes, *, at: int) -> Any:
        self.sent_bytes += len(content)
        self._within = True  # It may do it by other calls.
        try:
            return super().append(name, content, at=at)
        finally:
            self._within = False

    def replace(self, name: str, content: bytes) -> Any:
        self.sent_bytes += 0 if self._within else len(content)
        return super().replace(name, content)

    def list(self, prefix: str = "") -> Any:
        self.asked += not self._within
        return super().list(prefix)

    def info(self, name: str) -> Any:
        self.asked += not self._within
        return super().info(name)


class Machine:
    """A spool with event files, and what ships them."""

    def __init__(self, spool: Path, remote: Any, *, began: float = 1e9) -> None:
        self.spool = spool
        self.remote = remote
        self.folder = EventFolder(
            spool / "tensorboard/train",
            run_id=RUN,
            most_bytes=2000,
            clock=lambda: began,
        )
        self.growing = GrowingFiles(LocalStorage(spool), remote)

    def write(self, *steps: int) -> None:
        for step in steps:
            self.folder.add(
                scalars({"loss": step}), step=step, run_step=step, wall_time=1
            )
        self.folder.flush()

    def files(self) -> dict[str, bytes]:
        """What lies in the spool."""
        return {
            path.relative_to(self.spool).as_posix(): path.read_bytes()
            for path in self.spool.rglob("*.tfevents.*")
        }

    def shipped(self) -> dict[str, bytes]:
        """What lies at the far end."""
        return {
            info.name: self.remote.read(info.name)
            for info in self.remote.list("tensorboard/")
        }


def steps_of(files: dict[str, bytes]) -> list[int]:
    """The steps of the run at which something was written, in order."""
    return [
        record.run_step
        for name in sorted(files)
        for record in records(files[name])
        if record.run_step is not None
    ]


def test_each_byte_is_sent_once(tmp_path: Path) -> None:
    """
    However long a run is and however often it is looked at, each byte is sent
    once, and no more is asked for more files.
    """
    machine = Machine(tmp_path, Counting())
    for step in range(1, 400):
        machine.write(step)
        machine.growing.ship()
    files = machine.files()
    assert len(files) > 10
    assert files == machine.shipped()
    assert sum(map(len, files.values())) == machine.remote.sent_bytes
    assert 2 == machine.remote.asked  # Of which one was ours, just now.


def test_only_whole_records(tmp_path: Path) -> None:
    """What is being written waits for its end."""
    machine = Machine(tmp_path, Counting())
    machine.write(1, 2)
    machine.growing.ship()
    whole = machine.shipped()
    (path,) = tmp_path.rglob("*.tfevents.*")
    before = path.read_bytes()
    machine.write(3)
    after = path.read_bytes()
    for end in range(len(before) + 1, len(after)):
        path.write_bytes(after[:end])
        machine.growing.ship()
        assert whole == machine.shipped()
    path.write_bytes(after)
    machine.growing.ship()
    assert machine.files() == machine.shipped()


def test_closed_files_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has not changed for seconds is not read again."""
    machine = Machine(tmp_path, Counting())
    machine.write(*range(1, 100))
    for path in tmp_path.rglob("*.tfevents.*"):
        os.utime(path, (1, 1))
    machine.growing.ship()
    read = []
    monkeypatch.setattr(appending, "_crc32c_of", lambda *_: read.append(1))
    assert not machine.growing.ship()
    assert read == []


def test_what_was_cut_back_is_put_anew(tmp_path: Path) -> None:
    """
    Cut back to a step and written on, by this sidecar or the next, it is at
    the far end what it is here; and little is sent again.
    """
    machine = Machine(tmp_path, Counting())
    machine.write(*range(1, 100))
    machine.growing.ship()
    sent = machine.remote.sent_bytes
    for anew in (False, True):
        machine.folder.begin_anew()
        assert cut_back(tmp_path, 90, run_id=RUN)
        if anew:
            machine.growing = GrowingFiles(
                LocalStorage(tmp_path), machine.remote
            )
        machine.write(*range(91, 95))
        machine.growing.ship()
        assert machine.files() == machine.shipped()
    assert machine.remote.sent_bytes - sent < 3 * 2000


def test_all_else_is_shipped_too(tmp_path: Path) -> None:
    """
    Tables, profiles and configurations are shipped, also when they are
    rewritten; what is no whole file under a name of ours is not.
    """
    remote = Counting()
    growing = GrowingFiles(LocalStorage(tmp_path), remote)
    root = tmp_path / "tensorboard"
    (root / "plugins/profile").mkdir(parents=True)
    (root / "plugins/profile/host.xplane.pb").write_bytes(bytes(10))
    (root / "projector_config.pbtxt").write_text("embeddings {}")
    (root / ".half.tmp").write_text("no")
    (root / "white space").write_text("no")
    (root / "link").symlink_to(tmp_path)
    (root / "dangling").symlink_to("nowhere")
    growing.ship()
    (root / "projector_config.pbtxt").write_text("embeddings { }")
    growing.ship()
    assert {
        "tensorboard/plugins/profile/host.xplane.pb",
        "tensorboard/projector_config.pbtxt",
    } == {info.name for info in remote.list()}
    content = remote.read("tensorboard/projector_config.pbtxt")
    assert b"embeddings { }" == content


@pytest.mark.parametrize("step", [None, 0, 37, 90, 99])
def test_an_empty_machine_goes_on(step: int | None, tmp_path: Path) -> None:
    """
    A machine with an empty spool fetches what it may have to cut back and no
    more; when it has gone on, the far end has each step once.
    """
    first = Machine(tmp_path / "first", Counting())
    first.write(*range(1, 100))
    first.growing.ship()
    second = Machine(tmp_path / "second", first.remote)
    fetcher = Fetcher(first.remote, LocalStorage(second.spool))
    fetcher.events("tensorboard", step=step)
    fetched = second.files()
    assert fetched.items() <= first.files().items()
    if step is None:
        assert fetched == first.files()
        return
    if step:
        assert steps_of(fetched)[0] <= step
    assert len(fetched) <= (99 - step) // 15 + 2
    cut_back(second.spool, step, run_id=RUN)
    second.write(*range(step + 1, 120))
    second.growing.ship()
    steps = [*dict.fromkeys(steps_of(second.shipped()))]
    assert [*range(1, 120)] == steps


def test_what_another_attempt_left_goes(tmp_path: Path) -> None:
    """
    A spool from before another machine went on has event files that the far
    end does not have, or no longer so: they go.
    """
    first = Machine(tmp_path / "first", Counting())
    first.write(*range(1, 100))
    first.growing.ship()
    second = Machine(tmp_path / "second", first.remote, began=2e9)
    second.write(*range(1, 50))
    second.spool.joinpath("tensorboard/old.tsv").write_text("old")
    fetcher = Fetcher(first.remote, LocalStorage(second.spool))
    fetcher.events("tensorboard", step=99)
    assert second.files().items() <= first.files().items()
    assert not (second.spool / "tensorboard/old.tsv").exists()


def test_consoles(tmp_path: Path) -> None:
    """
    Consoles are shipped in whole lines; what was dropped of one here is
    dropped there, by whoever ships it then, and no other attempt's.
    """
    remote = Counting()
    remote.replace("attempts/0001/console.log", b"other\n")
    remote.replace("attempts/0001/console-000000000000007.log", b"machine\n")
    spool = LocalStorage(tmp_path)
    log = ConsoleLog(tmp_path, 2, limit_bytes=16_000)

    def ship() -> None:
        GrowingFiles(spool, remote, rules=ATTEMPTS).ship()

    for number in range(1000):
        log.append(b"line %d\n" % number, when=1e9)
        if number % 100 == 0:
            ship()
    path = tmp_path / "attempts/0002"
    newest = sorted(path.iterdir())[-1]
    newest.write_bytes(newest.read_bytes() + b"half a li")
    ship()
    there = {
        one.name.rpartition("/")[2]: remote.read(one.name)
        for one in remote.list("attempts/0002/")
    }
    here = {one.name: one.read_bytes() for one in path.iterdir()}
    here[newest.name] = here[newest.name].removesuffix(b"half a li")
    assert {k: v for k, v in here.items() if v} == there
    assert 2 == len(list(remote.list("attempts/0001/")))
    assert 9 <= len(there) <= 10
