"""The duty of having the report written, now and then.

Invariant: a process of its own does it, at the lowest priority and one at a
time: what drawing takes of memory is given back, and it holds nobody up. A
report that fails is told once, and tried again at its time.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from colab_keras_bg import errors
from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.exchange import FOLDER, Orders

__all__ = ["Paging"]

_REPORT = "report.html"
_FIRST_SECS = 60.0
# Nobody needs the report of a run that was over at once.
_LEAST_SECS = 20.0
_LIMIT_SECS = 120.0
_FINISH_SECS = 20.0
# Long enough for a sign of life to pass it on.
_TOLD_SECS = 60.0
_LOWEST = 19
_LAST_BYTES = 300


class Paging:
    """Has `report.html` written.

    Attributes:
        interval_secs: How often to look after whoever writes it.
    """

    interval_secs = 1.0

    def __init__(
        self,
        spool: Path,
        *,
        every_secs: float,
        command: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Takes the run's local directory; nothing is started yet.

        Args:
            spool: The directory.
            every_secs: How often the report is written.
            command: What writes it; ours if None.
            clock: Seconds that only grow.
            sleep: Waits so many seconds.
        """
        self._spool, self._every_secs = spool, every_secs
        self._command = list(command or _command(spool))
        self._clock, self._sleep = clock, sleep
        self._began = clock()
        self._due = self._began + min(_FIRST_SECS, every_secs)
        self._launch = _launch(spool)
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._trouble, self._told_until = "", 0.0

    def do(self) -> None:
        """See `Duty.do`; never waits.

        Raises:
            OSError: For a minute after the report could not be written.
        """
        if self._child is not None:
            self._look_after(self._child)
        elif self._clock() >= self._due:
            self._start()
        if self._clock() < self._told_until:
            raise OSError(self._trouble)

    def finish(self) -> None:
        """See `Duty.finish`; waits for a while.

        Raises:
            OSError: If it cannot be begun.
        """
        end = self._clock() + _FINISH_SECS
        try:
            self._wait(end)  # What it shows may be old already.
            if self._is_worth_it() and not self._is_given_up():
                self._start()
                self._wait(end)
        finally:
            if self._child is not None:
                self._end(self._child)

    def _is_worth_it(self) -> bool:
        lived_secs = self._clock() - self._began
        return lived_secs > _LEAST_SECS or (self._spool / _REPORT).exists()

    def _is_given_up(self) -> bool:
        """Whether the next attempt's sidecar waits for us to go."""
        return _launch(self._spool) != self._launch

    def _wait(self, end: float) -> None:
        while self._child is not None:
            if self._clock() > end or self._is_given_up():
                self._end(self._child)
                return
            self._look_after(self._child)
            if self._child is not None:
                self._sleep(0.05)

    def _start(self) -> None:
        self._started = self._clock()
        self._due = self._started + self._every_secs
        with (self._spool / FOLDER / "report.log").open("wb") as log:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._child.pid, _LOWEST)

    def _look_after(self, child: subprocess.Popen[bytes]) -> None:
        status = child.poll()
        if status is None:
            if self._clock() - self._started > _LIMIT_SECS:
                self._end(child)
                self._tell(f"it took longer than {_LIMIT_SECS:.0f} s")
            return
        self._child = None
        if status:
            self._tell(self._last_words() or f"exit status {status}")
        else:
            self._trouble, self._told_until = "", 0.0

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        child.kill()
        child.wait()
        self._child = None

    def _tell(self, what: str) -> None:
        """Has a failure told for a minute; not again before one succeeds."""
        if not self._trouble:
            self._trouble = f"{_REPORT} cannot be written: {what}."
            self._told_until = self._clock() + _TOLD_SECS

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            said = (self._spool / FOLDER / "report.log").read_bytes()
            text = said[-_LAST_BYTES:].decode(errors="replace").strip()
            return text.rpartition("\n")[2].rstrip(".")
        return ""


def _command(spool: Path) -> list[str]:
    # -P: a file of the user's is not to be taken for a module.
    program = (sys.executable, "-P", "-m", "colab_keras_bg", "report")
    return [*program, f"--out={spool / _REPORT}", str(spool)]


def _environment() -> dict[str, str]:
    package = str(Path(errors.__file__).parents[1])
    paths = [os.environ.get("PYTHONPATH", ""), package]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }


def _launch(spool: Path) -> str:
    return (exchange.read(spool, Orders) or Orders()).launch
