"""Events written beside a training."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from colab_keras_bg.journal import event_files
from colab_keras_bg.journal.event_records import records
from colab_keras_bg.journal.events import EventJournal, EventJournals
from colab_keras_bg.journal.summaries import scalars

RUN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Each test stops what it has started."""
    before = threading.enumerate()
    yield
    found = [one for one in threading.enumerate() if one not in before]
    assert "events" not in [thread.name for thread in found]


def journal_of(root: Path, **options: Any) -> EventJournal:
    """A journal of the run."""
    return EventJournal(root, run_id=lambda: RUN, **options)


def add(journal: EventJournal, *steps: int) -> None:
    """Adds a number for each step of the run."""
    for step in steps:
        values = partial(scalars, {"loss": step})
        journal.add("train", values, step=step, run_step=step)


def steps_in(root: Path) -> list[int]:
    """The steps of the run at which something was written, in order."""
    return [
        *dict.fromkeys(
            record.run_step
            for path in sorted(root.rglob("*.tfevents.*"))
            for record in records(path.read_bytes())
            if record.run_step is not None
        )
    ]


def test_on_disk_when_synced(tmp_path: Path) -> None:
    """What was added before `sync` is there after it, each time."""
    journal = journal_of(tmp_path)
    assert journal.sync()
    for step in range(1, 20):
        add(journal, step)
        if step % 3 == 0:
            assert journal.sync()
            assert [*range(1, step + 1)] == steps_in(tmp_path)
    journal.close()
    assert [*range(1, 20)] == steps_in(tmp_path)


def test_nothing_is_made_without_need(tmp_path: Path) -> None:
    """A run that shows nothing has no thread and no folder for it."""
    journal = journal_of(tmp_path / "tensorboard")
    journal.sync()
    journal.cut_back(0)
    journal.close()
    assert not (tmp_path / "tensorboard").exists()


def test_goes_on_after_its_end(tmp_path: Path) -> None:
    """A journal that was closed begins anew with what is added then."""
    journal = journal_of(tmp_path)
    add(journal, 1)
    journal.close()
    add(journal, 2)
    journal.close()
    assert [1, 2] == steps_in(tmp_path)


def test_cut_back_in_its_order(tmp_path: Path) -> None:
    """What was added before a cut is cut, what is added after it stays."""
    journal = journal_of(tmp_path)
    add(journal, 1, 2, 3, 4)
    journal.cut_back(2)
    add(journal, 3)
    journal.close()
    assert [1, 2, 3] == steps_in(tmp_path)
    journals = EventJournals(run_id=lambda: RUN)
    journals.at(tmp_path)
    journals.cut_back(1)
    journals.sync()
    assert [1] == steps_in(tmp_path)
    journals.close()


def test_what_was_cut_is_not_written_to(tmp_path: Path) -> None:
    """A file that was cut back stays as it is, whoever goes on."""
    journal = journal_of(tmp_path)
    add(journal, 1, 2, 3, 4)
    journal.cut_back(2)
    journal.sync()
    (path,) = tmp_path.rglob("*.tfevents.*")
    cut = path.read_bytes()
    add(journal, 3)
    journal.close()
    assert cut == path.read_bytes()


def test_what_cannot_be_made_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What raises beside the training is said once, and the rest goes on."""
    journal = journal_of(tmp_path)

    def cannot() -> list[Any]:
        raise RuntimeError("Array has been deleted")

    for step in (1, 2):
        journal.add("train", cannot, step=step, run_step=step)
        journal.do(cannot)
    add(journal, 3)
    journal.close()
    assert [3] == steps_in(tmp_path)
    said = capsys.readouterr().err
    assert 1 == said.count("RuntimeError: Array has been deleted")


def test_a_full_disk_is_survived(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    A full disk is said once, and once that it is over; what waited is there.
    """
    written = os.write
    journal = journal_of(tmp_path)

    def full(handle: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(event_files.os, "write", full)
    add(journal, 1, 2)
    assert not journal.sync()
    add(journal, 3)
    assert not journal.sync()
    monkeypatch.setattr(event_files.os, "write", written)
    assert journal.sync()
    journal.close()
    assert [1, 2, 3] == steps_in(tmp_path)
    said = capsys.readouterr().err
    assert 1 == said.count("No space left on device")
    assert 1 == said.count("are written again")


def test_a_folder_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no folder can be made, that is said, and the run goes on."""
    (tmp_path / "file").write_text("")
    journal = journal_of(tmp_path / "file")
    add(journal, 1, 2)
    journal.close()
    assert "TensorBoard's files are not written" in capsys.readouterr().err


def test_a_disk_that_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Who adds is held up once at most by a disk that takes nothing, and then no
    more; what was left out is said.
    """
    goes_on = threading.Event()
    journal = journal_of(tmp_path, most_waiting=3, patience_secs=0.01)
    journal.do(goes_on.wait)
    add(journal, *range(1, 100))
    goes_on.set()
    journal.close()
    assert "does not keep up" in capsys.readouterr().err
    shown = steps_in(tmp_path)
    assert [*range(1, len(shown) + 1)] == shown
    assert 3 <= len(shown) < 99


def test_an_interpreter_that_ends(tmp_path: Path) -> None:
    """What was added is written when the program ends without a word."""
    program = f"""
from functools import partial
from pathlib import Path
from colab_keras_bg.journal.events import EventJournal
from colab_keras_bg.journal.summaries import scalars
journal = EventJournal(Path({str(tmp_path)!r}))
for step in range(1, 500):
    journal.add("", partial(scalars, {{"a": 1}}), step=step, run_step=step)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert [*range(1, 500)] == steps_in(tmp_path)
