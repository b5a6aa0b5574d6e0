"""A folder that is mounted from elsewhere, and what becomes of it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from colab_keras_bg.errors import (
    NoSpaceError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage import mounted, mounts
from colab_keras_bg.storage.mounted import MountedStorage
from colab_keras_bg.storage.mounts import is_mounted_folder, is_there
from colab_keras_bg.storage.patience import HangsError, Patience
from colab_keras_bg.storage.retrying import Backoff, RetryingStorage

MOUNTS = """\
overlay / overlay rw 0 0
proc /proc proc rw 0 0
drive /content/drive fuse.drive rw 0 0
gcsfuse /mnt/my\\040bucket fuse.gcsfuse rw 0 0
disk /mnt/disk ext4 rw 0 0
nested /mnt/disk/cloud fuse rw 0 0
over /mnt/over fuse.fuse-overlayfs rw 0 0
old /mnt/hidden fuse rw 0 0
new /mnt/hidden ext4 rw 0 0
ntfs /mnt/ntfs fuseblk rw 0 0
"""


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel says of its mounts."""
    file = tmp_path / "mounts"
    file.write_text(MOUNTS)
    monkeypatch.setattr(mounts, "_MOUNTS", file)
    monkeypatch.delenv("COLAB_KERAS_BG_MOUNTED_FOLDERS", raising=False)
    return file


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/content/drive/MyDrive/runs/a", True),
        ("/content/drive", True),
        ("/content/driveway/a", False),
        ("/content/a", False),
        ("/mnt/my bucket/a", True),
        ("/mnt/disk/a", False),
        ("/mnt/disk/cloud/a", True),
        ("/mnt/disk/cloudy", False),
        ("/mnt/over/a", False),
        ("/mnt/hidden/a", False),
        ("/mnt/ntfs/a", False),
        ("/a", False),
    ],
)
def test_which_folders_are_mounted(path: str, expected: bool) -> None:
    """The longest mount point counts, and of two at one point the later."""
    assert is_mounted_folder(Path(path)) == expected


def test_folders_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path
) -> None:
    """They are mounted if they are there; /content/drive, if it is mounted."""
    folder = tmp_path / "cloud"
    names = f"/x:{folder}"
    monkeypatch.setenv("COLAB_KERAS_BG_MOUNTED_FOLDERS", names)
    assert is_mounted_folder(folder / "runs")
    assert not is_there(folder / "runs")
    folder.mkdir()
    assert is_there(folder / "runs")
    drive = Path("/content/drive/MyDrive/a")
    assert is_there(drive)
    kernel.write_text("overlay / overlay rw 0 0\n")
    assert is_mounted_folder(drive)
    assert not is_there(drive)


class Mount:
    """A mount that can go away and come back."""

    def __init__(self, path: Path) -> None:
        self.is_there = True
        self.storage = MountedStorage(
            path, is_there=lambda: self.is_there, patience_secs=0.2
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

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.released = threading.Event()
        self.entered = 0
        real = getattr(os, name)

        def hangs(*arguments: object, **named: object) -> object:
            if threading.current_thread().name == "a call that may hang":
                self.entered += 1
                self.released.wait(30)
            return real(*arguments, **named)

        monkeypatch.setattr(mounted.os, name, hangs)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """The rename at the end of writing hangs."""
    made = Hanging(monkeypatch, "rename")
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


def test_progress_is_no_hanging() -> None:
    """However long it takes: as long as it gets on, it is waited for."""
    now = 0.0
    patience = Patience(5.0, clock=lambda: now)

    def slow() -> str:
        nonlocal now
        for _ in range(100):
            now += 4.0
            patience.beat()
        return "done"

    assert patience.call(slow) == "done"

    released = threading.Event()

    def stuck() -> None:
        nonlocal now
        now += 100.0
        released.wait(30)

    with pytest.raises(HangsError):
        patience.call(stuck)
    released.set()
    until(lambda: not patience._hanging[0].is_alive(), what="it is back")
    assert patience.call(lambda: 3) == 3


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


def test_it_says_what_it_cannot(mount: Mount) -> None:
    """Nothing there is confirmed, and nothing is compared and swapped."""
    told = mount.storage.capabilities
    assert told.survives_machine
    assert not told.confirms
    assert not told.swaps
