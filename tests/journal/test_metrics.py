"""`metrics.jsonl`: each report once, in whole lines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from colab_keras_bg.journal.metrics import (
    MetricsJournal,
    damaged_lines,
    read_metrics,
)

REPORTS: list[dict[str, Any]] = [
    {"step": 0, "loss": 2.5},
    {"step": 3, "loss": 1.0000000000000002},
    {"step": 3, "epoch": 0, "text": 'a "line"\nbreak \u2028 ä'},
    {"step": 7, "loss": 1e-300},
    {"step": 12, "loss": 0.25},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with all the reports."""
    path = tmp_path / "metrics.jsonl"
    journal = MetricsJournal(path)
    for report in REPORTS:
        journal.append(report)
    return path


def test_append(path: Path) -> None:
    """A report comes back as it was given, to the last bit, in order."""
    assert list(read_metrics(path)) == REPORTS
    assert len(path.read_bytes().splitlines()) == len(REPORTS)


def test_written_at_once(tmp_path: Path) -> None:
    """A report is with the operating system when `append` returns."""
    path = tmp_path / "metrics.jsonl"
    journal = MetricsJournal(path)
    journal.append(REPORTS[0])
    assert list(read_metrics(path)) == REPORTS[:1]
    journal.append(REPORTS[1])
    assert list(read_metrics(path)) == REPORTS[:2]


@pytest.mark.parametrize("step", range(-1, 14))
def test_cut_back(step: int, path: Path) -> None:
    """Cut back to any step, exactly the reports up to it are left."""
    expected = [report for report in REPORTS if report["step"] <= step]
    dropped = MetricsJournal(path).cut_back(step)
    assert list(read_metrics(path)) == expected
    assert dropped == len(REPORTS) - len(expected)
    assert list(damaged_lines(path.read_bytes())) == []


def test_cut_back_touches_nothing_that_stays(path: Path) -> None:
    """Where nothing is to be dropped, the file is not written."""
    os.utime(path, ns=(1, 1))
    assert MetricsJournal(path).cut_back(12) == 0
    assert path.stat().st_mtime_ns == 1


def test_no_file(tmp_path: Path) -> None:
    """Without a file there are no reports, and nothing is made."""
    path = tmp_path / "metrics.jsonl"
    journal = MetricsJournal(path)
    assert journal.cut_back(5) == 0
    journal.sync()
    assert list(read_metrics(path)) == []
    assert list(tmp_path.iterdir()) == []


def test_empty_file(tmp_path: Path) -> None:
    """An empty file is one without reports, to which some may be added."""
    path = tmp_path / "metrics.jsonl"
    path.touch()
    journal = MetricsJournal(path)
    assert journal.cut_back(5) == 0
    journal.append(REPORTS[0])
    assert list(read_metrics(path)) == REPORTS[:1]


@pytest.mark.parametrize("cut", range(1, len(json.dumps(REPORTS[-1])) + 1))
def test_torn_tail(cut: int, path: Path) -> None:
    """
    Wherever the last line was torn it is no report; the next report, or a
    restore, drops what is left of it.
    """
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert list(read_metrics(path)) == REPORTS[:-1]
    assert list(damaged_lines(path.read_bytes())) == []
    MetricsJournal(path).append(REPORTS[-1])
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-cut])
    assert MetricsJournal(path).cut_back(100) == 1
    assert list(read_metrics(path)) == REPORTS[:-1]
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:-1])


def test_torn_first_line(tmp_path: Path) -> None:
    """A file of nothing but a torn line begins anew."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "lo')
    MetricsJournal(path).append(REPORTS[0])
    assert list(read_metrics(path)) == REPORTS[:1]
    assert list(damaged_lines(path.read_bytes())) == []


GARBAGE = [
    b"\n",
    b"\0\0\0\n",
    b"not JSON\n",
    b"[1, 2]\n",
    b'{"loss": 1.0}\n',
    b'{"step": 1.5}\n',
    b'{"step": true}\n',
    b'{"step": "3"}\n',
    b"\xff\xfe\n",
    b"{" * 100_000 + b"\n",
    b"[" * 100_000 + b"\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_line(garbage: bytes, path: Path) -> None:
    """
    A line that is no report is left out when reading, and named. Cutting back
    loses none of the reports behind it, which would not be made again.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], garbage, *lines[2:]]))
    assert list(read_metrics(path)) == REPORTS
    assert list(damaged_lines(path.read_bytes())) == [3]
    MetricsJournal(path).cut_back(7)
    assert list(read_metrics(path)) == REPORTS[:-1]
    MetricsJournal(path).cut_back(3)
    assert list(read_metrics(path)) == REPORTS[:3]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_at_the_end(garbage: bytes, path: Path) -> None:
    """What a power cut leaves behind the last report is dropped."""
    before = path.read_bytes()
    path.write_bytes(before + garbage)
    assert MetricsJournal(path).cut_back(12) == 1
    assert path.read_bytes() == before


def test_reports_after_a_cut(path: Path) -> None:
    """After a restore, each step's reports are there once."""
    journal = MetricsJournal(path)
    journal.cut_back(3)
    for report in REPORTS[3:]:
        journal.append(report)
    assert list(read_metrics(path)) == REPORTS


@pytest.mark.parametrize("fails", ["short", "error"])
def test_full_disk(
    fails: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that does not fit is not half written, and is an error."""
    before = path.read_bytes()
    journal = MetricsJournal(path)
    opened = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            self._file.write(data[:5])
            if fails == "error":
                raise OSError(28, "No space left on device")
            return 5

    def full(self: Path, mode: str, **settings: Any) -> Any:
        file = opened(self, mode, **settings)
        return Full(file) if mode == "ab" else file

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(OSError, match=r"No space|only 5 of"):
            journal.append({"step": 20})
    assert path.read_bytes() == before
    journal.append({"step": 20})
    assert list(read_metrics(path)) == [*REPORTS, {"step": 20}]


def test_cannot_be_written(tmp_path: Path) -> None:
    """What is no file raises, and is not taken for an empty one."""
    journal = MetricsJournal(tmp_path)
    with pytest.raises(IsADirectoryError):
        journal.append(REPORTS[0])
    with pytest.raises(IsADirectoryError):
        journal.cut_back(0)
