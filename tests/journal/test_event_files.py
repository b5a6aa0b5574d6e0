"""Event files, as TensorBoard's readers find them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator,
)
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_ndarray

from colab_keras_bg.journal.event_files import (
    EventFolder,
    cut_back,
    is_event_file,
)
from colab_keras_bg.journal.event_records import framed, records
from colab_keras_bg.journal.summaries import scalars

RUN = "0123456789abcdef"


def folder_of(root: Path, **options: Any) -> EventFolder:
    """A writer in a new process."""
    return EventFolder(root / "train", **{"run_id": RUN, **options})


def write(folder: EventFolder, *steps: int, tag: str = "loss") -> None:
    """Writes a number for each step of the run."""
    for step in steps:
        folder.add(
            scalars({tag: step + 0.5}), step=step, run_step=step, wall_time=5
        )
    folder.flush()


def reader_of(root: Path) -> EventAccumulator:
    """A reader of TensorBoard's server that has read what is there."""
    return EventAccumulator(
        str(root / "train"),
        size_guidance={"tensors": 0},
        tensor_size_guidance={"scalars": 0},
    ).Reload()


def steps(reader: EventAccumulator, tag: str = "loss") -> list[int]:
    """The steps that it shows."""
    if tag not in reader.Tags()["tensors"]:
        return []
    return [event.step for event in reader.Tensors(tag)]


def files(root: Path) -> list[Path]:
    """The event files, in the order in which they are read."""
    return sorted(root.rglob("*.tfevents.*"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A reader finds each step with its number."""
    write(folder_of(tmp_path), 1, 2, 3)
    reader = reader_of(tmp_path)
    assert [1, 2, 3] == steps(reader)
    values = [make_ndarray(e.tensor_proto) for e in reader.Tensors("loss")]
    assert [1.5, 2.5, 3.5] == values


def test_files_are_bounded_and_in_order(tmp_path: Path) -> None:
    """
    However fast they come and whatever the clock says, files come after each
    other by name, none grows beyond its bound, and a closed one is left alone.
    """
    clocks = iter([1000.0, 1000.0, 500.0, *range(1000, 9999)])
    folder = folder_of(
        tmp_path, most_bytes=1000, clock=lambda: float(next(clocks))
    )
    closed: dict[Path, bytes] = {}
    for step in range(1, 100):
        write(folder, step)
        now = {path: path.read_bytes() for path in files(tmp_path)}
        for path in files(tmp_path)[:-1]:
            assert closed.setdefault(path, now[path]) == now[path]
    assert len(closed) > 5
    assert all(path.stat().st_size <= 1000 for path in files(tmp_path))
    assert [*range(1, 100)] == steps(reader_of(tmp_path))


def test_a_large_event_has_a_file(tmp_path: Path) -> None:
    """What is larger than a file may be is written all the same."""
    folder = folder_of(tmp_path, most_bytes=200)
    write(folder, 1)
    write(folder, 2, tag="x" * 500)
    write(folder, 3)
    reader = reader_of(tmp_path)
    assert ([1, 3], [2]) == (steps(reader), steps(reader, "x" * 500))


@pytest.mark.parametrize("step", range(8))
def test_cut_back(step: int, tmp_path: Path) -> None:
    """
    What was written beyond a step of the run is gone, whatever step it is
    shown at, and what goes on is there once: to whoever comes then, and to
    whoever has seen all of it.
    """
    folder = folder_of(tmp_path, most_bytes=400)
    for at in range(1, 8):
        write(folder, at)
        folder.add(
            scalars({"epoch": at}), step=at // 2, run_step=at, wall_time=5
        ) if at % 2 == 0 else None
    folder.flush()
    watching = reader_of(tmp_path)
    assert [*range(1, 8)] == steps(watching)
    cut_back(tmp_path, step, run_id=RUN)
    assert [*range(1, step + 1)] == steps(reader_of(tmp_path))
    assert [*range(1, step // 2 + 1)] == steps(reader_of(tmp_path), "epoch")
    again = folder_of(tmp_path)
    for at in range(step + 1, 12):
        write(again, at)
        if at % 2 == 0:
            again.add(
                scalars({"epoch": at}), step=at // 2, run_step=at, wall_time=5
            )
    again.flush()
    for reader in (watching.Reload(), reader_of(tmp_path)):
        assert [*range(1, 12)] == steps(reader)
        assert [*range(1, 6)] == steps(reader, "epoch")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    max_examples=40,
)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=6))
def test_killed_and_cut_back(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[tuple[int, int]]
) -> None:
    """
    However often an attempt writes some steps, leaves half a record and goes
    back: a reader that has seen all of it and one that comes at the end show
    each step once.
    """
    root = tmp_path_factory.mktemp("run")
    (root / "train").mkdir()
    watching = EventAccumulator(
        str(root / "train"),
        size_guidance={"tensors": 0},
        tensor_size_guidance={"scalars": 0},
    )
    at = 0
    for more, back in attempts:
        write(folder_of(root, most_bytes=300), *range(at + 1, at + more + 1))
        with files(root)[-1].open("ab") as torn:
            torn.write(framed(b"lost", run_step=1)[:-3])
        watching.Reload()
        at = max(0, at + more - back)
        cut_back(root, at, run_id=RUN)
        assert [*range(1, at + 1)] == steps(reader_of(root))
    write(folder_of(root), *range(at + 1, at + 20))
    for reader in (watching.Reload(), reader_of(root)):
        shown = steps(reader)
        assert [*range(1, at + 20)] == shown


def test_the_same_step_once_more(tmp_path: Path) -> None:
    """What is logged again at the same step takes the place of the first."""
    folder = folder_of(tmp_path)
    write(folder, 1, 2, 2, 2, 3)
    write(folder_of(tmp_path), 3, 3)
    assert [1, 2, 3] == steps(reader_of(tmp_path))


def test_others_are_left_alone(tmp_path: Path) -> None:
    """
    What another run, another program or nobody in particular has written is
    never cut back, nor is what cannot be read.
    """
    write(folder_of(tmp_path, run_id="another"), 1, 2)
    write(folder_of(tmp_path, run_id=""), 1, 2)
    other = EventFileWriter(str(tmp_path / "train"))
    other.close()
    for name, content in (("empty", b""), ("strange", b"no record at all")):
        path = tmp_path / f"train/events.out.tfevents.9.{name}"
        path.write_bytes(content)
    before = {path: path.read_bytes() for path in files(tmp_path)}
    assert 5 == len(before)
    for run_id in (RUN, ""):
        assert 0 == cut_back(tmp_path, 0, run_id=run_id)
    assert before == {path: path.read_bytes() for path in files(tmp_path)}


def test_old_files_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going back by a few steps reads a few files, however many there are."""
    write(folder_of(tmp_path, most_bytes=300), *range(1, 200))
    read: list[Path] = []
    original = Path.read_bytes

    def counted(path: Path) -> bytes:
        read.append(path)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    cut_back(tmp_path, 197, run_id=RUN)
    assert len(read) <= 3 < len(files(tmp_path))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing half written stays when the disk is full, and what waited is
    written when there is room again; not without end.
    """
    folder = folder_of(tmp_path)
    write(folder, 1)
    (path,) = files(tmp_path)
    before = path.read_bytes()
    written = os.write

    def half(handle: int, content: bytes) -> int:
        return written(handle, content[: len(content) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="bytes written"):
        write(folder, 2)
    assert before == path.read_bytes()
    monkeypatch.setattr(
        "colab_keras_bg.journal.event_files._MOST_WAITING_BYTES", 200
    )
    for step in range(3, 20):
        with pytest.raises(OSError, match="bytes written"):
            write(folder, step)
    monkeypatch.undo()
    folder.flush()
    shown = steps(reader_of(tmp_path))
    assert [*range(1, len(shown) + 1)] == shown
    assert 19 - len(shown) == folder.lost
    assert len(shown) >= 2


def test_is_event_file() -> None:
    """TensorBoard reads what is called so."""
    assert is_event_file("events.out.tfevents.1.host.2.v2")
    assert not is_event_file("metrics.jsonl")


def test_every_record_tells_its_step(tmp_path: Path) -> None:
    """All but the first record of a file stay or go with a step."""
    write(folder_of(tmp_path, most_bytes=300), *range(1, 9))
    for path in files(tmp_path):
        first, *others = records(path.read_bytes())
        assert first.run_step is None
        assert others
        assert all(record.run_step is not None for record in others)
