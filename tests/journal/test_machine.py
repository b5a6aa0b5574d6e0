"""What a machine, or a container on it, has and uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from colab_keras_bg.journal import machine as machine_module
from colab_keras_bg.journal.cgroups import Cgroups
from colab_keras_bg.journal.machine import Gpu, Machine

GB = 10**9


def cgroup(root: Path, **files: str) -> Machine:
    """
    A machine whose kernel shows these limits; `__` stands for a folder.
    """
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return Machine(cgroups=Cgroups(root=root, own=root / "own"))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 64 GB, 60 of them available, and eight cores."""
    monkeypatch.setattr(
        psutil,
        "virtual_memory",
        lambda: SimpleNamespace(total=64 * GB, available=60 * GB),
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


def test_no_container(host: None, tmp_path: Path) -> None:
    """
    Without limits, the figures are those of the machine.
    """
    found = cgroup(tmp_path)
    memory = found.memory()
    assert (4 * GB, 64 * GB) == (memory.used_bytes, memory.total_bytes)
    assert 8.0 == found.cores()


@pytest.mark.parametrize(
    "files",
    [
        {
            "memory_dot_max": str(12 * GB),
            "memory_dot_current": str(9 * GB),
            "memory_dot_stat": f"anon 1\ninactive_file {2 * GB}",
            "cpu_dot_max": "150000 100000",
            "cpu_dot_stat": "usage_usec 5500000\nuser_usec 1",
        },
        {
            "memory__memory_dot_limit_in_bytes": str(12 * GB),
            "memory__memory_dot_usage_in_bytes": str(9 * GB),
            "memory__memory_dot_stat": f"total_inactive_file {2 * GB}",
            "cpu__cpu_dot_cfs_quota_us": "150000",
            "cpu__cpu_dot_cfs_period_us": "100000",
            "cpuacct__cpuacct_dot_usage": "5500000000",
        },
    ],
    ids=["v2", "v1"],
)
def test_container(files: dict[str, str], host: None, tmp_path: Path) -> None:
    """
    What a container may use counts; the cache of files is not used up.
    """
    found = cgroup(tmp_path, **files)
    memory = found.memory()
    assert (7 * GB, 12 * GB) == (memory.used_bytes, memory.total_bytes)
    assert 5 * GB == memory.available_bytes
    assert 1.5 == found.cores()
    assert 5.5 == found.busy_secs()


@pytest.mark.parametrize(
    "files",
    [
        {
            "own": "0::/system/job_7/step_0",
            "memory_dot_stat": "anon 1",
            "cpu_dot_stat": "usage_usec 99000000",
            "system__job_7__memory_dot_max": str(12 * GB),
            "system__job_7__memory_dot_current": str(9 * GB),
            "system__job_7__memory_dot_stat": f"inactive_file {2 * GB}",
            "system__job_7__cpu_dot_max": "150000 100000",
            "system__job_7__cpu_dot_stat": "usage_usec 5500000",
            "system__job_7__step_0__memory_dot_max": "max",
            "system__job_7__step_0__memory_dot_current": str(GB),
            "system__job_7__step_0__cpu_dot_max": "max 100000",
            "system__job_7__step_0__cpu_dot_stat": "usage_usec 1",
        },
        {
            "own": "7:memory:/job_7/step_0\n3:cpuacct,cpu:/job_7\n0::/",
            "memory__memory_dot_limit_in_bytes": str(1 << 63),
            "memory__memory_dot_usage_in_bytes": str(9 * GB),
            "memory__job_7__memory_dot_limit_in_bytes": str(12 * GB),
            "memory__job_7__memory_dot_usage_in_bytes": str(9 * GB),
            "memory__job_7__memory_dot_stat": f"total_inactive_file {2 * GB}",
            "memory__job_7__step_0__memory_dot_limit_in_bytes": str(11 * GB),
            "memory__job_7__step_0__memory_dot_usage_in_bytes": str(GB),
            "cpu__job_7__cpu_dot_cfs_quota_us": "150000",
            "cpu__job_7__cpu_dot_cfs_period_us": "100000",
            "cpuacct__job_7__cpuacct_dot_usage": "5500000000",
            "cpuacct__cpuacct_dot_usage": "99000000000",
        },
        {
            "own": "0::/../../elsewhere",
            "memory_dot_max": str(12 * GB),
            "memory_dot_current": str(7 * GB),
            "cpu_dot_max": "150000 100000",
            "cpu_dot_stat": "usage_usec 5500000",
        },
        {
            "own": "4:memory:/docker/12ab\n3:cpuacct,cpu:/docker/12ab",
            "memory__memory_dot_limit_in_bytes": str(12 * GB),
            "memory__memory_dot_usage_in_bytes": str(7 * GB),
            "cpu__cpu_dot_cfs_quota_us": "150000",
            "cpu__cpu_dot_cfs_period_us": "100000",
            "cpuacct__cpuacct_dot_usage": "5500000000",
        },
    ],
    ids=["v2 job", "v1 job", "outside", "v1 namespace"],
)
def test_groups_above_our_own(
    files: dict[str, str], host: None, tmp_path: Path
) -> None:
    """
    The limit that is nearest counts, of whichever group above us it is.
    """
    found = cgroup(tmp_path, **files)
    memory = found.memory()
    assert (7 * GB, 12 * GB) == (memory.used_bytes, memory.total_bytes)
    assert 1.5 == found.cores()
    assert 5.5 == found.busy_secs()


@pytest.mark.parametrize(
    "limit", ["max", str(1 << 63), str(100 * GB), "", "nonsense"]
)
def test_limit_that_is_none(limit: str, host: None, tmp_path: Path) -> None:
    """
    A limit that does not limit leaves the machine's own figures.
    """
    found = cgroup(tmp_path, memory_dot_max=limit, memory_dot_current=str(GB))
    assert 64 * GB == found.memory().total_bytes


def test_host_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    If the host has less left than the container may use, that counts.
    """
    monkeypatch.setattr(
        psutil,
        "virtual_memory",
        lambda: SimpleNamespace(total=64 * GB, available=1 * GB),
    )
    found = cgroup(
        tmp_path, memory_dot_max=str(12 * GB), memory_dot_current=str(2 * GB)
    )
    assert 1 * GB == found.memory().available_bytes


def test_process_with_its_children() -> None:
    """
    A process counts with its children; one that is gone is not known.
    """
    used_bytes, children = Machine().process(os.getpid())
    assert used_bytes is not None
    assert used_bytes > 10_000_000
    assert 0 <= children < 100
    assert (None, 0) == Machine().process(None)
    assert (None, 0) == Machine().process(2**22 + 7)


FORKED = """
import os, sys, time
held = bytearray(os.urandom(1 << 20)) * 200  # MB
if os.fork() == 0:
    os.write(1, b"x")
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


def test_forked_child_shares_its_memory() -> None:
    """
    What a child has from its parent counts once.
    """
    with subprocess.Popen(
        [sys.executable, "-c", FORKED],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert b"x" == process.stdout.read(1)
            used_bytes, children = Machine().process(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert 1 == children
    assert used_bytes is not None
    assert 200e6 < used_bytes < 300e6


def test_network_leaves_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the machine sends to itself does not count.
    """
    moved = SimpleNamespace(bytes_sent=5, bytes_recv=7)
    itself = SimpleNamespace(bytes_sent=1000, bytes_recv=1000)
    counters = {"lo": itself, "eth0": moved, "eth1": moved}
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: counters)
    assert (10, 14) == Machine().network()


def test_groups_of_others(host: None, tmp_path: Path) -> None:
    """
    A path that leads out of what is shown leads nowhere; a group without a
    limit is none.
    """
    root = tmp_path / "shown"
    above = {"memory_dot_max": "1000000000", "memory_dot_current": "1"}
    cgroup(tmp_path, **above)
    found = cgroup(
        root,
        own="0::/../elsewhere",
        memory__memory_dot_limit_in_bytes=str((1 << 63) - 4096),
        memory__memory_dot_usage_in_bytes="1",
        cpu_dot_stat="usage_usec 1",
    )
    assert 64 * GB == found.memory().total_bytes
    assert found.busy_secs() > 1  # The whole machine's.


def test_disk_and_network(tmp_path: Path) -> None:
    """
    The disk is the one of the path; the network counts what leaves.
    """
    free, total = Machine().disk(tmp_path)
    assert 0 < free < total
    network = Machine().network()
    assert network is None or min(network) >= 0
    assert Machine().busy_secs() > 0


class Nvml:
    """A double of NVML with one GPU, which does not tell its power."""

    class NVMLError(Exception):
        """What it raises."""

    nvmlInit = staticmethod(lambda: None)  # noqa: N815 - its own name

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"handle {index}"

    def nvmlDeviceGetName(self, handle: str) -> bytes:  # noqa: N802
        return b"Tesla T4"

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=37, memory=5)

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(used=3 * GB, total=15 * GB)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        raise self.NVMLError("not supported")

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:  # noqa: N802
        return 61


def test_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A GPU tells what it does; what it does not tell is left out.
    """
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())  # type: ignore[arg-type]
    assert Machine().gpus() == [
        Gpu("Tesla T4", 0.37, 3 * GB, 15 * GB, None, 61)
    ]


def test_driver_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without a driver there are no GPUs, and it is asked for once.
    """
    asked = []

    def fails(name: str) -> None:
        asked.append(name)
        raise OSError("no driver")

    monkeypatch.setattr(machine_module.importlib, "import_module", fails)
    machine = Machine()
    assert [] == machine.gpus() == machine.gpus()
    assert ["pynvml"] == asked
