"""What a run uses, line by line."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from colab_keras_bg.journal.machine import Gpu, Machine, Memory
from colab_keras_bg.journal.resources import (
    ResourceMeter,
    append_resources,
    read_resources,
)
from colab_keras_bg.storage import LocalStorage, MemoryStorage


class Still(Machine):
    """A machine whose figures a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.busy, self.moved = 100.0, (1000, 2000)
        self.found: list[Gpu] = []

    def busy_secs(self) -> float:
        return self.busy

    def memory(self) -> Memory:
        return Memory(3, 10)

    def network(self) -> tuple[int, int] | None:
        return self.moved

    def gpus(self) -> list[Gpu]:
        return self.found


def test_look(tmp_path: Path) -> None:
    """
    A look has the trainer's own signs beside the machine's, and rates from
    the second one on; what is not known is left out.
    """
    machine = Still()
    meter = ResourceMeter(tmp_path, machine)
    signs = {"pid": os.getpid(), "step": 7, "save_wait": 0.25, "other": 1}
    first = meter.look(signs, now=1000.0)
    assert (1000.0, 7, 0.25) == (
        first["time"],
        first["step"],
        first["save_wait"],
    )
    assert not {"cores_busy", "gpus", "input_wait", "other"} & first.keys()
    machine.busy += 15.0
    machine.moved = (6000, 2000)
    machine.found = [Gpu("T4", 0.5, None, None, None, None)]
    second = meter.look(signs, now=1010.0)
    assert (1.5, 500, 0) == (
        second["cores_busy"],
        second["sent_bytes_per_sec"],
        second["received_bytes_per_sec"],
    )
    assert [{"name": "T4", "utilisation": 0.5}] == second["gpus"]
    assert json.loads(json.dumps(second)) == second


def test_figures_that_go_back(tmp_path: Path) -> None:
    """
    Counters that begin anew, and clocks that jump, make no negative rates.
    """
    machine = Still()
    meter = ResourceMeter(tmp_path, machine)
    meter.look({}, now=1000.0)
    machine.busy, machine.moved = 1.0, (0, 0)
    look = meter.look({}, now=1010.0)
    assert (0.0, 0) == (look["cores_busy"], look["sent_bytes_per_sec"])
    assert "cores_busy" not in meter.look({}, now=900.0)


def test_lines(tmp_path: Path) -> None:
    """
    Lines are appended; what was half written before is closed, and what is
    no line is passed over.
    """
    append_resources(tmp_path, 3, {"time": 1.0, "step": 1})
    path = tmp_path / "attempts/0003/resources.jsonl"
    path.write_bytes(path.read_bytes() + b'{"time": 2.0, "st')
    append_resources(tmp_path, 3, {"time": 3.0})
    path.write_bytes(path.read_bytes() + b'[1]\n{"time": "x"}\n\xff\n')
    found = list(read_resources(LocalStorage(tmp_path), 3))
    assert [{"time": 1.0, "step": 1}, {"time": 3.0}] == found
    assert [] == list(read_resources(MemoryStorage(), 3))


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What cannot be written as a whole is not there at all.
    """
    append_resources(tmp_path, 1, {"time": 1.0})
    opened = Path.open

    class Full(io.FileIO):
        def write(self, content: object) -> int:
            return super().write(bytes(content)[:3])  # type: ignore[call-overload]

    monkeypatch.setattr(
        Path, "open", lambda self, *mode, **more: Full(self, "ab+")
    )
    with pytest.raises(OSError, match="only a part"):
        append_resources(tmp_path, 1, {"time": 2.0})
    monkeypatch.setattr(Path, "open", opened)
    path = tmp_path / "attempts/0001/resources.jsonl"
    assert b'{"time": 1.0}\n' == path.read_bytes()
