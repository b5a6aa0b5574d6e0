"""A local folder that is there, lasts, and can be written.

Invariant: a folder that was made is not forgotten by a power cut.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from colab_keras_bg.errors import NoSpaceError, UsageError
from colab_keras_bg.storage.filesystem import PosixFileSystem
from colab_keras_bg.storage.local import LocalStorage

__all__ = ["make_writable"]


def make_writable(path: Path) -> None:
    """Makes a folder, if it is not there, and writes a first file to try it.

    Args:
        path: The folder of a run.

    Raises:
        NoSpaceError: If its disk is full.
        UsageError: If it cannot be written.
    """
    try:
        _make(path)
        probe = path / f".probe-{secrets.token_hex(4)}.tmp"
        try:
            probe.write_bytes(b"\0" * 65536)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        if LocalStorage.is_full(error):
            raise NoSpaceError("a first file", where=str(path)) from None
        raise UsageError(
            f"The run directory {path} cannot be written: {error.strerror}. "
            "Give another one, or mend its permissions."
        ) from None


def _make(path: Path) -> None:
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        PosixFileSystem().fsync_directory(one.parent)
