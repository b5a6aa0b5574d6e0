"""Which storage a run directory's address means.

Invariant: an address that this version cannot serve is refused by name. A
URL is never taken for a local folder called `gs:`.
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
from colab_keras_bg.storage.retrying import Backoff, RetryingStorage

__all__ = [
    "Remote",
    "check_url",
    "is_url",
    "local_directory",
    "open_remote",
    "spool_of",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_GCS = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?")


@dataclass(frozen=True)
class Remote:
    """A storage that is far away.

    Attributes:
        storage: The storage; tries again what may pass.
        traffic: Tells what was asked of it so far, as JSON values.
    """

    storage: Storage
    traffic: Callable[[], dict[str, Any]]


def is_url(run_dir: str | os.PathLike[str]) -> bool:
    """Whether a run directory lies far away, so that a spool is needed."""
    return os.fspath(run_dir).strip().startswith("gs:")


def check_url(url: str) -> tuple[str, str]:
    """The bucket and the prefix of a `gs://` address.

    Raises:
        UsageError: If it cannot be meant.
    """
    match = _GCS.fullmatch(url.strip())
    prefix = ((match and match[2]) or "").rstrip("/")
    if match is None or not prefix or not is_name(prefix):
        raise UsageError(
            f"The run directory {url!r} cannot be meant: expected "
            "gs://BUCKET/FOLDER, the folder of letters, digits, '.', '_' and "
            "'-', with '/' between."
        )
    return match[1], prefix


def open_remote(
    url: str,
    *,
    backoff: Backoff = Backoff(deadline_secs=20.0),  # noqa: B008
) -> Remote:
    """The storage that a run directory's URL means; nothing is sent yet.

    Args:
        url: `gs://BUCKET/FOLDER`.
        backoff: How long a call is tried.

    Raises:
        UsageError: If the address cannot be meant.
        StorageRefusedError: If there are no credentials.
    """
    bucket, prefix = check_url(url)
    from colab_keras_bg.storage.gcs import GcsStorage  # Half a second.

    storage = GcsStorage(bucket, prefix)
    return Remote(
        RetryingStorage(storage, backoff=backoff), storage.traffic.to_json
    )


def spool_of(url: str, *, spools: Path) -> Path:
    """The local end of a run that lies far away.

    Args:
        url: The run directory.
        spools: The folder of all spools.
    """
    check_url(url)
    address = url.strip().rstrip("/")
    name = re.sub("[^A-Za-z0-9._-]+", "-", address.partition("://")[2])
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
            "this version keeps runs in local directories and in buckets: "
            "give a path, or gs://BUCKET/FOLDER."
        )
    path = Path(os.path.abspath(os.path.expanduser(address)))
    try:
        is_file = path.exists() and not path.is_dir()
    except OSError as error:
        raise UsageError(
            f"The run directory {path} cannot be used: {error.strerror}."
        ) from None
    if is_file:
        raise UsageError(f"The run directory {path} is a file: give a folder.")
    return path
