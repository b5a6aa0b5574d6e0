"""Which folders are mounted from elsewhere, and whether they are there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colab_keras_bg.errors import StorageRefusedError, StorageUnavailableError
from colab_keras_bg.storage import mounts
from colab_keras_bg.storage.mounted import MountedStorage
from colab_keras_bg.storage.mounts import Mount, is_mounted_folder

NAMED = "COLAB_KERAS_BG_MOUNTED_FOLDERS"
MOUNTS = """\
overlay / overlay rw 0 0
proc /proc proc rw 0 0
disk /content ext4 rw 0 0
drive /content/drive fuse.drive rw 0 0
gcsfuse /mnt/my\\040bucket fuse.gcsfuse rw 0 0
disk /mnt/disk ext4 rw 0 0
nested /mnt/disk/cloud fuse rw 0 0
over /mnt/over fuse.fuse-overlayfs rw 0 0
old /mnt/hidden fuse rw 0 0
new /mnt/hidden ext4 rw 0 0
ntfs /mnt/ntfs fuseblk rw 0 0
server /mnt/server nfs4 rw 0 0
"""


@pytest.fixture
def kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Sets what the kernel says of its mounts; for a beginning, the above."""
    file = tmp_path / "mounts"

    def says(text: str) -> None:
        file.write_text(text)

    says(MOUNTS)
    monkeypatch.setattr(mounts, "_MOUNTS", file)
    monkeypatch.delenv(NAMED, raising=False)
    return says


@pytest.mark.usefixtures("kernel")
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
        ("/mnt/server/a", False),
        ("/a", False),
        ("/", False),
    ],
)
def test_which_folders_are_mounted(path: str, expected: bool) -> None:
    """The longest mount point counts, and of two at one point the later."""
    assert is_mounted_folder(Path(path)) == expected


def test_a_root_by_fuse_is_a_disk(kernel: Callable[[str], None]) -> None:
    """What all lies on is not from elsewhere."""
    kernel("root / fuse.root rw 0 0\n")
    assert not is_mounted_folder(Path("/home/me/run"))


def test_links_that_lead_to_a_mount(
    tmp_path: Path,
    kernel: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are followed up to the mount, and what lies on it is not touched."""
    drive = tmp_path / "drive"
    drive.mkdir()
    kernel(f"overlay / overlay rw 0 0\ndrive {drive} fuse rw 0 0\n")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "up").symlink_to("../drive/MyDrive")
    (tmp_path / "link").symlink_to(tmp_path / "here" / "up")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    touched: list[str] = []
    real = os.readlink

    def reads(path: Path) -> str:
        touched.append(str(path))
        return real(path)

    monkeypatch.setattr(os, "readlink", reads)
    assert is_mounted_folder(tmp_path / "link" / "runs" / "a")
    assert Mount(tmp_path / "link" / "runs").is_there()
    assert not is_mounted_folder(tmp_path / "here" / "runs")
    assert not is_mounted_folder(tmp_path / "round" / "runs")
    assert touched
    assert not [path for path in touched if path.startswith(str(drive))]


def test_what_is_unmounted_is_not_there(kernel: Callable[[str], None]) -> None:
    """The disk below Colab's folder is not taken for it; a server's may be."""
    drive, server = Mount(Path("/content/drive/MyDrive/a")), Path("/mnt/server")
    assert drive.is_there()
    assert Mount(server / "a").is_there()
    assert not Mount(Path("/mnt/disk/a")).is_there()
    kernel("overlay / overlay rw 0 0\nserver /content nfs rw 0 0\n")
    assert is_mounted_folder(Path("/content/drive/MyDrive/a"))
    assert not drive.is_there()
    assert not Mount(server / "a").is_there()
    kernel(MOUNTS)
    assert drive.is_there()


def test_folders_that_the_environment_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel: Callable[[str], None],
) -> None:
    """
    They are there if they are folders; and one that was seen on a mount, if
    it still is, or again.
    """
    folder = tmp_path / "cloud"
    monkeypatch.setenv(NAMED, f"/x:{folder}")
    assert is_mounted_folder(folder / "runs")
    mount = Mount(folder / "runs")
    assert not mount.is_there()
    folder.write_bytes(b"")
    assert not mount.is_there()
    folder.unlink()
    folder.mkdir()
    assert mount.is_there()
    kernel(f"overlay / overlay rw 0 0\nx {folder} ext4 rw 0 0\n")
    assert mount.is_there()
    kernel("overlay / overlay rw 0 0\n")
    assert not mount.is_there()
    kernel(f"overlay / overlay rw 0 0\nx {folder} ext4 rw 0 0\n")
    assert mount.is_there()


class SilentMount:
    """A real mount by FUSE, behind which nobody ever answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._device: int | None = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0"
        if self._libc.mount(
            b"drive", bytes(path), b"fuse.drive", 0, options.encode()
        ):
            self.die()
            raise OSError(ctypes.get_errno(), "mount")

    def die(self) -> None:
        """Ends who should have answered."""
        if self._device is not None:
            os.close(self._device)
        self._device = None

    def unmount(self) -> None:
        """Leaves the bare folder."""
        self._libc.umount2(bytes(self.path), 2)  # MNT_DETACH


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[SilentMount]:
    """One, where such a thing can be had."""
    try:
        mount = SilentMount(tmp_path / "drive")
    except OSError as error:
        pytest.skip(f"nothing can be mounted by FUSE here: {error}")
    yield mount
    mount.die()
    mount.unmount()


def test_a_real_mount_that_hangs_and_dies(silent: SilentMount) -> None:
    """Nobody hangs with it, and it is never taken for an empty folder."""
    place = silent.path / "runs"
    assert is_mounted_folder(place)
    storage = MountedStorage(place, patience_secs=0.2)
    for _ in range(2):
        with pytest.raises(StorageUnavailableError, match="the mount hangs"):
            list(storage.list())
    assert is_mounted_folder(place)
    silent.die()
    again = MountedStorage(place, patience_secs=30)
    for call in (
        lambda: list(again.list()),
        lambda: again.exists("a"),
        lambda: again.create("a", [b"1"]),
    ):
        with pytest.raises(StorageRefusedError, match="the mount is dead"):
            call()
    silent.unmount()
    with pytest.raises(StorageRefusedError, match="nothing is mounted there"):
        again.create("a", [b"1"])
    assert list(silent.path.iterdir()) == []
