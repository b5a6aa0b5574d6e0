"""What an attempt prints, shown to whoever watches, from its file.

Invariant: showing never holds up who prints. What was not shown in time is in
the file; in a place that keeps all it is shown, such as a notebook, a few
lines a minute are shown of what is much.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from colab_keras_bg.journal import shower
from colab_keras_bg.journal.terminal import TerminalLines

__all__ = ["Shower", "Shown", "Thinned", "in_notebook", "written_to"]

_BLOCK_BYTES = 1 << 16
# Shown as it comes, before it is thinned.
_FIRST_LINES = 200
_THIN_SECS = 10.0
# Shown of the end, however it ended.
_LAST_LINES = 40
_POLL_SECS = 0.05

_Write = Callable[[bytes], object]


def in_notebook() -> bool:
    """Whether what we print is kept by a notebook's front end.

    True in a Jupyter kernel, and in a process that one has started.
    """
    return "JPY_PARENT_PID" in os.environ or "COLAB_RELEASE_TAG" in os.environ


def written_to(handle: int) -> _Write:
    """Writes to a descriptor, waiting as long as it takes.

    Nobody may be there to see it: that is no failure.

    Args:
        handle: The descriptor.
    """

    def write(content: bytes) -> None:
        # Not through `sys.stdout`, which keeps what it could not write.
        view = memoryview(content)
        with contextlib.suppress(OSError):
            while view:
                try:
                    view = view[os.write(handle, view) :]
                except BlockingIOError:
                    select.select([], [handle], [])

    return write


class Thinned:
    """Passes on a few lines a minute of what is much."""

    def __init__(
        self,
        write: _Write,
        *,
        advice: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Passes on all, at first.

        Args:
            write: Is given what is shown.
            advice: Where all of it is.
            clock: Seconds that only grow.
        """
        self._write, self._advice, self._clock = write, advice, clock
        self._lines = TerminalLines()
        self._passed = 0
        self._held: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._held_count = 0
        self._shown_at = clock()
        self._shown_open = b""
        self._said = False

    def __call__(self, content: bytes) -> None:
        """Shows it, or a part of it, or keeps it for later.

        Args:
            content: What was printed now; may be empty.
        """
        lines = self._lines.feed(content).split(b"\n")[:-1]
        free = max(0, _FIRST_LINES - self._passed)
        self._passed += len(lines)
        if lines[:free]:
            self._write(b"\n".join(lines[:free]) + b"\n")
            self._shown_at = self._clock()
        self._held.extend(lines[free:])
        self._held_count += len(lines[free:])
        if self._clock() - self._shown_at >= _THIN_SECS:
            self._show_newest()

    def finish(self) -> None:
        """Shows the end of what was printed."""
        last = self._lines.finish().split(b"\n")[:-1]
        self._held.extend(last)
        self._held_count += len(last)
        self._leave_out(len(self._held))
        if self._held:
            self._write(b"\n".join(self._held) + b"\n")
        self._held.clear()
        self._held_count = 0

    def _show_newest(self) -> None:
        self._shown_at = self._clock()
        now = self._lines.open
        if now and now != self._shown_open:
            newest = now.rpartition(b"\n")[2]
        elif self._held:
            newest = self._held[-1]
            self._held.clear()
            self._leave_out(1)
            self._held_count = 0
        else:
            return
        self._shown_open = now
        self._write(newest + b"\n")

    def _leave_out(self, shown: int) -> None:
        left_out = self._held_count - shown
        if left_out > 0 and not self._said:
            self._said = True
            text = f"[colab-keras-bg] {left_out} lines and more are not shown "
            self._write(f"{text}here; all of it: {self._advice}\n".encode())


class Shower:
    """A process that shows a file, and outlives this one until it has."""

    def __init__(self, path: Path, descriptor: int, *, start: int) -> None:
        """Shows from now on.

        Args:
            path: The file, which is there.
            descriptor: Where it is shown.
            start: From which byte on.

        Raises:
            OSError: If it cannot be started.
        """
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-S", "-E", shower.__file__),
                *(str(path), str(start), str(descriptor), str(os.getpid())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )
        self._pid = os.getpid()

    def stop(self, *, patience_secs: float = 5.0) -> None:
        """Shows the rest, unless nobody takes it.

        Args:
            patience_secs: How long somebody has who takes his time.
        """
        if os.getpid() != self._pid:
            return  # A fork: it is the other's.
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(OSError), self._process.stdin as told:
            told.write(b"x")
        try:
            self._process.wait(patience_secs)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Shown:
    """Shows a file that grows."""

    def __init__(self, path: Path, write: _Write, *, start: int = 0) -> None:
        """Takes the file, which is there.

        Args:
            path: The file.
            write: Is given what comes.
            start: From which byte on.

        Raises:
            OSError: If it cannot be read.
        """
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at = start
        self._write = write
        # What has been shown by whoever wrote it.
        self._passed: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, handle: int, content: bytes) -> None:
        """Writes to the file what is shown by whoever calls this.

        Args:
            handle: A descriptor of his own, to append to the file.
            content: What to write. A full disk is no failure.
        """
        with contextlib.suppress(OSError), self._lock:
            written = os.write(handle, content)
            # It was moved to the end by writing there.
            end = os.lseek(handle, 0, os.SEEK_CUR)
            self._passed.append((end - written, end))

    def show(self) -> None:
        """Shows what has come."""
        while content := self._next():
            self._write(content)
        self._write(b"")  # Whoever thins looks at the clock.

    def start(self) -> None:
        """Shows from now on, in a thread."""
        self._thread = threading.Thread(
            target=self._work, name="console", daemon=True
        )
        self._thread.start()

    def stop(self, *, patience_secs: float = 5.0) -> None:
        """Shows the rest, unless nobody takes it, and lets go of the file.

        Args:
            patience_secs: How long somebody has who takes his time.
        """
        if self._thread is not None:
            self._ending.set()
            self._thread.join(patience_secs)
            if self._thread.is_alive():
                return  # It hangs; the descriptor is its own.
        self.show()
        os.close(self._handle)

    def _work(self) -> None:
        while not self._ending.wait(_POLL_SECS):
            self.show()

    def _next(self) -> bytes:
        with self._lock:
            while self._passed and self._passed[0][0] <= self._at:
                self._at = max(self._at, self._passed.popleft()[1])
            lost_bytes = self._skip_hole()
            size_bytes = _BLOCK_BYTES
            if self._passed:
                size_bytes = min(size_bytes, self._passed[0][0] - self._at)
            content = os.pread(self._handle, size_bytes, self._at)
            self._at += len(content)
        if lost_bytes:
            content = (
                b"\n[colab-keras-bg] %.1f MB are not shown here, but kept\n"
                % (lost_bytes / 1e6)
            ) + content
        return content

    def _skip_hole(self) -> int:
        """What was given back to the disk comes no more."""
        try:
            data = os.lseek(self._handle, self._at, os.SEEK_DATA)
        except OSError:  # The end of the file, or one without holes.
            return 0
        lost, self._at = data - self._at, data
        return lost
