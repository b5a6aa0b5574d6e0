"""What the container or the job that we are in may use, by Linux' cgroups.

Invariant: all groups that we are in count, from our own to the outermost that
can be seen: the limit of any of them ends a training. Both versions of
cgroups are read; what cannot be told is None.

A container mostly sees its own group as the root; a job of SLURM is in a
group far below it, which `/proc/self/cgroup` tells.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["Cgroups"]

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNLIMITED_BYTES = 1 << 60
_MICROSECS, _NANOSECS = 1e6, 1e9
# In each version: the limit, what is used, and what that consists of.
_MEMORY = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
)


class Cgroups:
    """The groups that this process is in."""

    def __init__(self, *, root: Path = _ROOT, own: Path = _OWN) -> None:
        """Looks for nothing yet.

        Args:
            root: Where the kernel shows the groups.
            own: Where it tells in which of them we are.
        """
        self._root, self._own = root, own

    def memory(self) -> tuple[int, int] | None:
        """What is used and may be used, in bytes, where the least is left."""
        limits = [
            found
            for folder in self._folders("memory")
            if (found := _memory(folder)) is not None
        ]
        return min(limits, key=lambda one: one[1] - one[0], default=None)

    def cores(self) -> float | None:
        """How many processor cores may be used, by time."""
        cores = [
            found
            for folder in self._folders("cpu")
            if (found := _cores(folder)) is not None
        ]
        return min(cores, default=None)

    def busy_secs(self) -> float | None:
        """Seconds of all cores that were used so far, where we are limited.

        Only differences mean something.
        """
        for folder in self._folders("cpuacct"):
            nanoseconds = _number(folder / "cpuacct.usage")
            if nanoseconds is not None:
                return nanoseconds / _NANOSECS
        for folder in self._folders(None):
            if _memory(folder) is None and _cores(folder) is None:
                continue
            microseconds = _fields(folder / "cpu.stat").get("usage_usec")
            if microseconds is not None:
                return microseconds / _MICROSECS
        return None

    def _folders(self, controller: str | None) -> Iterator[Path]:
        """Our groups, of version 1 for a controller, and of version 2.

        Args:
            controller: Which part of them; None for version 2 alone.
        """
        paths = self._paths()
        if controller is not None:
            yield from _upwards(self._root / controller, paths, controller)
        yield from _upwards(self._root, paths, "")

    def _paths(self) -> dict[str, PurePosixPath]:
        """Where we are, by controller; that of version 2 is ``."""
        paths: dict[str, PurePosixPath] = {}
        try:
            text = self._own.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return paths
        for line in text.splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            for controller in controllers.split(","):
                paths[controller] = PurePosixPath(path)
        return paths


def _upwards(
    root: Path, paths: dict[str, PurePosixPath], controller: str
) -> Iterator[Path]:
    """The folders from our own group to the root, those that are there."""
    path = paths.get(controller, PurePosixPath("/"))
    if ".." in path.parts:  # Of a group outside of what we may see.
        path = PurePosixPath("/")
    for group in (path, *path.parents):
        folder = root.joinpath(*group.parts[1:])
        if folder.is_dir():
            yield folder


def _memory(folder: Path) -> tuple[int, int] | None:
    for limit, used, stat in _MEMORY:
        most, now = _number(folder / limit), _number(folder / used)
        if most is None or now is None or most > _UNLIMITED_BYTES:
            continue
        fields = _fields(folder / stat)
        # The cache of files is given back when it is needed.
        cache = fields.get("total_inactive_file", 0) or fields.get(
            "inactive_file", 0
        )
        return max(0, int(now) - int(cache)), int(most)
    return None


def _cores(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    if len(words) == 2 and all(word.isdecimal() for word in words):
        return int(words[0]) / int(words[1]) if int(words[1]) else None
    quota = _number(folder / "cpu.cfs_quota_us")
    period = _number(folder / "cpu.cfs_period_us")
    if quota and period and quota > 0:
        return quota / period
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _number(path: Path) -> float | None:
    words = _words(path)
    with contextlib.suppress(ValueError, IndexError):
        return float(words[0])
    return None  # Not there, or `max`.


def _fields(path: Path) -> dict[str, float]:
    words = _words(path)
    found: dict[str, float] = {}
    for name, value in zip(words[::2], words[1::2], strict=False):
        with contextlib.suppress(ValueError):
            found[name] = float(value)
    return found
