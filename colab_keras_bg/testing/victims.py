"""Trainings that are started in order to be killed.

Invariant: only processes that this one has started are killed, and a process
that has ended is not mistaken for another with its number.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

__all__ = ["Command", "Forked", "Nursery", "Victim"]

_STEP = struct.Struct("<q")


class Victim(ABC):
    """A running training."""

    @abstractmethod
    def ended(self, *, within_secs: float = 0.0) -> int | None:
        """Its exit status, as Python has it; None if it runs on.

        Args:
            within_secs: How long to wait for its end.
        """

    @abstractmethod
    def kill(self, draw: random.Random) -> str:
        """Kills it, or a part of it, with SIGKILL, and waits for its end.

        Args:
            draw: Where it is drawn from who is killed.

        Returns:
            Who was.
        """

    @property
    def step(self) -> int | None:
        """The steps that it has trained; None if nobody knows."""
        return None


class Command(Victim):
    """One that was started by the command line."""

    def __init__(self, command: list[str]) -> None:
        """Starts it.

        Args:
            command: The command line.
        """
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ended(self, *, within_secs: float = 0.0) -> int | None:
        """See `Victim.ended`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(within_secs)
        return None

    def kill(self, draw: random.Random) -> str:
        """See `Victim.kill`: the supervisor, the trainer, or both."""
        victim = draw.choice(("supervisor", "trainer", "both"))
        trainer = self._trainer()
        if victim in ("trainer", "both") and trainer is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trainer, signal.SIGKILL)
        if victim in ("supervisor", "both") or trainer is None:
            self._process.kill()
        self._process.wait()
        return victim

    def _trainer(self) -> int | None:
        """The child of our own child, as Linux tells it."""
        pid = self._process.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            return int(children.split()[0]) if children.split() else None
        return None


class Nursery:
    """A process that has imported Keras, and forks one training at a time.

    A training begins in a second then, not in several.
    """

    def __init__(self) -> None:
        """Starts it, and waits until it is ready."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "colab_keras_bg.testing.victims"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._said = b""
        self.read()

    def start(self, request: dict[str, Any]) -> int:
        """Forks a training; returns the descriptor that stands for it."""
        assert self._process.stdin is not None  # noqa: S101 - see __init__
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return os.pidfd_open(self.read())

    def read(self, *, within_secs: float = 120.0) -> int:
        """What it says next.

        Raises:
            TimeoutError: If it says nothing for so long.
        """
        assert self._process.stdout is not None  # noqa: S101 - see __init__
        said = self._process.stdout.fileno()
        while b"\n" not in self._said:
            if not select.select([said], [], [], within_secs)[0]:
                raise TimeoutError("no word from the trainings' parent")
            self._said += os.read(said, 64)
        line, _, self._said = self._said.partition(b"\n")
        return int(line)

    def close(self) -> None:
        """Ends it; a training that runs goes on."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


class Forked(Victim):
    """One that a `Nursery` has forked."""

    def __init__(
        self,
        nursery: Nursery,
        run_dir: Path,
        arguments: list[str],
        **settings: Any,
    ) -> None:
        """Starts it.

        Args:
            nursery: Its parent.
            run_dir: The run directory.
            arguments: Of the built-in job.
            **settings: Of its `Run`.
        """
        seen = run_dir.with_name(f"{run_dir.name}.step")
        seen.write_bytes(_STEP.pack(-1))
        with seen.open("r+b") as file:
            self._seen = mmap.mmap(file.fileno(), _STEP.size)
        self._nursery = nursery
        self._status: int | None = None
        self._last_step: int | None = None
        self._handle = nursery.start(
            {
                "run_dir": str(run_dir),
                "seen": str(seen),
                "arguments": arguments,
                "settings": settings,
            }
        )

    def ended(self, *, within_secs: float = 0.0) -> int | None:
        """See `Victim.ended`."""
        if self._status is None:
            with contextlib.suppress(TimeoutError):
                self._status = self._nursery.read(within_secs=within_secs)
                os.close(self._handle)
                self._last_step = self.step
                self._seen.close()
        return self._status

    def kill(self, draw: random.Random) -> str:
        """See `Victim.kill`."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        give_up = time.monotonic() + 120
        while self.ended(within_secs=1.0) is None:
            if time.monotonic() > give_up:
                raise TimeoutError("a killed training does not end")
        return "training"

    @property
    def step(self) -> int | None:
        """See `Victim.step`."""
        if self._seen.closed:
            return self._last_step
        (step,) = _STEP.unpack(self._seen[: _STEP.size])
        return None if step < 0 else int(step)


# In the nursery.


def _serve() -> None:
    # Neither has begun anything yet that a fork would break.
    importlib.import_module("keras")
    importlib.import_module("colab_keras_bg.digits.program")
    answers = os.dup(1)
    os.write(answers, b"0\n")
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            os.close(answers)
            _train(json.loads(line))
        os.write(answers, b"%d\n" % child)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(answers, b"%d\n" % status)


def _train(request: dict[str, Any]) -> None:
    """The life of a training; never returns."""
    from colab_keras_bg import run as runs
    from colab_keras_bg.digits.program import main

    status = 1
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        with open(request["seen"], "r+b") as file:
            seen = mmap.mmap(file.fileno(), _STEP.size)

        class Watched(runs.Run):
            def at_step(self, step: int, *, epoch: int) -> None:
                super().at_step(step, epoch=epoch)
                seen[: _STEP.size] = _STEP.pack(step)

        with Watched(request["run_dir"], **request["settings"]) as run:
            runs._current.append(run)
            main(request["arguments"])
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
