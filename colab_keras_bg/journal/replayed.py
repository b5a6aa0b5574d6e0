"""What earlier attempts have logged: a program that is run again does again.

Invariant: what is logged again is told by its values, and where: before the
training goes on, wherever that was; from then on, at the very step. All else
is new. One file is read, only by who logs, and only while that can still
matter: not once the training is a step further.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Earlier"]


class Earlier:
    """The reports that were there when an attempt began."""

    def __init__(self, path: Path) -> None:
        """Takes `metrics.jsonl`; it is looked at with the first report.

        Args:
            path: The file.
        """
        self._path = path
        self._size_bytes: int | None = None
        self._content: bytes | None = None
        self._has_gone_on = False

    def begin(self) -> None:
        """What is added from now on is this attempt's."""
        if self._size_bytes is None:
            self._size_bytes = self._size()

    def go_on(self) -> None:
        """The training goes on; what was beyond has been dropped."""
        self._has_gone_on, self._content = True, None
        self._size_bytes = min(self._size_bytes or 0, self._size())

    def hold(self, step: int, values: Mapping[str, Any]) -> bool:
        """Whether an earlier attempt has logged the same.

        Args:
            step: Where it is to be logged.
            values: JSON values by name, as they are written.
        """
        if not self._size_bytes or not values:
            return False
        content = self._read()
        if self._has_gone_on and step > _last_step(content):
            self._size_bytes, self._content = 0, None  # Never again.
            return False
        end = b", " + json.dumps(dict(values)).encode()[1:] + b"\n"
        at = content.find(end)
        while at >= 0:
            line = content[content.rfind(b"\n", 0, at) + 1 : at]
            if _is_of_log(line) and (
                not self._has_gone_on or _step(line + b"}") == step
            ):
                return True
            at = content.find(end, at + 1)
        return False

    def _read(self) -> bytes:
        if self._content is None:
            self._content = b""
            with contextlib.suppress(OSError), self._path.open("rb") as file:
                self._content = file.read(self._size_bytes)
        return self._content

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def _is_of_log(line: bytes) -> bool:
    """Whether the beginning of a line has our fields, and nothing more."""
    with contextlib.suppress(ValueError, RecursionError):
        return set(json.loads(line + b"}")) == {"step", "time"}
    return False


def _last_step(content: bytes) -> int:
    """The step of the last line, which ends there."""
    return _step(content[content.rfind(b"\n", 0, -1) + 1 :])


def _step(line: bytes) -> int:
    """The step of a line; -1 if it has none."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict) and type(found.get("step")) is int:
            return int(found["step"])
    return -1
