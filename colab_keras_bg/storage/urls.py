"""Which storage a run directory's address means.

Invariant: an address that this version cannot serve is refused by name. A
URL is never taken for a local folder called `gs:`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from colab_keras_bg.errors import UsageError

__all__ = ["local_directory"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


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
            "this version keeps runs in local directories only: give a path."
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
