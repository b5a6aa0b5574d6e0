"""The records of an event file, as TensorBoard frames them.

Invariant: a record that counts is whole, and each of ours tells at which step
of the run it was written, whatever step its own event is shown at; so a file
can be cut back to a step of the run. That step stands behind the event, in a
field of a number that TensorBoard does not use, and so passes over.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c

__all__ = ["Record", "end_of_records", "framed", "records"]

_HEADER = struct.Struct("<QI")  # The size, and its checksum.
_FOOTER = struct.Struct("<I")
# Field 2047 of an event, 64 bits of fixed width: ten bytes, always the last.
_MARK = b"\xf9\x7f"
_MARK_BYTES = len(_MARK) + 8


@dataclass(frozen=True)
class Record:
    """A whole record.

    Attributes:
        end: Where in the file the next one begins.
        event: The event, serialized.
        run_step: The step of the run at which it was written; None if it
            does not tell.
    """

    end: int
    event: bytes
    run_step: int | None


def framed(event: bytes, *, run_step: int | None) -> bytes:
    """A record.

    Args:
        event: The event, serialized.
        run_step: The step of the run; None if it belongs to no step.
    """
    if run_step is not None:
        event += _MARK + run_step.to_bytes(8, "little")
    size = struct.pack("<Q", len(event))
    return b"".join((size, _masked_crc32c(size), event, _masked_crc32c(event)))


def records(content: bytes) -> Iterator[Record]:
    """The records at the beginning of a file, up to the first damaged one.

    Args:
        content: All that is in the file.
    """
    at = 0
    while (size_bytes := _size_of(content[at : at + _HEADER.size])) is not None:
        start = at + _HEADER.size
        event = content[start : start + size_bytes]
        at = start + size_bytes + _FOOTER.size
        if content[start + size_bytes : at] != _masked_crc32c(event):
            return
        yield Record(at, event, _run_step_of(event))


def end_of_records(file: BinaryIO, start: int) -> int:
    """Where the last record ends that a file has whole.

    Args:
        file: An event file; of its records only the headers are read.
        start: Where a record begins, or will.
    """
    end = file.seek(0, os.SEEK_END)
    while True:
        file.seek(start)
        size_bytes = _size_of(file.read(_HEADER.size))
        if size_bytes is None:
            return start
        following = start + _HEADER.size + size_bytes + _FOOTER.size
        if following > end:
            return start
        start = following


def _size_of(header: bytes) -> int | None:
    """The size that a header tells; None if it is none."""
    if len(header) < _HEADER.size:
        return None
    size_bytes, _ = _HEADER.unpack(header)
    if header[8:] != _masked_crc32c(header[:8]):
        return None
    return int(size_bytes)


def _run_step_of(event: bytes) -> int | None:
    mark, step = event[-_MARK_BYTES:-8], event[-8:]
    return int.from_bytes(step, "little") if mark == _MARK else None


def _masked_crc32c(content: bytes) -> bytes:
    crc32c = google_crc32c.value(content)
    rotated = (crc32c >> 15) | (crc32c << 17)
    return _FOOTER.pack((rotated + 0xA282EAD8) & 0xFFFFFFFF)
