"""Has Python's calls on the files of one folder go wrong, in this process.

Invariant: only what lies below the folder is struck, and what is to go wrong
is asked anew at each call, of a small file that another process writes.

`MountedFolder` has it loaded by each process that is to see a mount, before
all else; so it imports nothing but the standard library, and is no part of a
package there.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import time
from collections.abc import Callable
from typing import Any

__all__ = ["MountFaults"]

_POLL_SECS = 0.02
_CALLS = (
    *("fstat", "fsync", "link", "listdir", "lstat", "mkdir", "open", "pread"),
    *("read", "rename", "replace", "rmdir", "scandir", "stat", "statvfs"),
    *("truncate", "unlink", "write"),
)
_WRITES = frozenset({"write"})
_OPENS_TO_WRITE = frozenset("wax+")


class MountFaults:
    """Strikes the calls on files below a folder.

    The control file holds a JSON object: `stalls`, whether calls hang;
    `secs`, how much longer they take; `fails`, the number of `errno` that they
    raise; `writes_fail`, the one that writing raises.
    """

    def __init__(self, folder: str, control: str) -> None:
        """Takes the folder; nothing is struck yet.

        Args:
            folder: An absolute path.
            control: The file that says what is to go wrong.
        """
        self._folder, self._control = folder, control
        self._real = {name: getattr(os, name) for name in (*_CALLS, "close")}
        self._handles: set[int] = set()

    def install(self) -> None:
        """Puts itself in the place of the calls of `os`, and of `open`."""
        for name in _CALLS:
            setattr(os, name, self._wrapped(name))
        os.close = self._close
        builtins.open = io.open = self._opened(io.open)

    def strike(self, name: str) -> None:
        """Goes wrong, if a call is to go wrong now.

        Args:
            name: The call's name.

        Raises:
            OSError: As it was told to.
        """
        while (order := self._order()).get("stalls"):
            time.sleep(_POLL_SECS)
        if secs := order.get("secs"):
            time.sleep(secs)
        number = order.get("fails")
        if number is None and name in _WRITES:
            number = order.get("writes_fail")
        if number is None and name == "link":
            number = errno.ENOSYS  # There are none on such a mount.
        if number is not None:
            raise OSError(number, os.strerror(number))

    def is_below(self, path: Any) -> bool:
        """Whether a path, or a handle, is one of the folder's.

        Args:
            path: What a call of `os` takes.
        """
        if isinstance(path, int):
            return path in self._handles
        whole: str = os.path.abspath(os.fsdecode(path))
        return whole == self._folder or whole.startswith(self._folder + "/")

    def _order(self) -> dict[str, Any]:
        handle = self._real["open"](self._control, os.O_RDONLY)
        try:
            order: dict[str, Any] = json.loads(self._real["read"](handle, 4096))
            return order
        finally:
            self._real["close"](handle)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(first: Any = ".", *rest: Any, **named: Any) -> Any:
            below = self.is_below(first)
            if below:
                self.strike(name)
            result = real(first, *rest, **named)
            if name == "open":
                (self._handles.add if below else self._handles.discard)(result)
            return result

        return call

    def _close(self, fd: int) -> None:
        self._handles.discard(fd)
        self._real["close"](fd)

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if not isinstance(file, int) and self.is_below(file):
                writes = not _OPENS_TO_WRITE.isdisjoint(mode)
                self.strike("write" if writes else "open")
            return real(file, mode, *rest, **named)

        return call
