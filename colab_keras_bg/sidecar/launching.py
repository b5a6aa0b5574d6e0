"""The trainer's end of a sidecar: starts it, watches it, waits for it.

Invariant: nothing here touches a network, or waits for the sidecar while the
training goes on. A sidecar that died is started again; one that says that the
run is lost is believed. One that hangs, or belongs to an attempt that is over
and does not give way, is ended: what it knows is on disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from colab_keras_bg import errors
from colab_keras_bg.errors import BackgroundTrainingError, StorageError
from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.exchange import FOLDER, Orders, Report
from colab_keras_bg.sidecar.options import ShippingOptions
from colab_keras_bg.sidecar.watch_options import NOTHING, WatchOptions

__all__ = ["LaunchedSidecar"]

_POLL_SECS = 0.05
_RESTART_SECS = 30.0
_REAP_SECS = 5.0
# An earlier attempt's may be in the middle of an upload; it is gone on with.
_GIVE_WAY_SECS = 10.0
# It beats every few seconds, whatever it does.
_SILENT_SECS, _HUNG_SECS = 60.0, 300.0
_WAITED_SECS = 8.0
# Told what is done, how many bytes of it are, and of how many.
_Watch = Callable[[str, int, int], None]


class LaunchedSidecar:
    """A sidecar process that ships one spool."""

    def __init__(
        self,
        spool: Path,
        *,
        url: str,
        keep: dict[str, Any],
        options: ShippingOptions = ShippingOptions(),  # noqa: B008 - frozen
        watch: WatchOptions = NOTHING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes what it is to do; nothing is started yet.

        Args:
            spool: The local end; a folder that is there.
            url: The run directory that it ships to; empty if nowhere.
            keep: The arguments of `keep_policy`, for the far end.
            options: How it is shipped.
            watch: What it watches on this machine.
            clock: Seconds that only grow.
        """
        self._spool = spool
        self._orders = Orders(
            url=url,
            keep=keep,
            take_over=options.take_over,
            fallback=options.fallback,
            fallback_after_secs=options.fallback_after_secs,
            bytes_per_sec=options.bytes_per_sec,
            console_bytes=watch.console_bytes,
            resources_secs=watch.resources_secs,
            report_secs=watch.report_secs,
            launch=secrets.token_hex(8),
        )
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._heard: tuple[float, float] = (0.0, 0.0)  # Its beat; when.

    def start(self) -> None:
        """Starts it, in a session of its own.

        Raises:
            OSError: If the spool cannot be written.
        """
        exchange.write(self._spool, self._orders)
        package = Path(errors.__file__).parents[1]
        paths = [os.environ.get("PYTHONPATH", ""), str(package)]
        with (self._spool / FOLDER / "sidecar.log").open("ab") as log:
            self._process = subprocess.Popen(
                # -P: a file of the user's is not to be taken for a module.
                [
                    *(sys.executable, "-P", "-m", "colab_keras_bg.sidecar"),
                    str(self._spool),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                },
                start_new_session=True,
            )
        self._started = self._clock()
        self._heard = (0.0, self._started)

    @property
    def _what(self) -> str:
        does = "ships the run" if self._orders.url else "watches over the run"
        return f"the sidecar, which {does},"

    def _start_again(self, found: Report | None) -> None:
        """Starts another; that the one before has died is told by it."""
        if found is None or found.phase != "failed":
            deaths = self._orders.deaths + 1
            self._orders = replace(
                self._orders, deaths=deaths, died=time.time()
            )
        self.start()

    def report(self) -> Report | None:
        """What it last said; None before it has said anything."""
        found = exchange.read(self._spool, Report)
        if found is None or self._process is None:
            return found
        return found if found.pid == self._process.pid else None

    def wait_until_ready(
        self, watch: _Watch, tell: Callable[[str], object] = lambda text: None
    ) -> Report:
        """Returns when the run is ours and the spool has what it needs.

        Args:
            watch: Told how far it has come.
            tell: Told that it takes its time.

        Raises:
            BackgroundTrainingError: What the sidecar has found.
        """
        shown = None
        told_at = self._clock()
        while True:
            ended = self._has_ended()
            found = self.report()
            if self._clock() - told_at > _WAITED_SECS and not shown:
                told_at = self._clock()
                secs = told_at - self._started
                tell(
                    f"still waiting for {self._orders.url}, after {secs:.0f} "
                    "s: it does not answer, or whoever held the run is watched "
                    "for a sign of life"
                )
            if found is None and self._is_late():
                self._end_earlier()
            if found is not None:
                if found.progress and found.progress != shown:
                    shown = found.progress
                    watch(*found.progress)
                if found.phase in ("shipping", "drained"):
                    # It counts once: not for one that is started again.
                    self._orders = replace(self._orders, take_over=False)
                    return found
                if found.phase == "failed":
                    raise _error_of(found)
            if ended:
                raise StorageError(
                    "The sidecar, which ships the run, has ended at its start."
                    f" What it wrote is in {self._spool / FOLDER}/sidecar.log:"
                    f" {self._last_words()}"
                )
            time.sleep(_POLL_SECS)

    def look_after(self) -> Report | None:
        """Starts it again if it has died; returns what it last said.

        Raises:
            RunHeldError: If another has taken the run over.
        """
        ended = self._has_ended()
        found = self.report()
        if found is not None and found.phase == "failed":
            if found.error == errors.RunHeldError.__name__:
                raise _error_of(found)
            found = replace(found, problem=found.message)
        elif not ended and (silent_secs := self._silence(found)):
            found = replace(
                found or Report(),
                problem=(
                    f"{self._what} gives no sign of life "
                    f"since {silent_secs:.0f} s; it is ended and started "
                    f"again after {_HUNG_SECS:.0f} s"
                ),
            )
            if silent_secs > _HUNG_SECS and self._process is not None:
                self._process.kill()
        if found is not None and found.phase == "drained":
            return found  # It has ended because nothing was left to do.
        if ended and self._clock() - self._started > _RESTART_SECS:
            with contextlib.suppress(OSError):
                self._start_again(found)
        return found

    def finish(
        self,
        *,
        patience_secs: float,
        given_up: Callable[[], bool] = lambda: False,
        tell: Callable[[Report], object] = lambda _: None,
    ) -> Report | None:
        """Has all that there is shipped, and waits for it.

        Args:
            patience_secs: How long to wait at most.
            given_up: Whether whoever waits no longer does.
            tell: Given what it says, again and again.

        Returns:
            What it last said: `"drained"` if all is durable.

        Raises:
            RunHeldError: If another has taken the run over.
            OSError: If the spool cannot be written.
        """
        self._orders = replace(self._orders, finish=True)
        exchange.write(self._spool, self._orders)
        found = self.look_after()
        if self._has_ended() and (found is None or found.phase != "drained"):
            self._start_again(found)  # Now, and not in a while.
        begun = self._clock()
        while self._clock() - begun < patience_secs and not given_up():
            found = self.look_after()
            if found is not None:
                tell(found)
                if found.phase == "drained":
                    self._reap()
                    return found
            time.sleep(_POLL_SECS)
        return self.report()

    def _reap(self) -> None:
        """Waits, a moment, for a process that has said its last word."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_REAP_SECS)

    def _silence(self, found: Report | None) -> float:
        """For how many seconds it has not beaten; 0 if for a short while."""
        now, beat = self._clock(), found.beat if found else 0.0
        if beat != self._heard[0]:
            self._heard = (beat, now)
        secs = now - self._heard[1]
        return secs if secs > _SILENT_SECS else 0.0

    def _is_late(self) -> bool:
        return self._clock() - self._started > _GIVE_WAY_SECS

    def _end_earlier(self) -> None:
        """Ends an earlier attempt's, which has not given way by itself."""
        before = exchange.read(self._spool, Report)
        if before is not None and _is_sidecar(before.pid, self._spool):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(before.pid, signal.SIGKILL)

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _last_words(self) -> str:
        path = self._spool / FOLDER / "sidecar.log"
        with contextlib.suppress(OSError):
            return path.read_bytes()[-500:].decode(errors="replace")
        return ""


def _is_sidecar(pid: int, spool: Path) -> bool:
    """Whether a process is a sidecar of this spool, and not another's pid."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return {b"colab_keras_bg.sidecar", os.fsencode(spool)} <= set(command)
    return False


def _error_of(report: Report) -> BackgroundTrainingError:
    """The error that a sidecar has told of, as far as a text can be one."""
    kind = getattr(errors, str(report.error), StorageError)
    error: BackgroundTrainingError = kind.__new__(kind)
    Exception.__init__(error, report.message)
    return error
