"""Runs the command line as a person does, on programs of a few lines.

The programs import neither Keras nor a backend, so that a trainer starts in
well under a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from waiting import until

import colab_keras_bg
from colab_keras_bg.journal.console_reading import ConsoleReader
from colab_keras_bg.storage.local import LocalStorage

__all__ = ["WAITS", "Ended", "Workplace"]

SOURCE = Path(colab_keras_bg.__file__).parents[1]

# A program that tells that it is there, and then only waits.
WAITS = """\
import pathlib, threading
print("here")
pathlib.Path("started").touch()
threading.Event().wait()
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: bytes
    err: str


class Workplace:
    """A directory with programs and runs, and the processes started there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started: list[subprocess.Popen[bytes]] = []

    def program(self, source: str, *, name: str = "program.py") -> str:
        """Writes a program; returns its name."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return name

    def start(
        self,
        *arguments: str,
        python: str = "-m colab_keras_bg",
        environment: Mapping[str, str] | None = None,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Starts a command; it is killed when the test ends."""
        paths = [str(SOURCE), os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable, *python.split(), *arguments],
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "PYTHONUNBUFFERED": "",  # Ours to decide.
                **(environment or {}),
            },
        )
        self._started.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> Ended:
        """Waits until a command has ended."""
        out, err = process.communicate(timeout=60)
        return Ended(process.returncode, out or b"", (err or b"").decode())

    def run(self, *arguments: str, **settings: Any) -> Ended:
        """Runs a command to its end."""
        return self.end(self.start(*arguments, **settings))

    def train(self, *arguments: str, **settings: Any) -> Ended:
        """Trains in the run directory `run`."""
        return self.run("train", "--run_dir=run", *arguments, **settings)

    def start_waiting(self, **settings: Any) -> subprocess.Popen[bytes]:
        """Starts a program that waits, and returns when it does."""
        program = self.program(settings.pop("source", WAITS), name="waits.py")
        (self.path / "started").unlink(missing_ok=True)
        process = self.start("train", "--run_dir=run", program, **settings)
        until((self.path / "started").exists, what="the program has started")
        return process

    @property
    def run_dir(self) -> Path:
        return self.path / "run"

    def record(self, name: str) -> dict[str, Any]:
        """A record of the run."""
        record: dict[str, Any] = json.loads((self.run_dir / name).read_text())
        return record

    def attempts(self) -> list[str]:
        """The folders of the run's attempts."""
        return sorted(p.name for p in (self.run_dir / "attempts").iterdir())

    def console(self, attempt: int = 1) -> bytes:
        """What an attempt's program has printed, as it is kept."""
        ours = b"colab-keras-bg: "
        return b"".join(
            line + b"\n"
            for line in self.console_lines(attempt)
            if not line.startswith(ours)
        )

    def console_lines(self, attempt: int = 1) -> list[bytes]:
        """All that is kept of an attempt's console, what we say, too."""
        reader = ConsoleReader(
            LocalStorage(self.run_dir), wanted=lambda number: number == attempt
        )
        return [line.text for line in reader.all_lines(self.run_dir)]

    def files(self) -> dict[str, bytes]:
        """Everything below the workplace, by name."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    def close(self) -> None:
        """Kills what the test has started and left."""
        for process in self._started:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
