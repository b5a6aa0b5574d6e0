"""Which folders are mounted from elsewhere.

Invariant: only what the kernel says of its mounts is read; the folder itself
is never touched, so that one that hangs hangs nobody who asks.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

__all__ = ["is_mounted_folder", "is_there"]

# Folders that are to be treated so besides, joined by `:`.
_NAMED = "COLAB_KERAS_BG_MOUNTED_FOLDERS"
_MOUNTS = Path("/proc/self/mounts")
# Where Colab mounts Google Drive.
_COLAB = Path("/content/drive")
_OCTAL = re.compile(r"\\([0-7]{3})")
# Local disks, though by way of FUSE.
_LOCAL = frozenset({"fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.snapfuse"})


def is_mounted_folder(path: Path) -> bool:
    """Whether a path lies, or is meant to lie, on another's disk.

    So are all below a FUSE mount (Google Drive, gcsfuse, rclone, sshfs), below
    `/content/drive`, and below the folders that the environment's
    COLAB_KERAS_BG_MOUNTED_FOLDERS names.

    Args:
        path: An absolute path.
    """
    return (
        _is_below(path, _COLAB) or _named(path) is not None or _is_on_fuse(path)
    )


def is_there(path: Path) -> bool:
    """Whether what such a path lies on is mounted now.

    Args:
        path: An absolute path, below a mounted folder.
    """
    if _is_on_fuse(path):
        return True
    named = _named(path)
    try:
        return named is not None and stat.S_ISDIR(os.stat(named).st_mode)
    except FileNotFoundError:
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


def _is_on_fuse(path: Path) -> bool:
    """What the longest mount point above a path is; the root does not count."""
    try:
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    best, kind = Path("/"), ""
    for line in lines:
        _, point, type_, *_ = [*line.split(" "), "", "", ""]
        where = Path(_OCTAL.sub(lambda m: chr(int(m[1], 8)), point) or "/")
        # Of two at one point, the later hides the earlier.
        if _is_below(path, where) and len(where.parts) >= len(best.parts):
            best, kind = where, type_
    if best == Path("/") or kind in _LOCAL:
        return False
    return kind == "fuse" or kind.startswith("fuse.")


def _is_below(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents
