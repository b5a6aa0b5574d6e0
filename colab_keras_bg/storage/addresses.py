"""Which storage a run directory's address means.

Invariant: an address that this version cannot serve is refused by name. A
URL is never taken for a local folder called `gs:`, and a folder that is
mounted from elsewhere never for this machine's disk.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colab_keras_bg.errors import UsageError
from colab_keras_bg.storage.interface import Storage, is_name
from colab_keras_bg.storage.mounts import is_mounted_folder
from colab_keras_bg.storage.pace import Pace
from colab_keras_bg.storage.retrying import Backoff, RetryingStorage

__all__ = [
    "Remote",
    "is_remote",
    "local_directory",
    "open_remote",
    "remote_address",
    "spool_of",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_GCS = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/(.+)")
_DRIVE = re.compile(r"drive://([^/\0]{1,200})/(.+)")
_FORMS = {
    "gs": (_GCS, "gs://BUCKET/FOLDER"),
    "drive": (_DRIVE, "drive://FOLDER/PATH"),
}


@dataclass(frozen=True)
class Remote:
    """A storage that is far away.

    Attributes:
        storage: The storage; tries again what may pass.
        traffic: Tells what was asked of it so far, as JSON values.
    """

    storage: Storage
    traffic: Callable[[], dict[str, Any]]


def is_remote(run_dir: str | os.PathLike[str]) -> bool:
    """Whether a run directory lies far away, so that a spool is needed.

    Nothing is touched: a mount that hangs does not hang this.

    Args:
        run_dir: A local path, or a URL.
    """
    address = os.fspath(run_dir).strip()
    if scheme := _SCHEME.match(address):
        return scheme[1] in _FORMS
    return bool(address) and is_mounted_folder(_path(address))


def remote_address(run_dir: str | os.PathLike[str]) -> str:
    """The address of what `is_remote`, in the one form that we write.

    Raises:
        UsageError: If it cannot be meant.
    """
    address = os.fspath(run_dir).strip()
    scheme = _SCHEME.match(address)
    if scheme is None:
        return str(_path(address))
    address = address.rstrip("/")
    _parts(address, scheme[1])
    return address


def open_remote(
    address: str,
    *,
    backoff: Backoff = Backoff(deadline_secs=20.0),  # noqa: B008
    bytes_per_sec: float | None = None,
) -> Remote:
    """The storage that a remote address means; nothing is sent yet.

    Args:
        address: As `remote_address` returns it.
        backoff: How long a call is tried.
        bytes_per_sec: At most so much is sent; None for as much as can be.

    Raises:
        UsageError: If the address cannot be meant.
        StorageRefusedError: If there are no credentials.
    """
    pace = Pace(bytes_per_sec)
    scheme = _SCHEME.match(address)
    if scheme is None:
        from colab_keras_bg.storage.mounted import MountedStorage
        from colab_keras_bg.storage.segments import SegmentedStorage

        mounted = MountedStorage(address, pace=pace)
        traffic = mounted.traffic.to_json
        storage: Storage = SegmentedStorage(mounted, may_grow=_may_grow)
    elif scheme[1] == "drive":
        from colab_keras_bg.storage.drive import DriveStorage
        from colab_keras_bg.storage.segments import SegmentedStorage

        drive = DriveStorage(*_parts(address, "drive"), pace=pace)
        storage = SegmentedStorage(drive, may_grow=_may_grow)
        traffic = drive.traffic.to_json
    else:
        from colab_keras_bg.storage.gcs import GcsStorage  # Half a second.

        gcs = GcsStorage(*_parts(address, scheme[1]), pace=pace)
        storage, traffic = gcs, gcs.traffic.to_json
    return Remote(RetryingStorage(storage, backoff=backoff), traffic)


def spool_of(address: str, *, spools: Path) -> Path:
    """The local end of a run that lies far away.

    Args:
        address: As `remote_address` returns it.
        spools: The folder of all spools.
    """
    name = re.sub("[^A-Za-z0-9._-]+", "-", address.partition("://")[2])
    name = name or re.sub("[^A-Za-z0-9._-]+", "-", address)
    digest = hashlib.sha256(address.encode()).hexdigest()[:8]
    return spools / f"{name[-80:].strip('-.')}-{digest}"


def local_directory(run_dir: str | os.PathLike[str]) -> Path:
    """The absolute local path that a run directory's address means.

    Args:
        run_dir: A path. `~` is the home directory.

    Returns:
        The absolute path; nothing is created.

    Raises:
        UsageError: If the address is empty, a URL, leads to a file, or to
            where we may not look.
    """
    address = os.fspath(run_dir)
    if not address.strip():
        raise UsageError("The run directory is empty: give a path.")
    if "\0" in address:
        raise UsageError("The run directory holds a NUL character.")
    if scheme := _SCHEME.match(address.lstrip()):
        raise UsageError(
            f"The run directory {address!r} is a {scheme[1]}:// address, and "
            "this version keeps runs in local directories, in buckets and on "
            "Google Drive: give a path, gs://BUCKET/FOLDER or "
            "drive://FOLDER/PATH."
        )
    path = _path(address)
    try:
        is_file = path.exists() and not path.is_dir()
    except OSError as error:
        raise UsageError(
            f"The run directory {path} cannot be used: {error.strerror}."
        ) from None
    if is_file:
        raise UsageError(f"The run directory {path} is a file: give a folder.")
    return path


def _may_grow(name: str) -> bool:
    """Whether a file of a run is one that grows."""
    return name.endswith((".jsonl", ".log")) or ".tfevents." in name


def _path(address: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(address)))


def _parts(address: str, scheme: str) -> tuple[str, str]:
    """What a URL names: a bucket or a folder, and the path below it."""
    form, meant = _FORMS[scheme]
    match = form.fullmatch(address.rstrip("/"))
    if match is None or not is_name(match[2]):
        raise UsageError(
            f"The run directory {address!r} cannot be meant: expected "
            f"{meant}, the path of letters, digits, '.', '_' and '-', with "
            "'/' between."
        )
    return match[1], match[2]
