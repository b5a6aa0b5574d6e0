"""Loses machines at random moments, and sees whether the run survives.

    python -m colab_keras_bg.testing.lost_machines --kills=50
    python -m colab_keras_bg.testing.lost_machines --storage=drive --faults=0.1

Trains once undisturbed, on this machine's disk. Then it starts the same
training with its run directory on a loopback server (or in the double of a
mounted Drive), kills supervisor, trainer and sidecar together at a random
moment, deletes the machine's disk in about half of the cases, verifies what
is far away, and runs the same command again; until there were kills enough.
Meanwhile the server fails at random, as often as it is told to. In the end
the training is let run to its end, and that is compared bit by bit.

Invariant: what was once told to be durable is there after every kill, and
verifies; a kill that came too late is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colab_keras_bg.testing.loopback_drive import LoopbackDrive
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs
from colab_keras_bg.testing.mounted_folder import MountedFolder

__all__ = ["LostMachines", "far_end", "main"]

_SPOOLS = "COLAB_KERAS_BG_SPOOLS"
_DONE = 0  # The exit status.
_PATIENCE_SECS = 600.0


@dataclass
class LostMachines:
    """A training of which the machines are lost.

    Attributes:
        arguments: What comes after `train`, without the run directory.
        run_dir: The run directory, far away.
        environment: What leads a process there.
        directory: Where the machines' disks are.
        draw: What moments are drawn from.
        calm: Ends all faults of the far end, and begins them anew.
        kills: What was durable at each kill.
        wrong: What should not have happened, in words.
    """

    arguments: Sequence[str]
    run_dir: str
    environment: Mapping[str, str]
    directory: Path
    draw: random.Random
    calm: Callable[[bool], None] = lambda _: None
    kills: list[int | None] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _machine: int = 0
    _durable: int | None = None

    def kill_once(self, *, most_secs: float, disk_too: float = 0.5) -> bool:
        """Runs the training on a machine, and loses that.

        Args:
            most_secs: The latest moment, from the first sign that the attempt
                has made something durable; one kill in five comes before.
            disk_too: How often the disk is lost with it.

        Returns:
            Whether it was killed; False if the training had ended before.
        """
        process = self._start()
        early = self.draw.random() < 0.2
        before, begun = self._durable, time.monotonic()
        give_up = begun + (most_secs if early else _PATIENCE_SECS)
        while process.poll() is None and time.monotonic() < give_up:
            if not early and self._told() not in (None, before):
                break
            time.sleep(0.02)
        else:
            if process.poll() is None and not early:
                self.wrong.append("the training does not get on")
        give_up = time.monotonic() + self.draw.uniform(0, most_secs)
        while process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.02)
        status = process.poll()
        if status == _DONE:
            return False
        if status is not None:
            self.wrong.append(f"an attempt ended with {status}: {self._log()}")
        durable = self._told()
        process.kill()
        process.wait()
        self._kill_sidecars()
        self.kills.append(durable)
        if durable is not None:
            self._durable = max(durable, self._durable or 0)
        if self.draw.random() < disk_too:
            shutil.rmtree(self._disk, ignore_errors=True)
            self._machine += 1
        self._verify()
        return True

    def finish(self) -> int:
        """Lets the training run to its end; returns its exit status."""
        process = self._start()
        process.wait(_PATIENCE_SECS)
        self._verify()
        return process.returncode

    def export(self, path: Path, *, run_dir: str | None = None) -> bytes:
        """What the run came to.

        Args:
            path: A file of weights to write.
            run_dir: Another run.
        """
        self._command("export", run_dir or self.run_dir, f"--out={path}")
        return path.read_bytes()

    @property
    def _disk(self) -> Path:
        return self.directory / f"machine-{self._machine}"

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **self.environment,
            _SPOOLS: str(self._disk / "spools"),
        }

    def _start(self) -> subprocess.Popen[bytes]:
        self._disk.mkdir(parents=True, exist_ok=True)
        with (self._disk / "console.txt").open("ab") as console:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "colab_keras_bg", "train"),
                    *(f"--run_dir={self.run_dir}", "--take_over"),
                    *self.arguments,
                ],
                stdout=console,
                stderr=console,
                env=self._environment(),
                start_new_session=True,
            )

    def _command(self, *arguments: str) -> str:
        """Runs a command from nowhere, while nothing fails."""
        self.calm(True)
        done = subprocess.run(
            [sys.executable, "-m", "colab_keras_bg", *arguments],
            env={**self._environment(), _SPOOLS: str(self.directory / "none")},
            capture_output=True,
            text=True,
            check=False,
        )
        self.calm(False)
        if done.returncode:
            said = f"{done.stdout} {done.stderr}".strip()
            self.wrong.append(f"{arguments[0]}: {said[-500:]}")
        return done.stdout

    def _verify(self) -> None:
        if self._durable is None:
            return  # There may be nothing yet.
        self._command("verify", self.run_dir)
        told = json.loads(self._command("status", "--json", self.run_dir))
        there = told["durable_step"] or told["unconfirmed_step"] or -1
        if there < self._durable:
            self.wrong.append(f"{self._durable} was durable, then {there}")

    def _reports(self) -> list[dict[str, Any]]:
        found = []
        for path in self._disk.glob("spools/*/.sidecar/report.json"):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_text()))
        return found

    def _told(self) -> int | None:
        """What the sidecar last told to be durable."""
        steps = [report.get("durable_step") for report in self._reports()]
        return max((step for step in steps if step is not None), default=None)

    def _kill_sidecars(self) -> None:
        for report in self._reports():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(report["pid"]), signal.SIGKILL)

    def _log(self) -> str:
        with contextlib.suppress(OSError):
            return (self._disk / "console.txt").read_text()[-500:]
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the whole and prints what came of it.

    Returns:
        0 if every loss was survived and the ends are equal, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m colab_keras_bg.testing.lost_machines",
        description="Lose machines at random moments of the built-in "
        "training, and compare how it ends with how it ends undisturbed.",
    )
    add = parser.add_argument
    add("--storage", default="gcs", choices=["gcs", "drive", "mounted"])
    add("--kills", type=int, default=50)
    add("--faults", type=float, default=0.05, help="the part of all requests")
    add("--epochs", type=int, default=12)
    add("--save_freq", default="5")
    add("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = options.seed
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    with contextlib.ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory("-lost"))
        )
        print(f"seed {seed}, in {directory}", flush=True)
        run_dir, environment, calm = far_end(
            options.storage, directory, stack, seed=seed, rate=options.faults
        )
        lost = LostMachines(
            [
                f"--epochs={options.epochs}",
                f"--save_freq={options.save_freq}",
                "--seed=3",
            ],
            run_dir,
            environment,
            directory,
            random.Random(seed),
            calm,
        )
        return _run(lost, kills=options.kills)


def far_end(
    storage: str,
    directory: Path,
    stack: contextlib.ExitStack,
    *,
    seed: int,
    rate: float,
) -> tuple[str, dict[str, str], Callable[[bool], None]]:
    """A place far away that is not.

    Args:
        storage: Its kind: "gcs", "drive" or "mounted".
        directory: Where a folder may lie.
        stack: Ends it.
        seed: What faults are drawn from.
        rate: Which part of all requests fails.

    Returns:
        A run directory, what leads a process there, and what ends faults.
    """
    if storage == "mounted":
        drive = stack.enter_context(MountedFolder(directory / "drive"))
        return str(drive.path / "runs" / "a"), drive.environment, lambda _: None
    server: LoopbackGcs | LoopbackDrive
    if storage == "drive":
        server, run_dir = LoopbackDrive(["runs"]), "drive://runs/a"
    else:
        server, run_dir = LoopbackGcs(["bucket"]), "gs://bucket/runs/a"
    stack.enter_context(server)

    def calm(is_calm: bool) -> None:
        server.faults.clear()
        if not is_calm:
            server.faults.strike_randomly(seed, rate)

    calm(False)
    return run_dir, server.environment, calm


def _run(lost: LostMachines, *, kills: int) -> int:
    local = lost.directory / "undisturbed"
    undisturbed = subprocess.run(
        [
            *(sys.executable, "-m", "colab_keras_bg", "train"),
            *(f"--run_dir={local}", *lost.arguments),
        ],
        capture_output=True,
        check=False,
    )
    if undisturbed.returncode:
        print(f"the undisturbed training ended with {undisturbed.returncode}")
        return 1
    expected = lost.export(
        lost.directory / "expected.weights.h5", run_dir=str(local)
    )
    while len(lost.kills) < kills and lost.kill_once(most_secs=4.0):
        print(
            f"{len(lost.kills)} lost, durable: {lost.kills[-1]}, "
            f"{len(lost.wrong)} wrong",
            flush=True,
        )
    status = lost.finish()
    found = lost.export(lost.directory / "found.weights.h5")
    for line in lost.wrong:
        print(f"WRONG: {line}")
    equal = found == expected
    print(
        f"{len(lost.kills)} machines lost; the last attempt ended with "
        f"{status}; the end is {'bit-identical' if equal else 'DIFFERENT'}; "
        f"{len(lost.wrong)} wrong"
    )
    return 0 if equal and not status and not lost.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
