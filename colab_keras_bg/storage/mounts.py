"""Which folders are mounted from elsewhere.

Invariant: only what the kernel says of its mounts is read, and symbolic links
on this machine's disks; nothing that lies on a mount is touched to tell that
it does, so that one that hangs hangs nobody who asks.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

__all__ = ["Mount", "is_mounted_folder"]

# Folders that are to be treated so besides, joined by `:`.
_NAMED = "COLAB_KERAS_BG_MOUNTED_FOLDERS"
_MOUNTS = Path("/proc/self/mounts")
# Where Colab mounts Google Drive.
_COLAB = Path("/content/drive")
_ROOT = Path("/")
_OCTAL = re.compile(r"\\([0-7]{3})")
# Local disks, though by way of FUSE.
_LOCAL = frozenset({"fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.snapfuse"})
# Far away without FUSE. They confirm what they have written, and are treated
# as a mount only where somebody says so.
_NETWORK = frozenset({"9p", "afs", "ceph", "cifs", "lustre", "nfs", "nfs4"})
_NETWORK |= {"glusterfs", "smb3", "smbfs", "virtiofs"}
_MOST_LINKS = 40  # As the kernel.


class _Point(NamedTuple):
    """A mount point, and the kind of file system there."""

    path: Path
    kind: str

    @property
    def is_fuse(self) -> bool:
        """Whether a program of somebody else's answers there."""
        if self.path == _ROOT or self.kind in _LOCAL:
            return False
        return self.kind == "fuse" or self.kind.startswith("fuse.")

    @property
    def is_far(self) -> bool:
        """Whether it may hang."""
        return self.is_fuse or (self.path != _ROOT and self.kind in _NETWORK)


def is_mounted_folder(path: Path) -> bool:
    """Whether a path lies, or is meant to lie, on another's disk.

    So are all below a FUSE mount (Google Drive, gcsfuse, rclone, sshfs), below
    `/content/drive`, and below the folders that the environment's
    COLAB_KERAS_BG_MOUNTED_FOLDERS names; and what a symbolic link leads there.

    Args:
        path: An absolute path.
    """
    points = _points()
    path = _resolved(path, points)
    return (
        _is_below(path, _COLAB)
        or _named(path) is not None
        or _point_of(path, points).is_fuse
    )


class Mount:
    """What a path lies on, and whether that is there."""

    def __init__(self, path: Path) -> None:
        """Takes a path; nothing is touched yet.

        Args:
            path: An absolute path.
        """
        self._path = path
        self._seen = _ROOT

    def is_there(self) -> bool:
        """Whether it is mounted now. May hang, if the mount does.

        What is mounted again is there again. Of a folder that the environment
        names, and that was once seen on a mount, the bare folder below is not
        taken for it.
        """
        points = _points()
        path = _resolved(self._path, points)
        point = _point_of(path, points)
        named = _named(path)
        if named is None:
            # Where Colab's folder lies, itself, is of no interest.
            return point.is_far and (
                not _is_below(path, _COLAB) or _is_below(point.path, _COLAB)
            )
        if len(point.path.parts) < len(self._seen.parts):
            return False
        self._seen = point.path
        try:
            return stat.S_ISDIR(os.stat(named).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # What is wrong with it, the call itself tells.


def _named(path: Path) -> Path | None:
    """The folder of the environment that a path is below."""
    folders = os.environ.get(_NAMED, "").split(os.pathsep)
    for folder in filter(None, folders):
        if _is_below(path, Path(folder)):
            return Path(folder)
    return None


def _points() -> list[_Point]:
    """What the kernel says is mounted."""
    try:
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    points = []
    for line in lines:
        _, where, kind, *_ = [*line.split(" "), "", "", ""]
        path = Path(_OCTAL.sub(lambda m: chr(int(m[1], 8)), where) or "/")
        points.append(_Point(path, kind))
    return points


def _point_of(path: Path, points: list[_Point]) -> _Point:
    """The longest above a path; of two at one place, the later hides."""
    found = _Point(_ROOT, "")
    for point in points:
        if _is_below(path, point.path) and (
            len(point.path.parts) >= len(found.path.parts)
        ):
            found = point
    return found


def _resolved(path: Path, points: list[_Point]) -> Path:
    """Where symbolic links lead; on a mount none is looked for."""
    here, left, links = _ROOT, list(path.parts[1:]), 0
    while left:
        here = here.parent if left[0] == ".." else here / left[0]
        del left[0]
        if (
            _is_below(here, _COLAB)
            or _named(here) is not None
            or _point_of(here, points).is_far
        ):
            break
        try:
            target = Path(os.readlink(here))
        except OSError:
            continue  # No link, or not there.
        links += 1
        if links > _MOST_LINKS:
            return path
        here = _ROOT if target.is_absolute() else here.parent
        left = [part for part in target.parts if part != "/"] + left
    return here.joinpath(*left)


def _is_below(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents
