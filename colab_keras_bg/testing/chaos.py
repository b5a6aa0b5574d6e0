"""Kills a training at random moments, and compares how it ends.

    python -m colab_keras_bg.testing.chaos --kills=30

Trains once without interruption; then starts the same training, kills it with
SIGKILL at a random moment, verifies the run directory, starts it again, and
so on; lets the last start run to its end; and compares weights, optimizer
state, history and metrics bit by bit.

Invariant: only processes that this one has started are killed, and a kill
that came too late is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.journal.metrics import METRICS, read_metrics
from colab_keras_bg.report.verification import verify_run
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.storage.records import DamagedRecordError, read_record

__all__ = ["Chaos", "Digest", "digest", "main"]

_VICTIMS = ("supervisor", "trainer", "both")


@dataclass(frozen=True)
class Digest:
    """What a finished run ended with, hashed.

    Attributes:
        step: Its last step.
        tensors: Of every variable: model, optimizer, metrics, seeds.
        history: Of the `History` that `fit` returned.
        metrics: Of `metrics.jsonl`, without the times.
    """

    step: int
    tensors: str
    history: str
    metrics: str


def digest(run_dir: str | os.PathLike[str]) -> Digest:
    """Hashes what a finished run ended with.

    Args:
        run_dir: The run directory.

    Raises:
        ValueError: If the run has not finished.
    """
    directory = RunDirectory(run_dir)
    final = directory.finals.latest()
    if final is None:
        raise ValueError(f"The run in {directory.path} has not finished.")
    hasher = hashlib.sha256()
    for key in sorted(final.tensors):
        array = final.tensors[key]
        hasher.update(f"{key} {array.dtype} {array.shape}\n".encode())
        hasher.update(array.tobytes())
    reports = [
        {name: value for name, value in report.items() if name != "time"}
        for report in read_metrics(directory.path / METRICS)
    ]
    return Digest(
        step=final.step,
        tensors=hasher.hexdigest(),
        history=_hash(final.state["history"]),
        metrics=_hash(reports),
    )


@dataclass
class Chaos:
    """A training that is killed again and again.

    Attributes:
        command: The command line that starts and continues it.
        run_dir: Its run directory.
        random: What the moments are drawn from.
        kills: Where each kill hit: the victim, and the committed step.
        damaged: What `verify` found after a kill, if anything.
        regressions: Commits that were lost by a kill.
    """

    command: Sequence[str]
    run_dir: Path
    random: random.Random
    kills: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    regressions: list[str] = field(default_factory=list)

    def kill_once(self, *, most_secs: float, patience_secs: float) -> bool:
        """Starts the training and kills it at a random moment.

        Args:
            most_secs: The latest moment, counted from the attempt's first
                commit; one kill in five comes before that.
            patience_secs: How long to wait for that commit.

        Returns:
            Whether it was killed; False if it had ended before.
        """
        before = self._committed()
        process = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            if self.random.random() < 0.2:
                _wait(process, self.random.uniform(0, 8))
            else:
                give_up = time.monotonic() + patience_secs
                while process.poll() is None and self._committed() == before:
                    if time.monotonic() > give_up:
                        raise TimeoutError("the training does not get on")
                    _wait(process, 0.01)
                _wait(process, self.random.uniform(0, most_secs))
            if process.poll() is not None:
                return False
            victim = self.random.choice(_VICTIMS)
            self._kill(process, victim)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        after = self._committed()
        self.kills.append(f"{victim} at {after}")
        if before is not None and (after is None or after < before):
            self.regressions.append(f"{before} was committed, then {after}")
        if self.run_dir.is_dir():
            self.damaged += verify_run(self.run_dir).damaged
        return True

    def finish(self) -> int:
        """Starts the training a last time; returns its exit status."""
        return subprocess.run(self.command, check=False).returncode

    def _kill(self, process: subprocess.Popen[bytes], victim: str) -> None:
        trainer = self._trainer_of(process)
        if victim in ("trainer", "both") and trainer is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trainer, signal.SIGKILL)
        if victim in ("supervisor", "both") or trainer is None:
            process.kill()
        process.wait()

    def _trainer_of(self, process: subprocess.Popen[bytes]) -> int | None:
        """The child of our own child, as Linux tells it."""
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with contextlib.suppress(OSError):
            children = path.read_text().split()
            return int(children[0]) if children else None
        return None

    def _committed(self) -> int | None:
        directory = RunDirectory(self.run_dir)
        with contextlib.suppress(DamagedRecordError):
            head = Head.read(directory.storage)
            return head.step if head else None
        return None

    def told_step(self) -> int | None:
        """The step that the last heartbeat told."""
        directory = RunDirectory(self.run_dir)
        record = read_record(directory.storage, STATUS) or {}
        step = record.get("step")
        return step if isinstance(step, int) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the whole and prints what came of it.

    Returns:
        0 if every kill was survived and the ends are equal, else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m colab_keras_bg.testing.chaos",
        description="Kill the built-in training at random moments, and "
        "compare how it ends with how it ends undisturbed.",
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--save_freq", default="3")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args(arguments)
    seed = options.seed
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    with contextlib.ExitStack() as stack:
        directory = options.directory
        if directory is None:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory("-chaos"))
            )
        return _run(options, seed, directory)


def _run(options: argparse.Namespace, seed: int, directory: Path) -> int:
    def command(name: str) -> list[str]:
        return [
            *(sys.executable, "-m", "colab_keras_bg", "train"),
            f"--run_dir={directory / name}",
            f"--save_freq={options.save_freq}",
            f"--epochs={options.epochs}",
        ]

    print(f"chaos seed {seed}, in {directory}", flush=True)
    started = time.monotonic()
    subprocess.run(command("undisturbed"), check=True)
    whole_secs = time.monotonic() - started
    chaos = Chaos(command("killed"), directory / "killed", random.Random(seed))
    while len(chaos.kills) < options.kills:
        killed = chaos.kill_once(
            most_secs=2 * whole_secs / options.kills, patience_secs=300
        )
        if not killed:
            print("the training has ended before all kills; fewer are counted")
            break
        print(f"kill {len(chaos.kills)}: {chaos.kills[-1]}", flush=True)
    status = chaos.finish()
    expected, found = (
        digest(directory / "undisturbed"),
        digest(directory / "killed"),
    )
    equal = expected == found
    print(f"undisturbed: {expected}\nkilled:      {found}")
    for line in chaos.damaged + chaos.regressions:
        print(f"WRONG: {line}")
    print(
        f"{len(chaos.kills)} kills, exit status {status}, "
        f"{len(chaos.damaged)} damaged, {len(chaos.regressions)} commits lost, "
        f"ends are {'bit-identical' if equal else 'DIFFERENT'}"
    )
    good = equal and not status and not chaos.damaged and not chaos.regressions
    return 0 if good else 1


def _wait(process: subprocess.Popen[bytes], secs: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(secs)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
