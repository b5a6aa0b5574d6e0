"""The console of a run as one stream, for people.

Invariant: what another has printed never reaches a terminal as a command, but
for colours. Following a run and being interrupted leaves the run alone.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from colab_keras_bg.errors import StorageUnavailableError, UsageError
from colab_keras_bg.journal.announce import printable, say
from colab_keras_bg.journal.attempts import attempt_directory
from colab_keras_bg.journal.console_reading import ConsoleLine, ConsoleReader
from colab_keras_bg.journal.showing import Thinned, in_notebook
from colab_keras_bg.report.status import read_status
from colab_keras_bg.run_directory import directory_of
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.stored_run import StoredRun, stored_run

__all__ = ["RunConsole", "fitted", "followed", "shown", "watch"]

_NEAR_SECS, _FAR_SECS = 0.5, 5.0
_BATCH = 1000
# At most what any terminal knows; but for text that is not to be seen.
_COLOUR = re.compile("(\x1b\\[[0-9;]*m)")
_KNOWN = re.compile("\x1b\\[(?:[0-9]{1,3}(?:;[0-9]{1,3}){0,15})?m")
_HIDDEN = re.compile("(?:^|;)0*8(?:;|$)")
_RESET = "\x1b[0m"


class RunConsole:
    """Reads the console of a run, wherever that lies.

    Of a run that is shipped, what this machine is printing is read here, and
    the rest from where it is shipped to.
    """

    def __init__(
        self, run_dir: str | os.PathLike[str], *, attempt: int | None = None
    ) -> None:
        """Takes a run.

        Args:
            run_dir: The run directory.
            attempt: The one attempt to read; all if None.

        Raises:
            UsageError: If there is no run, or no such attempt.
            StorageUnavailableError: If that cannot be told.
        """
        self.run_dir, self._asked = run_dir, attempt
        stored = stored_run(run_dir)
        self._here: Path | None = (
            None if stored.is_remote else directory_of(run_dir)
        )
        self._is_far = stored.is_remote
        try:
            stored.check_holds_a_run()
            numbers = stored.attempts.numbers()
        except StorageUnavailableError as error:
            if not stored.is_remote:
                raise
            stored = self._local_end(error)
            numbers = stored.attempts.numbers()
        self._reader = ConsoleReader(stored.storage, wanted=self._is_wanted)
        self._present: int | None = None
        self._live: ConsoleReader | None = None
        if stored.is_remote:
            numbers = sorted({*numbers, *self._find_live()})
        if attempt is not None and attempt not in numbers:
            found = ", ".join(map(str, numbers)) or "none"
            raise UsageError(
                f"There is no attempt {attempt} in {stored.address}. Attempts: "
                f"{found}."
            )

    @property
    def poll_secs(self) -> float:
        """How often it is worth to look for more."""
        return _FAR_SECS if self._is_far and not self._live else _NEAR_SECS

    def lines(self) -> Iterator[ConsoleLine]:
        """What has come since.

        Raises:
            StorageUnavailableError: If it cannot be read.
        """
        yield from self._reader.lines()
        if self._live is not None:
            yield from self._live.lines()

    def all_lines(self) -> Iterator[ConsoleLine]:
        """What has come, with what is not stored yet.

        Raises:
            StorageUnavailableError: If it cannot be read.
        """
        if self._live is None and self._here is not None:
            yield from self._reader.all_lines(self._here)
            return
        yield from self._reader.lines()
        if self._live is not None and self._here is not None:
            yield from self._live.all_lines(self._here)

    def open_line(self) -> ConsoleLine | None:
        """What stands on the line that this machine is printing now."""
        reader = self._live or self._reader
        if self._here is None or (self._is_far and self._live is None):
            return None
        text = reader.open_line(self._here)
        return ConsoleLine(0, None, text) if text else None

    def _local_end(self, error: StorageUnavailableError) -> StoredRun:
        """What this machine has of a run that cannot be reached."""
        path = directory_of(self.run_dir)
        here = stored_run(path)
        if not here.holds_a_run():
            raise error
        say(f"{error} What is on this machine is shown.")
        self._here, self._is_far = path, False
        return here

    def _find_live(self) -> list[int]:
        """The attempt that is being made on this machine, if one is."""
        path = directory_of(self.run_dir)
        if not path.is_dir() or DirectoryLock.holder_of(path) is None:
            return []
        here = stored_run(path)
        present = max(here.attempts.numbers(), default=None)
        if present is not None and self._asked in (None, present):
            self._present, self._here = present, path
            self._live = ConsoleReader(
                here.storage, wanted=lambda number: number == present
            )
        return [] if present is None else [present]

    def _is_wanted(self, number: int) -> bool:
        if number == self._present:
            return False
        return self._asked in (None, number)


def shown(line: ConsoleLine, *, colours: bool) -> str:
    """A line as a terminal may show it.

    Args:
        line: The line.
        colours: Whether colours stay.
    """
    text = line.text.decode("utf-8", "replace")
    if not colours:
        return _plain(_COLOUR.sub("", text))
    parts = _COLOUR.split(text)
    parts[::2] = map(_plain, parts[::2])
    parts[1::2] = map(_colour, parts[1::2])
    return "".join(parts) + (_RESET if len(parts) > 1 else "")


def fitted(text: str, width: int) -> str:
    """As much of a text as fits on a line of a terminal.

    Args:
        text: A text that a terminal does not obey.
        width: How many cells there are.
    """
    found = []
    for character in text[: 2 * width]:
        if not unicodedata.combining(character):
            is_wide = unicodedata.east_asian_width(character) in "WF"
            width -= 1 + is_wide
        if width < 0:
            break
        found.append(character)
    return "".join(found)


def _plain(text: str) -> str:
    """A text that a terminal does not obey, but for tabs."""
    return "\t".join(map(printable, text.split("\t")))


def _colour(sequence: str) -> str:
    """A colour, unless it is none, or hides what follows."""
    if _KNOWN.fullmatch(sequence) is None:
        return ""
    codes = sequence[2:-1]
    if _HIDDEN.search(codes) and not {"38", "48"} & {*codes.split(";")}:
        return ""
    return sequence


def watch(
    run_dir: str | os.PathLike[str],
    *,
    lines: int = 200,
    follow: bool = True,
    thin: bool | None = None,
    write: Callable[[str], object] = print,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Shows what a run has printed, and goes on until it ends.

    For a notebook's cell that is opened again: interrupting it leaves the run
    alone. If the run cannot be read for a while, that is said, and waited for.

    Args:
        run_dir: The run directory.
        lines: How many of the lines that were missed are shown; 0 for none.
        follow: Whether to go on.
        thin: Whether a few lines a minute are shown of what is much by then;
            None: in a notebook.
        write: Is given each line.
        sleep: Waits so many seconds.

    Raises:
        UsageError: If there is no run, or `lines` is negative.
        StorageUnavailableError: If it cannot be read at first.
    """
    if lines < 0:
        raise UsageError(f"lines={lines} cannot be shown: give 0 or more.")
    console = RunConsole(run_dir)
    is_thinned = in_notebook() if thin is None else thin
    shower = _Thinned(run_dir, write) if is_thinned else _All(write)
    try:
        attempt = _show_newest(console, lines, write)
        for found in followed(console, follow=follow, sleep=sleep):
            attempt = _show(iter(found), attempt, shower)
            shower.look()
        shower.finish()
    except KeyboardInterrupt:
        shower.finish()
        write("colab-keras-bg: no longer watched; the run goes on")
        return
    try:
        status = read_status(run_dir)
    except StorageUnavailableError as error:
        write(f"colab-keras-bg: how it has ended cannot be read: {error}")
        return
    reason = f": {status.reason}" if status.reason else ""
    write(f"colab-keras-bg: {printable(status.state + reason)}")


def _show_newest(
    console: RunConsole, most: int, write: Callable[[str], object]
) -> int:
    count = 0
    newest: deque[ConsoleLine] = deque(maxlen=most)
    for line in console.lines():
        count += 1
        newest.append(line)
    if count > len(newest) > 0:
        write(f"colab-keras-bg: the last {len(newest)} of {count} lines")
    return _show(iter(newest), 0, write)


def _show(
    lines: Iterator[ConsoleLine],
    attempt: int,
    write: Callable[[str], object],
) -> int:
    for line in lines:
        if line.attempt != attempt:
            attempt = line.attempt
            write(f"colab-keras-bg: {attempt_directory(attempt)}")
        write(shown(line, colours=True))
    return attempt


def followed(
    console: RunConsole,
    *,
    follow: bool = True,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[list[ConsoleLine]]:
    """What comes, until the run ends; that it cannot be read is said once.

    Args:
        console: The run's.
        follow: Whether to wait for more.
        sleep: Waits so many seconds.

    Yields:
        Some lines; none now and then.
    """
    is_told, is_over = False, not follow
    while True:
        try:
            yield from _batches(console.lines())
            if is_over:
                return
            is_over = read_status(console.run_dir).state != "running"
        except StorageUnavailableError as error:
            if not follow:
                raise
            if not is_told:
                say(f"{error} Looked at again until it can be read.")
            is_told = True
        else:
            is_told = False
        # At the end, the last of it is being stored.
        sleep(console.poll_secs)


def _batches(lines: Iterator[ConsoleLine]) -> Iterator[list[ConsoleLine]]:
    while batch := list(itertools.islice(lines, _BATCH)):
        yield batch
    yield []


class _All:
    """Shows every line."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def __call__(self, line: str) -> None:
        self._write(line)

    def look(self) -> None:
        """Nothing waits."""

    finish = look


class _Thinned:
    """Shows a few lines a minute of what is much."""

    def __init__(
        self, run_dir: str | os.PathLike[str], write: Callable[[str], object]
    ) -> None:
        advice = f"colab-keras-bg logs {shlex.quote(os.fspath(run_dir))}"
        self._thinned = Thinned(
            lambda text: write(text.decode("utf-8", "replace").rstrip("\n")),
            advice=advice,
        )

    def __call__(self, line: str) -> None:
        self._thinned(line.encode("utf-8", "replace") + b"\n")

    def look(self) -> None:
        """Shows the newest, if it is time."""
        self._thinned(b"")

    def finish(self) -> None:
        """Shows the end."""
        self._thinned.finish()
