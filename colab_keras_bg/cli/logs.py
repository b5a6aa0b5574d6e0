"""`logs`: the console of all attempts as one stream.

Invariant: reading changes nothing. A pipe or a file gets the very bytes that
were printed; a terminal gets none that it would obey, but for colours.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from datetime import time as clock_time
from typing import Any

from absl import flags

from colab_keras_bg.checkpoint.policies import secs_of
from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command, one_name
from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.console_log import stamp
from colab_keras_bg.journal.console_reading import ConsoleLine
from colab_keras_bg.report.console import RunConsole, fitted, followed, shown

__all__ = ["COMMAND"]

_CLEARED = b"\r\x1b[K"


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean(
        "follow",
        False,
        "Go on with what is printed from now on, until the run ends.",
        short_name="f",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "attempt",
        None,
        "One attempt only. Default: all of them.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "since",
        None,
        "What was printed since then: a time such as 10m or 2h ago, 16:00, or "
        "2026-11-28T16:00 (local, unless it says otherwise).",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "times",
        False,
        "Put the time, in UTC, in front of each line.",
        flag_values=values,
    )


def _run(values: Any, names: Sequence[str]) -> int:
    run_dir = one_name(names, what="RUN_DIR")
    since = None if values.since is None else _since(values.since)
    console = RunConsole(run_dir, attempt=values.attempt)
    printer = _Printer(since=since, times=values.times)
    # Whoever reads has had enough, or presses Ctrl-C: the run goes on.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        if values.follow:
            try:
                for lines in followed(console):
                    printer.print(lines)
                    if not lines:
                        printer.show_open(console.open_line())
            finally:
                printer.show_open(None)
        else:
            printer.print(console.all_lines())
            if not printer.count and since is None:
                _say_nothing_is_there(values.attempt)
    return exit_status.DONE


def _say_nothing_is_there(attempt: int | None) -> None:
    of = "any attempt" if attempt is None else f"attempt {attempt}"
    say(f"nothing that {of} has printed is there")


class _Printer:
    """Prints lines from a moment on."""

    def __init__(self, *, since: float | None, times: bool) -> None:
        self._since, self._times = since, times
        self._is_terminal = sys.stdout.isatty()
        self._open = b""
        self.count = 0

    def print(self, lines: Iterable[ConsoleLine]) -> None:
        out = sys.stdout.buffer
        for line in lines:
            self.count += 1
            if self._open:
                out.write(_CLEARED)
                self._open = b""
            if self._is_before(line):
                continue
            text = line.text
            if self._is_terminal:
                text = shown(line, colours=True).encode()
            if self._times:
                text = (stamp(line.when) if line.when else b"- ") + text
            out.write(text + b"\n")
        out.flush()

    def show_open(self, line: ConsoleLine | None) -> None:
        """Shows a line that is still being written; a terminal only.

        Args:
            line: Its present state; None takes it away.
        """
        text = b""
        if line is not None and self._is_terminal and self._since is None:
            width = shutil.get_terminal_size().columns
            plain = shown(line, colours=False).replace("\t", " ")
            text = fitted(plain, width - 1).encode()
        if text != self._open:
            sys.stdout.buffer.write(_CLEARED + text)
            sys.stdout.buffer.flush()
            self._open = text

    def _is_before(self, line: ConsoleLine) -> bool:
        if self._since is None:
            return False
        if line.when is None or line.when < self._since:
            return True
        self._since = None  # Lines without a time belong to those before.
        return False


def _since(text: str) -> float:
    if (secs := secs_of(text)) is not None:
        return time.time() - secs
    if ":" in text:
        with contextlib.suppress(ValueError):
            return _last(clock_time.fromisoformat(text))
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since={text} cannot be meant: give a time such as 10m or 2h "
            "ago, 16:00, or 2026-11-28T16:00."
        ) from None


def _last(when: clock_time) -> float:
    """The last time that a clock has shown this."""
    now = datetime.now(when.tzinfo)
    found = datetime.combine(now.date(), when)
    if found > now:
        found -= timedelta(days=1)
    return found.timestamp()


COMMAND = Command(
    name="logs",
    synopsis="[flags] RUN_DIR",
    summary="Show what a run has printed, over all its attempts.",
    define=_define,
    run=_run,
)
