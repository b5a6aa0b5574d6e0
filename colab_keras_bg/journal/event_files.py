"""The event files of a folder, which TensorBoard shows as one run.

Invariant: one writer, whole records, files in the order of their names; a
file that is closed is only ever cut back, and what was cut back is not written
to again. So whoever reads goes on behind what was read, in any file.

A step that is written once more, because a training goes on from before it, or
because it is logged again, takes the place of what its tag had from there on.
On disk that is cut away. In a TensorBoard that was watching it goes by the
order of steps: TensorBoard's data server looks at each tag, but its reader in
Python only at an event that has a lower step than the one before. So, where a
tag may not have grown, an event with a higher step and nothing else precedes.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from colab_keras_bg.journal.event_records import framed, records
from colab_keras_bg.journal.summaries import (
    Value,
    first_event,
    summary_event,
)

__all__ = ["EventFolder", "cut_back", "is_event_file"]

_PREFIX = "events.out.tfevents."
_NAME = re.compile(r"events\.out\.tfevents\.([0-9]+)\.")
_WRITER = "colab_keras_bg"
_MOST_BYTES = 4 << 20
# A checkpoint ends the file if that has so much, or that share of all there
# is: what is cut back later then begins a file, and little is sent again. The
# share keeps files few, all of which TensorBoard holds open.
_ENOUGH_BYTES, _ENOUGH_SHARE = 128 << 10, 1 / 64
_MOST_WAITING_BYTES = 16 << 20  # While the disk takes nothing.


class EventFolder:
    """Writes the event files of one folder.

    Attributes:
        lost: How many events were given up while the disk took nothing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str = "",
        most_bytes: int = _MOST_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes the folder; nothing is made there before the first flush.

        Args:
            folder: The folder.
            run_id: The run that these events are of; empty if of none: then
                nothing that lies there is ever cut back.
            most_bytes: How large a file may become, but for one event.
            clock: Seconds since 1970.
        """
        self._folder, self._run_id = folder, run_id
        self._most_bytes, self._clock = most_bytes, clock
        self._handle: int | None = None
        self._size_bytes = self._before_bytes = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._last: dict[str, int] = {}  # The last step of each tag.
        self.lost = 0

    def add(
        self,
        values: Sequence[Value],
        *,
        step: int,
        run_step: int,
        wall_time: float,
    ) -> None:
        """Adds an event, to be written at the next flush.

        Args:
            values: What is shown.
            step: Where it is shown.
            run_step: The step of the run.
            wall_time: Seconds since 1970.
        """
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            self.lost += 1
            return
        tags = [value.tag for value in values]
        if any(step <= self._last.get(tag, sys.maxsize) for tag in tags):
            self._frame((), step + 1, run_step, wall_time)
        self._frame(values, step, run_step, wall_time)
        self._last.update(dict.fromkeys(tags, step))

    def flush(self) -> None:
        """Gives what waits to the operating system.

        Raises:
            OSError: If it cannot be written; it waits for the next flush.
        """
        while self._waiting:
            first = len(self._waiting[0])
            if self._handle is not None and (
                self._size_bytes + first > self._most_bytes
            ):
                self.close()
            if self._handle is None:
                self._open()
            together, count = first, 1
            while count < len(self._waiting) and (
                self._size_bytes + together + len(self._waiting[count])
                <= self._most_bytes
            ):
                together += len(self._waiting[count])
                count += 1
            self._write(b"".join(self._waiting[:count]))
            del self._waiting[:count]
            self._waiting_bytes -= together

    def sync(self) -> None:
        """Returns when what was flushed will survive a power cut.

        A checkpoint may follow, so that nothing of it will be cut back.

        Raises:
            OSError: If that cannot be had.
        """
        if self._handle is None:
            return
        share = _ENOUGH_SHARE * (self._before_bytes + self._size_bytes)
        if self._size_bytes > max(_ENOUGH_BYTES, share):
            self.close()
        else:
            os.fsync(self._handle)

    def close(self) -> None:
        """Ends the present file; what is added later goes to another.

        Raises:
            OSError: If it cannot be synced.
        """
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def begin_anew(self) -> None:
        """What is added from now on may be from an earlier step."""
        self.close()
        self._last.clear()

    def _frame(
        self,
        values: Sequence[Value],
        step: int,
        run_step: int,
        wall_time: float,
    ) -> None:
        event = summary_event(values, step=step, wall_time=wall_time)
        record = framed(event, run_step=run_step)
        self._waiting.append(record)
        self._waiting_bytes += len(record)

    def _open(self) -> None:
        """Begins a file whose name comes after all that are there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        last = self._before_bytes = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if found := _NAME.match(entry.name):
                    last = max(last, int(found[1]))
                    self._before_bytes += entry.stat().st_size
        number = max(int(self._clock()), last + 1)
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:60]
        path = self._folder / f"{_PREFIX}{number:010d}.{host}.{os.getpid()}.v2"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        handle = os.open(path, flags, 0o666)
        self._handle, self._size_bytes = handle, 0
        head = first_event(
            wall_time=self._clock(), writer=f"{_WRITER}/{self._run_id}"
        )
        try:
            self._write(framed(head, run_step=None))
            _sync_folder(self._folder)
        except OSError:
            self._handle = None
            os.close(handle)
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise

    def _write(self, content: bytes) -> None:
        """Adds bytes to the file, all of them or none."""
        assert self._handle is not None  # noqa: S101 - the caller opened it
        try:
            written = os.write(self._handle, content)
            if written != len(content):
                raise OSError(f"only {written} of {len(content)} bytes written")
        except OSError:
            os.ftruncate(self._handle, self._size_bytes)
            raise
        self._size_bytes += len(content)


def is_event_file(name: str) -> bool:
    """Whether a file of this name is one that TensorBoard reads.

    Args:
        name: Its last part, without the folder.
    """
    return name.startswith(_PREFIX)


def cut_back(root: Path, step: int, *, run_id: str) -> int:
    """Drops what a run wrote beyond one of its steps.

    What others wrote below the folder stays as it is. A file that is left
    with nothing stays, too: whoever is reading it goes on with the next.

    Args:
        root: A folder of folders of event files.
        step: The step that the training goes on from.
        run_id: The run.

    Returns:
        How many files were cut back.

    Raises:
        OSError: If one cannot be read or cut.
    """
    count = 0
    for folder, _, names in os.walk(root):
        for name in sorted(filter(is_event_file, names), reverse=True):
            cut, is_first = _cut(Path(folder, name), step, run_id=run_id)
            count += cut
            if is_first:
                break  # All files before it are older than the step.
    return count


def _cut(path: Path, step: int, *, run_id: str) -> tuple[bool, bool]:
    """Cuts one file back.

    Returns:
        Whether there was anything to cut, and whether something stayed that
        was written at the step or before.
    """
    content = path.read_bytes()
    end, stays = 0, False
    for number, record in enumerate(records(content)):
        if number == 0 and not _is_ours(record.event, run_id):
            return False, False
        if record.run_step is not None and record.run_step > step:
            break
        stays = stays or record.run_step is not None
        end = record.end
    if end in (0, len(content)):
        return False, stays
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    return True, stays


def _is_ours(head: bytes, run_id: str) -> bool:
    return bool(run_id) and head.endswith(f"{_WRITER}/{run_id}".encode())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
