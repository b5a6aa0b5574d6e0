"""The frames of an event file."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from colab_keras_bg.journal.event_records import (
    end_of_records,
    framed,
    records,
)

EVENTS = [(b"", None), (b"first", 0), (b"second", 2**40), (b"x" * 300, 7)]


def content() -> bytes:
    """A file of them."""
    return b"".join(framed(event, run_step=step) for event, step in EVENTS)


def test_frames_are_those_of_tensorboard() -> None:
    """Without a step of the run, a frame is what TensorBoard writes."""
    written = io.BytesIO()
    RecordWriter(written).write(b"an event")
    assert written.getvalue() == framed(b"an event", run_step=None)


def test_the_step_is_passed_over() -> None:
    """The step of the run stands in an event that reads as it did."""
    event = event_pb2.Event(wall_time=1.5, step=3, file_version="v")
    framed_event = framed(event.SerializeToString(), run_step=4711)
    (record,) = records(framed_event)
    assert 4711 == record.run_step
    read = event_pb2.Event.FromString(record.event)
    assert (1.5, 3, "v") == (read.wall_time, read.step, read.file_version)


def test_only_whole_records_count() -> None:
    """However much of a file is there, only whole records are read of it."""
    whole = content()
    ends = [record.end for record in records(whole)]
    assert [None, 0, 2**40, 7] == [r.run_step for r in records(whole)]
    assert len(whole) == ends[-1]
    for size in range(len(whole) + 1):
        expected = [end for end in ends if end <= size]
        part = whole[:size]
        assert expected == [record.end for record in records(part)]
        last = expected[-1] if expected else 0
        for start in [0, *expected]:
            assert last == end_of_records(io.BytesIO(part), start)


@pytest.mark.parametrize("at", [0, 9, 15, 20])
def test_damage_ends_a_file(at: int) -> None:
    """A record whose size or content is not what was written is none."""
    damaged = bytearray(framed(b"first", run_step=1) + content())
    damaged[at] ^= 1
    assert [] == [*records(bytes(damaged))]


@given(st.binary(max_size=64))
def test_any_bytes(content: bytes) -> None:
    """Whatever a file holds, it is read without a word."""
    assert sum(1 for _ in records(content)) <= 4
    assert 0 <= end_of_records(io.BytesIO(content), 0) <= len(content)
