"""From what attempts have written to their descriptors to `console.log`.

Invariant: each byte is stored once, however often whoever pumps is killed:
what is in the log counts only up to where the notes say, and the notes are
replaced as a whole after the log has grown. Only one process pumps at a time;
the callers see to that.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from colab_keras_bg.journal.console_log import LIMIT_BYTES, ConsoleLog
from colab_keras_bg.journal.raw_console import RawConsole, raw_consoles
from colab_keras_bg.journal.terminal import TerminalLines

__all__ = ["ConsolePump", "end_of", "read_notes"]

_BLOCK_BYTES = 1 << 20
# How much of one attempt is stored before the others have their turn.
_TURN_BYTES = 4 << 20
# A line that is not finished for so long is stored as it stands.
_OPEN_SECS = 60.0


class ConsolePump:
    """Stores the console of all attempts of a run."""

    def __init__(
        self,
        directory: Path,
        *,
        limit_bytes: int = LIMIT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes the directory; nothing is read yet.

        Args:
            directory: The run's local directory.
            limit_bytes: How much is kept of an attempt, about.
            clock: Seconds since 1970.
        """
        self._directory, self._clock = directory, clock
        self._limit_bytes = limit_bytes
        self._streams: dict[Path, _Stream] = {}
        self._logs: dict[int, ConsoleLog] = {}

    def pump(self) -> bool:
        """Stores what has come, or a part of it.

        Returns:
            Whether there may be more.

        Raises:
            OSError: If it cannot be read or stored now. Nothing is lost.
        """
        moved = False
        with self._as_noted():
            there = raw_consoles(self._directory)
            for raw in there:
                moved = self._stream(raw).pump(self._clock()) or moved
                if raw.attempt < there[-1].attempt and not moved:
                    self._remove(raw)  # Another one is at work by now.
        return moved

    def drain(self) -> None:
        """Stores all that there is, unfinished lines, too.

        Raises:
            OSError: If it cannot be stored now.
        """
        while self.pump():
            pass
        with self._as_noted():
            for raw in raw_consoles(self._directory):
                self._stream(raw).finish(self._clock())

    def drop(self) -> None:
        """Removes the raw output of attempts that are over, once stored.

        To be called when no attempt is at work.

        Raises:
            OSError: If it cannot be.
        """
        self.drain()
        for raw in raw_consoles(self._directory):
            self._remove(raw)

    def _remove(self, raw: RawConsole) -> None:
        self._stream(raw).finish(self._clock())
        if not self._stream(raw).lacks:
            raw.remove()
            del self._streams[raw.path]

    @contextlib.contextmanager
    def _as_noted(self) -> Iterator[None]:
        """After a failure, all is as the notes say, and is done again."""
        try:
            yield
        except BaseException:
            self._streams.clear()
            self._logs.clear()
            raise

    def _stream(self, raw: RawConsole) -> _Stream:
        if raw.path not in self._streams:
            notes = read_notes(raw)
            if raw.attempt not in self._logs:
                # Two streams of one attempt share a log; each notes how far
                # it was when the other had written last.
                self._logs[raw.attempt] = ConsoleLog(
                    self._directory,
                    raw.attempt,
                    limit_bytes=self._limit_bytes,
                    state=self._furthest(raw.attempt),
                )
            stream = _Stream(raw, self._logs[raw.attempt], notes)
            if not notes:
                stream.note()  # From here on its log belongs to it.
            self._streams[raw.path] = stream
        return self._streams[raw.path]

    def _furthest(self, attempt: int) -> Mapping[str, Any]:
        states = [
            dict(read_notes(raw).get("log", {}))
            for raw in raw_consoles(self._directory)
            if raw.attempt == attempt
        ]
        return max(states, key=end_of, default={})


class _Stream:
    """One raw file, and how far it is stored."""

    def __init__(
        self, raw: RawConsole, log: ConsoleLog, notes: Mapping[str, Any]
    ) -> None:
        self._raw, self._log = raw, log
        self._at = int(notes.get("at", 0))
        self._lines = TerminalLines(notes.get("lines"))
        self._stored_open, self._open_since = b"", 0.0

    @property
    def lacks(self) -> bool:
        return self._raw.size_bytes() > self._at

    def pump(self, now: float) -> bool:
        done = 0
        with self._raw.path.open("rb", buffering=0) as file:
            while done < _TURN_BYTES:
                block = os.pread(file.fileno(), _BLOCK_BYTES, self._at)
                if not block:
                    break
                self._store(self._lines.feed(block), now, taken=len(block))
                done += len(block)
        if done:
            self._raw.reserve()
            self._raw.give_back(self._at)
        else:
            self._store_open(now)
        return done >= _TURN_BYTES

    def finish(self, now: float) -> None:
        text = self._lines.finish()
        if text:
            self._store(text, now)

    def _store(self, text: bytes, now: float, *, taken: int = 0) -> None:
        if text:
            self._log.append(text, when=now)
            self._stored_open, self._open_since = b"", 0.0
        self._at += taken
        self.note()

    def _store_open(self, now: float) -> None:
        """What stands on a line for long is stored as it is by now."""
        shown = self._lines.open
        if not shown or shown == self._stored_open:
            return
        if not self._open_since:
            self._open_since = now
        elif now - self._open_since > _OPEN_SECS:
            self._log.append(shown + b"\n", when=now)
            self._stored_open, self._open_since = shown, now
            self.note()

    def note(self) -> None:
        """Writes down how far it is stored."""
        notes = {
            "at": self._at,
            "log": self._log.state,
            "lines": self._lines.state,
        }
        path = self._raw.notes
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            temporary.write_text(json.dumps(notes), encoding="utf-8")
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def read_notes(raw: RawConsole) -> Mapping[str, Any]:
    """How far a raw file is stored; empty if it is not begun with.

    Args:
        raw: The file.
    """
    try:
        notes = json.loads(raw.notes.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def end_of(state: Mapping[str, Any]) -> int:
    """Where in the whole what is stored ends, in bytes.

    Args:
        state: A `ConsoleLog.state`.
    """
    return int(state.get("offset", 0)) + int(state.get("size_bytes", 0))
