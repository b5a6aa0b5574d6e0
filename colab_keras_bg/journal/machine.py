"""What this machine, or the container that we are in, has and uses.

Invariant: what cannot be told is None, and never 0; looking disturbs nobody.
What a container may use counts, not what its host has.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from colab_keras_bg.journal.cgroups import Cgroups

__all__ = ["Gpu", "Machine", "Memory"]


@dataclass(frozen=True)
class Memory:
    """The memory of a machine or a container.

    Attributes:
        used_bytes: What is used and cannot be given back at once.
        total_bytes: What there is.
    """

    used_bytes: int
    total_bytes: int

    @property
    def available_bytes(self) -> int:
        """What can still be had."""
        return max(0, self.total_bytes - self.used_bytes)


@dataclass(frozen=True)
class Gpu:
    """What a GPU does, and what it has.

    Attributes:
        name: Its name.
        utilisation: For which part of the time it was busy, 0 to 1.
        used_bytes: The memory in use.
        total_bytes: The memory that there is.
        power_watts: What it draws.
        celsius: How warm it is.
    """

    name: str
    utilisation: float | None
    used_bytes: int | None
    total_bytes: int | None
    power_watts: float | None
    celsius: float | None


class Machine:
    """Looks at the machine, or the container, that this process is in."""

    def __init__(self, *, cgroups: Cgroups | None = None) -> None:
        """Looks for nothing yet.

        Args:
            cgroups: The container's limits.
        """
        self._cgroups = cgroups or Cgroups()
        self._nvml: Any = None

    def cores(self) -> float:
        """How many processor cores may be used."""
        cores = float(len(os.sched_getaffinity(0)))
        limit = self._cgroups.cores()
        return cores if limit is None else min(cores, limit)

    def busy_secs(self) -> float:
        """Seconds of all cores that were used so far.

        Of the container, if it is one; only differences mean something.
        """
        if self._is_container:
            busy_secs = self._cgroups.busy_secs()
            if busy_secs is not None:
                return busy_secs
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))

    def memory(self) -> Memory:
        """The memory that we may use."""
        found = psutil.virtual_memory()
        machine = Memory(found.total - found.available, found.total)
        limit = self._cgroups.memory()
        if limit is None:
            return machine
        container = Memory(*limit)
        # The host may be full before the container is.
        return min(container, machine, key=lambda one: one.available_bytes)

    def process(self, pid: int | None) -> tuple[int | None, int]:
        """The memory of a process with its children, and how many they are.

        Args:
            pid: The process; None if there is none.
        """
        if pid is None:
            return None, 0
        try:
            process = psutil.Process(pid)
            children = process.children(recursive=True)
            used_bytes = process.memory_info().rss
        except psutil.Error:
            return None, 0
        for child in children:
            with contextlib.suppress(psutil.Error):
                used_bytes += _own_bytes(child)
        return used_bytes, len(children)

    def disk(self, path: Path) -> tuple[int, int]:
        """What is free on the disk of a path, and how much that disk has.

        Raises:
            OSError: If that cannot be told.
        """
        found = shutil.disk_usage(path)
        return found.free, found.total

    def network(self) -> tuple[int, int] | None:
        """Bytes sent and received so far; not those to itself."""
        try:
            interfaces = psutil.net_io_counters(pernic=True)
        except (OSError, RuntimeError):
            return None
        far = [one for name, one in interfaces.items() if name != "lo"]
        return (
            sum(one.bytes_sent for one in far),
            sum(one.bytes_recv for one in far),
        )

    def gpus(self) -> list[Gpu]:
        """The NVIDIA GPUs; none where NVML is not there."""
        if self._nvml is None:
            self._nvml = _nvml()
        if not self._nvml:
            return []
        nvml = self._nvml
        found = []
        with contextlib.suppress(nvml.NVMLError):
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found.append(_gpu(nvml, handle))
        return found

    @property
    def _is_container(self) -> bool:
        """Whether it is limited: else its figures are the whole machine's."""
        return self._cgroups.memory() is not None or self.cores() < float(
            os.cpu_count() or 1
        )


def _own_bytes(process: psutil.Process) -> int:
    """The memory of a process that it shares with no other.

    Raises:
        psutil.Error: If it has ended.
    """
    try:
        return int(process.memory_full_info().uss)
    except psutil.AccessDenied:
        info = process.memory_info()
        return max(0, info.rss - info.shared)


def _nvml() -> Any:
    """NVML, begun with; False if it is not to be had."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - of a driver that is not there
        return False
    return nvml


def _gpu(nvml: Any, handle: Any) -> Gpu:
    def tried(name: str, *more: Any) -> Any:
        with contextlib.suppress(nvml.NVMLError, AttributeError):
            return getattr(nvml, name)(handle, *more)
        return None

    rates = tried("nvmlDeviceGetUtilizationRates")
    memory = tried("nvmlDeviceGetMemoryInfo")
    milliwatts = tried("nvmlDeviceGetPowerUsage")
    name = tried("nvmlDeviceGetName") or "GPU"
    return Gpu(
        name=name.decode() if isinstance(name, bytes) else str(name),
        utilisation=None if rates is None else rates.gpu / 100,
        used_bytes=None if memory is None else int(memory.used),
        total_bytes=None if memory is None else int(memory.total),
        power_watts=None if milliwatts is None else milliwatts / 1000,
        celsius=tried("nvmlDeviceGetTemperature", 0),
    )
