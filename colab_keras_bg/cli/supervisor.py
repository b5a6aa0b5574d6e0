"""Starting a trainer, showing what it prints, and telling how it ended.

Invariant: the trainer's descriptors 1 and 2 are an append-only file of the
run directory: no reader can block or break it, and what it wrote is there
whatever happens to it. This process only shows that file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.programs import Program
from colab_keras_bg.errors import (
    BackgroundTrainingError,
    RunHeldError,
    StorageError,
    StorageUnavailableError,
)
from colab_keras_bg.journal.announce import copied_to, say
from colab_keras_bg.journal.raw_console import RawConsole
from colab_keras_bg.journal.showing import (
    Shown,
    Thinned,
    in_notebook,
    written_to,
)
from colab_keras_bg.run_directory import RunDirectory

__all__ = ["ENVIRONMENT", "Supervisor"]

ENVIRONMENT = "COLAB_KERAS_BG_TRAINER"

_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECS = 0.1
_WATCH_SECS = 1.0
# How long a trainer may take to end, once it is asked to.
_GRACE_SECS = 60.0


class Supervisor:
    """Runs one attempt of a run."""

    def __init__(
        self,
        directory: RunDirectory,
        program: Program,
        *,
        command: Sequence[str],
        settings: Mapping[str, Any],
        deterministic: bool = False,
        thin: bool | None = None,
    ) -> None:
        """Takes what is to be run.

        Args:
            directory: The run directory, not yet held.
            program: What to run.
            command: What was asked for, for the record.
            settings: What the trainer makes its `Run` with.
            deterministic: Whether the backend is to be deterministic.
            thin: Whether to show a few lines a minute of what is much; None:
                in a notebook.
        """
        self._show: Callable[[bytes], object] = written_to(1)
        if in_notebook() if thin is None else thin:
            where = shlex.quote(directory.address)
            self._show = Thinned(
                self._show, advice=f"colab-keras-bg logs {where}"
            )
        self._directory = directory
        self._program = program
        self._command = list(command)
        self._settings = dict(settings)
        self._deterministic = deterministic
        self._child: subprocess.Popen[bytes] | None = None
        self._pending: list[int] = []
        self._given_up = False  # Waiting until all is durable.
        # Why we have ended the trainer.
        self._ended_by: BackgroundTrainingError | None = None
        self._ended_at = 0.0

    def run(self) -> int:
        """Runs the program to its end.

        Returns:
            The exit status.

        Raises:
            BackgroundTrainingError: If the run cannot begin or go on.
        """
        found = self._directory.hold()
        step = f", from step {found.step}" if found else ""
        del found  # It keeps the files of a checkpoint open.
        started = time.monotonic()
        try:
            self._directory.begin_attempt(command=self._command)
            attempt = self._directory.attempt
            with self._signals(), self._console() as (raw, shown):
                say(f"run {self._directory.address}, attempt {attempt}{step}")
                status, reason = exit_status.of_child(self._watch(raw, shown))
                if self._ended_by is not None:
                    status, reason = _own_status(self._ended_by)
                return self._end(
                    status, reason, secs=time.monotonic() - started
                )
        finally:
            self._directory.release()

    @contextlib.contextmanager
    def _console(self) -> Iterator[tuple[RawConsole, Shown]]:
        """What the attempt prints; what we say in it belongs to it."""
        raw = RawConsole.of(self._directory.path, self._directory.attempt)
        handle = raw.open()
        try:
            shown = Shown(raw.path, self._show, start=0)
            with copied_to(lambda line: shown.keep(handle, line)):
                yield raw, shown
        finally:
            os.close(handle)
            self._directory.durability.store_console()

    def _watch(self, raw: RawConsole, shown: Shown) -> int:
        console = raw.open()
        try:
            child = subprocess.Popen(
                [sys.executable, "-u", "-m", "colab_keras_bg.cli.trainer"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=self._environment(),
                pass_fds=[self._directory.lock_handle],
                start_new_session=True,
            )
        finally:
            os.close(console)
        self._child = child
        for number in self._pending:
            child.send_signal(number)
        status = self._show_until_ended(child, shown)
        if status < 0:  # Its data workers wait for it for ever.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        return status

    def _show_until_ended(
        self, child: subprocess.Popen[bytes], shown: Shown
    ) -> int:
        """Shows what it prints while it lives, and what is left after."""
        watched = time.monotonic()
        while True:
            ended = child.poll() is not None
            shown.show()
            if ended:
                shown.stop()
                if isinstance(self._show, Thinned):
                    self._show.finish()
                return child.wait()
            if time.monotonic() - watched > _WATCH_SECS:
                self._look_after()
                watched = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_SECS)

    def _look_after(self) -> None:
        """Sees to what is shipped; ends a trainer whose run is lost."""
        assert self._child is not None  # noqa: S101 - called while it lives
        if self._ended_by is not None:
            if time.monotonic() - self._ended_at > _GRACE_SECS:
                self._child.kill()
            return
        try:
            self._directory.durability.look_after()
        except (RunHeldError, StorageUnavailableError) as error:
            say(f"the training is ended: {error}")
            self._ended_by, self._ended_at = error, time.monotonic()
            self._child.terminate()

    def _environment(self) -> dict[str, str]:
        handover = {
            "supervisor": os.getpid(),
            "run_dir": self._directory.address,
            "attempt": self._directory.attempt,
            "lock_handle": self._directory.lock_handle,
            "program": self._program.to_json(),
            "settings": self._settings,
            "deterministic": self._deterministic,
        }
        environment = {**os.environ, ENVIRONMENT: json.dumps(handover)}
        if self._program.kind == "built-in":
            environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        if "inline" in environment.get("MPLBACKEND", ""):
            environment["MPLBACKEND"] = "Agg"  # A notebook's; none is here.
        return environment

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Passes signals on to the trainer, which is in its own session."""

        def forward(number: int, frame: FrameType | None) -> None:
            if self._child is None:
                self._pending.append(number)
            elif self._child.poll() is None:
                self._child.send_signal(number)
            elif number in _ENDING:
                self._given_up = True

        # Under `nohup`, SIGHUP stays ignored, here and in the trainer.
        before = {
            number: signal.signal(number, forward)
            for number in _FORWARDED
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _make_durable(self, status: int) -> bool:
        """Waits, a while, until all of it is where it lasts."""
        if status == exit_status.HELD:
            return True  # It is another's.
        try:
            return self._directory.durability.finish(
                done=status == exit_status.DONE,
                given_up=lambda: self._given_up,
            )
        except RunHeldError as error:
            say(str(error))
            self._ended_by = error
            return False

    def _end(self, status: int, reason: str, *, secs: float) -> int:
        """Records the end and tells it; returns the exit status."""
        directory = self._directory
        newest = max(directory.checkpoints.steps(), default=None)
        try:
            directory.end_attempt(exit_status=status, reason=reason)
            if status == exit_status.DONE:
                directory.mark_done(
                    step=newest, reason=reason, command=self._command
                )
        except StorageError as error:
            say(f"{reason}, which could not be recorded: {error}")
            return status or exit_status.FAILED
        if not self._make_durable(status):
            status = status or exit_status.RESUMABLE
            reason += ", and not all of it is durable"
            if isinstance(self._ended_by, RunHeldError):
                status, reason = _own_status(self._ended_by)
        if status == exit_status.DONE:
            at = "" if newest is None else f" at step {newest}"
            say(f"done{at}, after {secs:.0f} s")
            return status
        safe = "nothing is committed yet"
        if newest is not None:
            safe = f"step {newest} is committed"
        advice = ""
        if status == exit_status.RESUMABLE:
            advice = "; run the same command again to continue"
        say(f"{reason}; {safe}{advice}")
        return status


def _own_status(error: BackgroundTrainingError) -> tuple[int, str]:
    """The exit status of an attempt that we have ended, and the reason."""
    if isinstance(error, RunHeldError):
        return exit_status.HELD, "another machine has taken the run over"
    return exit_status.RESUMABLE, "too little has become durable"
