"""A folder that is mounted from elsewhere, and what becomes of it."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from waiting import until

from colab_keras_bg.errors import (
    NoSpaceError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage import mounted
from colab_keras_bg.storage.mounted import MountedStorage
from colab_keras_bg.storage.pace import Pace
from colab_keras_bg.storage.retrying import Backoff, RetryingStorage


class Mount:
    """A mount that can go away and come back."""

    def __init__(self, path: Path) -> None:
        self.is_there = True
        self.storage = MountedStorage(
            path, is_there=lambda: self.is_there, patience_secs=30.0
        )


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    """One with an object on it."""
    made = Mount(tmp_path / "drive" / "runs")
    made.storage.create("a/b", [b"123"])
    return made


def test_what_is_not_mounted_is_not_empty(mount: Mount) -> None:
    """No call takes the bare folder for the storage, nor writes to it."""
    mount.is_there = False
    storage = mount.storage
    for call in (
        lambda: list(storage.list()),
        lambda: storage.exists("a/b"),
        lambda: storage.read("a/b"),
        lambda: storage.create("c", [b"1"]),
        lambda: storage.replace("c", b"1"),
        lambda: storage.delete("a/b"),
    ):
        with pytest.raises(StorageRefusedError, match="nothing is mounted"):
            call()
    mount.is_there = True
    assert [info.name for info in storage.list()] == ["a/b"]


def test_one_that_goes_while_we_look(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen of it is not believed."""
    real = os.scandir

    def goes(path: object = ".") -> object:
        mount.is_there = False
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", goes)
    with pytest.raises(StorageRefusedError, match="Mount it"):
        list(mount.storage.list())


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOTCONN, StorageRefusedError, "the mount is dead"),
        (errno.ESTALE, StorageRefusedError, "Mount it again"),
        (errno.EIO, StorageUnavailableError, "quota for today"),
        (errno.EDQUOT, NoSpaceError, "No space left"),
        (errno.ENOSPC, NoSpaceError, "No space left"),
        (errno.EACCES, StorageError, "Permission denied"),
    ],
)
def test_what_a_mount_answers(
    mount: Mount,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[Exception],
    words: str,
) -> None:
    """Each with what it means, and what to do; nothing half written stays."""
    real = os.write

    def fails(handle: int, data: bytes) -> int:
        if data == b"9":
            raise OSError(number, os.strerror(number))
        return real(handle, data)

    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(kind, match=words):
        mount.storage.create("c", [b"8", b"9"])
    monkeypatch.undo()
    names = [p.name for p in Path(mount.storage.describe()).rglob("*")]
    assert sorted(names) == ["a", "b"]


class Hanging:
    """Has a call of `os` hang until it is released."""

    def __init__(
        self,
        storage: MountedStorage,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        self.released = threading.Event()
        self.entered = 0
        real = getattr(os, name)
        storage._patience.secs = 0.5

        def hangs(*arguments: object, **named: object) -> object:
            if threading.current_thread().name == "a call that may hang":
                self.entered += 1
                self.released.wait(30)
            return real(*arguments, **named)

        monkeypatch.setattr(mounted.os, name, hangs)


@pytest.fixture
def hanging(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """The rename at the end of writing hangs."""
    made = Hanging(mount.storage, monkeypatch, "rename")
    yield made
    made.released.set()


def test_a_call_that_hangs(mount: Mount, hanging: Hanging) -> None:
    """
    The caller gets an error in time; nothing new is begun before it has come
    back; and then all goes on, with what it has done late.
    """
    storage = mount.storage
    for _ in range(3):
        with pytest.raises(StorageUnavailableError, match="the mount hangs"):
            storage.create("c", [b"1"])
    assert hanging.entered == 1
    with pytest.raises(StorageUnavailableError, match="the mount hangs"):
        storage.read("a/b")
    hanging.released.set()
    until(lambda: readable(storage), what="it answers again")
    assert storage.read("c") == b"1"


def readable(storage: MountedStorage) -> bool:
    """Whether it answers."""
    try:
        return storage.exists("a/b")
    except StorageUnavailableError:
        return False


def test_a_late_success_is_known_again(mount: Mount, hanging: Hanging) -> None:
    """A second try of the same finds it, and that is success."""
    retrying = RetryingStorage(
        mount.storage,
        backoff=Backoff(0.01, 0.01, 30.0),
        sleep=lambda _: hanging.released.set(),
    )
    assert retrying.create("c", [b"1"]).size_bytes == 1
    assert mount.storage.read("c") == b"1"


def test_what_is_deleted_is_emptied_under_no_objects_name(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it dies: the object is whole or gone."""
    seen: list[tuple[str, int]] = []
    real = os.truncate

    def empties(path: Path, size: int) -> None:
        seen.append((Path(path).name, size))
        real(path, size)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "truncate", empties)
    with pytest.raises(KeyboardInterrupt):
        mount.storage.delete("a/b")
    monkeypatch.undo()
    assert [size for _, size in seen] == [0]
    assert seen[0][0].startswith(".b.")
    assert not mount.storage.exists("a/b")
    assert list(mount.storage.list()) == []
    assert mount.storage.sweep("a")
    assert not (Path(mount.storage.describe()) / "a").exists()


def test_slow_chunks_are_not_a_mount_that_hangs(tmp_path: Path) -> None:
    """Neither are those that somebody else holds back for the bandwidth."""
    now = 0.0

    def passes(_: float) -> None:
        nonlocal now
        now += 100.0
        threading.Event().wait(0.35)  # Long enough to be looked at.

    storage = MountedStorage(
        tmp_path,
        is_there=lambda: True,
        patience_secs=5.0,
        pace=Pace(1.0, clock=lambda: 0.0, sleep=passes),
    )
    storage._patience._clock = lambda: now

    def chunks() -> Iterator[bytes]:
        yield b"1"
        passes(0)
        yield b"2"

    assert storage.create("a", chunks()).size_bytes == 2
    assert storage.read("a") == b"12"


def test_what_is_given_up_is_not_finished_with_other_bytes(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was told of a failure may use the memory again."""
    hanging = Hanging(mount.storage, monkeypatch, "write")
    buffer = bytearray(b"old")
    asked: list[int] = []

    def chunks() -> Iterator[memoryview]:
        for number in range(9):
            asked.append(number)
            yield memoryview(buffer)

    with pytest.raises(StorageUnavailableError, match="hangs"):
        mount.storage.create("c", chunks())
    buffer[:] = b"new"
    hanging.released.set()
    until(lambda: readable(mount.storage), what="it answers again")
    assert not mount.storage.exists("c")
    assert asked == [0]
    names = [p.name for p in Path(mount.storage.describe()).iterdir()]
    assert names == ["a"]


@pytest.mark.parametrize("name", ["fsync", "close"])
def test_what_is_given_up_before_its_end_does_not_come(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where it can still be helped: what hung was not the last step."""
    hanging = Hanging(mount.storage, monkeypatch, name)
    with pytest.raises(StorageUnavailableError, match="hangs"):
        mount.storage.replace("a/b", b"new")
    hanging.released.set()
    until(lambda: readable(mount.storage), what="it answers again")
    hanging = Hanging(mount.storage, monkeypatch, name)
    with pytest.raises(StorageUnavailableError, match="hangs"):
        mount.storage.create("c", [b"1"])
    hanging.released.set()
    until(lambda: readable(mount.storage), what="it answers again")
    assert mount.storage.read("a/b") == b"123"
    assert not mount.storage.exists("c")


def test_what_cannot_be_looked_at_is_not_written_over(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of which the mount cannot tell is not taken to be free."""
    real, asked = os.lstat, []

    def fails(path: str | Path) -> os.stat_result:
        if Path(path).name == "b":
            asked.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    monkeypatch.setattr(os, "lstat", fails)
    with pytest.raises(StorageUnavailableError, match="input/output"):
        mount.storage.create("a/b", [b"other"])
    monkeypatch.undo()
    assert asked
    assert mount.storage.read("a/b") == b"123"


def test_of_the_threads_of_one_process_one_creates(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late each looks, and without hard links."""
    together = threading.Barrier(8)
    real = os.fsync

    def late(handle: int) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.1)
        real(handle)

    monkeypatch.setattr(os, "fsync", late)
    slow = os.rename

    def renames(source: Path, target: Path) -> None:
        threading.Event().wait(0.01)
        slow(source, target)

    monkeypatch.setattr(os, "rename", renames)

    def create(number: int) -> bool:
        try:
            mount.storage.create("c", [b"%d" % number])
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert created.count(True) == 1
    assert mount.storage.read("c") == b"%d" % created.index(True)


READS = {
    "read": lambda storage: storage.read("a/b"),
    "range": lambda storage: storage.read_range("a/b", 0, 3),
    "map": lambda storage: bytes(storage.map("a/b")),
}


@pytest.mark.parametrize("reads", READS)
def test_deleted_while_it_is_read(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    """Whose file is emptied meanwhile reads no empty object."""
    other = MountedStorage(mount.storage.describe(), is_there=lambda: True)
    once(monkeypatch, "pread", lambda: other.delete("a/b"))
    with pytest.raises(ObjectNotFoundError):
        READS[reads](mount.storage)


@pytest.mark.parametrize("reads", READS)
def test_deleted_and_made_anew_while_it_is_read(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    """Then the new one is read."""
    other = MountedStorage(mount.storage.describe(), is_there=lambda: True)

    def anew() -> None:
        other.delete("a/b")
        other.create("a/b", [b"456"])

    once(monkeypatch, "pread", anew)
    assert READS[reads](mount.storage) == b"456"


def test_progress_is_no_hanging(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large object may take as long as it does, if it gets on."""
    now = 0.0
    mount.storage._patience._clock = lambda: now
    mount.storage._patience.secs = 0.2
    monkeypatch.setattr(mounted, "_BLOCK_BYTES", 10)

    def slowly(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            nonlocal now
            now += 0.15  # Of 0.2 that are allowed.
            threading.Event().wait(0.05)
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    slowly("write")
    slowly("pread")
    content = b"0123456789" * 10
    assert mount.storage.create("c", [content]).size_bytes == 100
    assert mount.storage.read("c") == content


def test_replaced_while_it_is_read(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large object, too, is the old one or the new, whole."""
    other = MountedStorage(mount.storage.describe(), is_there=lambda: True)
    size = 3 * mounted._BLOCK_BYTES
    other.replace("c", b"1" * size)
    once(
        monkeypatch,
        "pread",
        lambda: other.replace("c", b"2" * size),
        number=2,
    )
    assert mount.storage.read("c") in (b"1" * size, b"2" * size)
    once(monkeypatch, "pread", lambda: other.replace("c", b"3"))
    assert mount.storage.read("c") == b"3"


def test_one_that_gives_less_than_it_was_asked_for(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for the rest."""
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda h, n, at: real(h, min(n, 1), at))
    assert mount.storage.read("a/b") == b"123"
    assert mount.storage.read_range("a/b", 1, 2) == b"23"
    assert mount.storage.read_range("a/b", 1, 9) == b"23"


def once(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    what: Callable[[], object],
    *,
    number: int = 1,
) -> None:
    """Has something happen right before a call of `os`."""
    real, calls = getattr(os, name), 0

    def call(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            what()
        return real(*arguments)

    monkeypatch.setattr(os, name, call)


def test_an_error_is_not_its_own_cause(mount: Mount) -> None:
    """What needs no other words is raised as it is."""
    with pytest.raises(ObjectNotFoundError) as caught:
        mount.storage.read("x")
    assert caught.value.__cause__ is None


def test_it_says_what_it_cannot(mount: Mount) -> None:
    """Nothing there is confirmed, and nothing is compared and swapped."""
    told = mount.storage.capabilities
    assert told.survives_machine
    assert not told.confirms
    assert not told.swaps
