"""Starting a trainer, showing what it prints, and telling how it ended.

Invariant: the trainer's descriptors 1 and 2 are an append-only file of the
run directory: no reader can block or break it, and what it wrote is there
whatever happens to it. This process only shows that file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.programs import Program
from colab_keras_bg.errors import StorageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.attempts import attempt_directory
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
_POLL_SECS = 0.1


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
    ) -> None:
        """Takes what is to be run.

        Args:
            directory: The run directory, not yet held.
            program: What to run.
            command: What was asked for, for the record.
            settings: What the trainer makes its `Run` with.
            deterministic: Whether the backend is to be deterministic.
        """
        self._directory = directory
        self._program = program
        self._command = list(command)
        self._settings = dict(settings)
        self._deterministic = deterministic
        self._child: subprocess.Popen[bytes] | None = None
        self._pending: list[int] = []

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
            with self._signals():
                self._directory.begin_attempt(command=self._command)
                attempt = self._directory.attempt
                say(f"run {self._directory.path}, attempt {attempt}{step}")
                status, reason = exit_status.of_child(self._watch())
                return self._end(
                    status, reason, secs=time.monotonic() - started
                )
        finally:
            self._directory.release()

    def _watch(self) -> int:
        folder = attempt_directory(self._directory.attempt)
        path = self._directory.path / folder / "console.log"
        with path.open("ab", buffering=0) as console:
            child = subprocess.Popen(
                [sys.executable, "-u", "-m", "colab_keras_bg.cli.trainer"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=self._environment(),
                pass_fds=[self._directory.lock_handle],
                start_new_session=True,
            )
        self._child = child
        for number in self._pending:
            child.send_signal(number)
        status = _show_until_ended(child, path)
        if status < 0:  # Its data workers wait for it for ever.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        return status

    def _environment(self) -> dict[str, str]:
        handover = {
            "supervisor": os.getpid(),
            "run_dir": str(self._directory.path),
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


def _show_until_ended(child: subprocess.Popen[bytes], path: Path) -> int:
    """Shows the console while the trainer lives, and what is left after."""
    with path.open("rb") as console:
        while True:
            ended = child.poll() is not None
            _show(console.read())
            if ended:
                return child.wait()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_SECS)


def _show(content: bytes) -> None:
    # Nobody may be there to see it; the file has it in any case. Not through
    # `sys.stdout`, which keeps what it could not write.
    view = memoryview(content)
    with contextlib.suppress(OSError):
        while view:
            try:
                view = view[os.write(1, view) :]
            except BlockingIOError:
                select.select([], [1], [])
