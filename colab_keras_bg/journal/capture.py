"""Everything that this process prints, kept while it is shown as before.

Invariant: descriptors 1 and 2 lead to a file while this lasts, and the file
is shown where they led before: what Python, C++ or a child has written is
kept though the process be killed, and no reader can hold it up. Whoever asks
`sys.stdout` whether it is a terminal gets the same answer as before.

Where Python's own streams lead elsewhere (a notebook's kernel, a test that
catches them), what is written to them is kept besides, and left to be shown
there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colab_keras_bg.journal.raw_console import RawConsole
from colab_keras_bg.journal.showing import (
    Shower,
    Shown,
    Thinned,
    in_notebook,
    written_to,
)

__all__ = ["Capture", "unstoppable"]

_MOST_WAITING_BYTES = 1 << 20
_LOST = b"\n[colab-keras-bg] %d bytes are lost: the disk was full\n"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Capture:
    """Keeps what this process prints; one at a time."""

    def __init__(
        self,
        directory: Path,
        attempt: int,
        *,
        thin: bool | None = None,
        advice: str = "colab-keras-bg logs",
    ) -> None:
        """Takes the place; nothing is changed yet.

        Args:
            directory: The run's local directory.
            attempt: The attempt's number.
            thin: Whether a few lines a minute are shown of what is much;
                None: in a notebook.
            advice: Where all of it can be read, for whoever sees that.
        """
        self._raw = RawConsole.of(directory, attempt)
        self._apart = RawConsole.of(directory, attempt, errors_apart=True)
        self._thin = in_notebook() if thin is None else thin
        self._advice = advice
        self._undo = contextlib.ExitStack()

    def start(self) -> None:
        """Keeps what is printed from now on.

        Raises:
            OSError: If the file cannot be made.
        """
        _flush()
        with contextlib.ExitStack() as undo:
            # Called last to first: what is buffered is written before the
            # descriptors lead back.
            kept_by_python = _led_elsewhere()
            terminals = _terminals()
            is_apart = not kept_by_python and not _same_file(1, 2)
            # Nothing else is opened before: it could get their numbers.
            free = [number for number in (1, 2) if _is_anothers(number)]
            starts = self._raw.size_bytes(), self._apart.size_bytes()
            before = errors_before = None
            if 1 not in free:
                before = self._lead(1, self._raw, undo)
            errors_raw = self._apart if is_apart else self._raw
            if 2 not in free:
                errors_before = self._lead(2, errors_raw, undo)
            shown = [(self._raw, starts[0], before)]
            if is_apart:
                shown.append((self._apart, starts[1], errors_before))
            if kept_by_python:
                self._tee(self._show(*shown[0], undo), undo)
            else:
                for one in shown:
                    self._show_apart(*one, undo)
                _as_before(terminals, undo)
            undo.callback(_flush)
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """Leaves everything as it was before."""
        self._undo.close()

    def _show(
        self,
        raw: RawConsole,
        start: int,
        where: int | None,
        undo: contextlib.ExitStack,
    ) -> Shown:
        """Shows a file where a descriptor led before, from a thread.

        What is shown by Python's own streams meanwhile is left out.
        """
        write = _nowhere if where is None else written_to(where)
        if where is not None and self._thin:
            thinned = Thinned(write, advice=self._advice)
            undo.callback(thinned.finish)
            write = thinned
        out = Shown(raw.path, write, start=start)
        undo.callback(out.stop)
        out.start()
        return out

    def _show_apart(
        self,
        raw: RawConsole,
        start: int,
        where: int | None,
        undo: contextlib.ExitStack,
    ) -> None:
        """The same, by a process, which shows our last words, too."""
        if where is None:
            return
        if self._thin:
            self._show(raw, start, where, undo)
            return
        undo.callback(Shower(raw.path, where, start=start).stop)

    def _lead(
        self, descriptor: int, raw: RawConsole, undo: contextlib.ExitStack
    ) -> int | None:
        """Has a descriptor lead to a file; returns where it led before."""
        before: int | None = None
        try:
            before = _apart(descriptor)
        except OSError:
            undo.callback(os.close, descriptor)
        else:
            undo.callback(os.close, before)
            undo.callback(os.dup2, before, descriptor)
        handle = raw.open()
        if handle == descriptor:  # It was closed.
            os.set_inheritable(descriptor, True)
        else:
            os.dup2(handle, descriptor)
            os.close(handle)
        return before

    def _tee(self, out: Shown, undo: contextlib.ExitStack) -> None:
        handle = self._raw.open()
        undo.callback(os.close, handle)
        lock = threading.Lock()
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                continue
            thinned = None
            if self._thin:
                thinned = Thinned(_as_text(stream.write), advice=self._advice)
                undo.callback(thinned.finish)
            # Not another stream in its place: whoever has got hold of it
            # before, such as a handler of `logging`, writes to it, too.
            tee = _Tee(stream.write, handle, out, lock, thinned)
            stream.write = tee.write
            undo.callback(_forget, stream, "write")


class _Tee:
    """Keeps what is written to one of Python's streams."""

    def __init__(
        self,
        shows: Callable[[str], int],
        handle: int,
        out: Shown,
        lock: threading.Lock,
        thinned: Thinned | None,
    ) -> None:
        self._shows, self._handle, self._out = shows, handle, out
        self._lock, self._thinned = lock, thinned

    def write(self, text: str) -> int:
        content = text.encode("utf-8", "backslashreplace")
        self._out.keep(self._handle, content)
        if self._thinned is None:
            return self._shows(text)
        with self._lock:
            self._thinned(content)
        return len(text)


class _Terminal(io.TextIOWrapper):
    """Leads to a file, and says that it is a terminal, as before."""

    def isatty(self) -> bool:
        return True


class _Unstoppable(io.FileIO):
    """Keeps what the disk has no space for until it has, and never raises.

    Of more than a megabyte, the rest is lost, which is said in its place.
    """

    _waiting = b""
    _lost_bytes = 0

    def write(self, content: Any) -> int:
        size_bytes = len(memoryview(content).cast("B"))
        try:
            if self._waiting:
                written = self._put(self._waiting)
                self._waiting = self._waiting[written:]
                if not self._waiting and self._lost_bytes:
                    lost, self._lost_bytes = self._lost_bytes, 0
                    self._waiting = _LOST % lost
            if not self._waiting:
                return self._put(content)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
        if len(self._waiting) + size_bytes > _MOST_WAITING_BYTES:
            self._lost_bytes += size_bytes
        else:
            self._waiting += bytes(content)
        return size_bytes

    def _put(self, content: Any) -> int:
        return super().write(content)


def unstoppable(descriptor: int, *, terminal: bool = False) -> io.TextIOWrapper:
    """A text stream of a descriptor that a full disk does not stop.

    Args:
        descriptor: The descriptor, which stays open.
        terminal: Whether the stream is to say that it is a terminal.
    """
    kind = _Terminal if terminal else io.TextIOWrapper
    raw = _Unstoppable(descriptor, "wb", closefd=False)
    return kind(
        io.BufferedWriter(raw),
        encoding="utf-8",
        errors="backslashreplace" if descriptor == 2 else "surrogateescape",
        line_buffering=True,
        write_through=True,
    )


def _terminals() -> list[bool]:
    return [
        stream is not None and stream.isatty()
        for stream in (sys.stdout, sys.stderr)
    ]


def _as_before(terminals: list[bool], undo: contextlib.ExitStack) -> None:
    """Streams to the descriptors that say whether there is a terminal."""
    for name, is_terminal in zip(("stdout", "stderr"), terminals, strict=True):
        before = getattr(sys, name)
        descriptor = 1 if name == "stdout" else 2
        stream = unstoppable(descriptor, terminal=is_terminal)
        setattr(sys, name, stream)
        undo.callback(_put_back, name, stream, before)


def _put_back(name: str, ours: Any, before: Any) -> None:
    """Unless somebody else has put another in its place meanwhile."""
    if getattr(sys, name) is ours:
        setattr(sys, name, before)


def _led_elsewhere() -> bool:
    """Whether Python's streams do not lead to descriptors 1 and 2."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        if stream is None:
            continue
        try:
            if stream.fileno() != descriptor:
                return True
        except (OSError, ValueError, AttributeError):
            return True
    return False


def _nowhere(content: bytes) -> object:
    return None


def _apart(descriptor: int) -> int:
    """A copy of a descriptor, away from the numbers of the streams."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)


def _is_anothers(descriptor: int) -> bool:
    """Whether a file of the program's has got a stream's number.

    It was closed when Python started, and is open by now.
    """
    streams = {1: sys.__stdout__, 2: sys.__stderr__}
    if streams[descriptor] is not None:
        return False
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _same_file(first: int, second: int) -> bool:
    try:
        return os.path.samestat(os.fstat(first), os.fstat(second))
    except OSError:
        return True  # One leads nowhere.


def _as_text(shows: Callable[[str], int]) -> Callable[[bytes], object]:
    return lambda content: shows(content.decode("utf-8", "replace"))


def _forget(owner: Any, name: str) -> None:
    vars(owner).pop(name, None)


def _flush() -> None:
    """What is buffered goes where the descriptors lead now."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is None:
            continue
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
