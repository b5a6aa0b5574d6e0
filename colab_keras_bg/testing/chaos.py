"""Kills a training at random moments, and compares how it ends.

    python -m colab_keras_bg.testing.chaos --kills=30
    python -m colab_keras_bg.testing.chaos --kills=1000 --forked

Trains once without interruption; then starts the same training, kills it with
SIGKILL at a random moment, verifies the run directory, starts it again, and
so on, until it has come to its end; compares weights, optimizer state, history
and metrics bit by bit; and begins with another, until there were kills enough.

Invariant: a kill that came too late is not counted, and a training that has
not come to its end is let run to it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.journal.metrics import METRICS, read_metrics
from colab_keras_bg.report.verification import verify_run
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.storage.records import DamagedRecordError
from colab_keras_bg.testing.victims import Command, Forked, Nursery, Victim

__all__ = ["Chaos", "Digest", "digest", "main"]


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
        start: Starts and continues it.
        run_dir: Its run directory.
        draw: What the moments are drawn from.
        kills: Where each kill hit: the victim, and the committed step.
        lost: Steps that were trained and not committed, at each kill where
            that is known.
        damaged: What `verify` found after a kill, if anything.
        regressions: Commits that were lost by a kill.
    """

    start: Callable[[], Victim]
    run_dir: Path
    draw: random.Random
    kills: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    regressions: list[str] = field(default_factory=list)

    def kill_once(
        self, *, most_secs: float, early_secs: float, patience_secs: float
    ) -> bool:
        """Starts the training and kills it at a random moment.

        Args:
            most_secs: The latest moment, counted from the attempt's first
                commit; one kill in five comes before that.
            early_secs: The latest moment of those, from its start.
            patience_secs: How long to wait for that commit.

        Returns:
            Whether it was killed; False if it had ended before.
        """
        before = self._committed()
        victim = self.start()
        if self.draw.random() < 0.2:
            victim.ended(within_secs=self.draw.uniform(0, early_secs))
        else:
            give_up = time.monotonic() + patience_secs
            while self._committed() == before:
                if victim.ended(within_secs=0.005) is not None:
                    break
                if time.monotonic() > give_up:
                    victim.kill(self.draw)
                    raise TimeoutError("the training does not get on")
            victim.ended(within_secs=self.draw.uniform(0, most_secs))
        status = victim.ended()
        if status is not None:
            if status:
                self.damaged.append(f"it ended with {status}")
            return False
        who = victim.kill(self.draw)
        after, step = self._committed(), victim.step
        self.kills.append(f"{who} at {after}")
        if step is not None:
            self.lost.append(step - (after or 0))
        if before is not None and (after is None or after < before):
            self.regressions.append(f"{before} was committed, then {after}")
        if self.run_dir.is_dir():
            self.damaged += verify_run(self.run_dir).damaged
        return True

    def _committed(self) -> int | None:
        directory = RunDirectory(self.run_dir)
        with contextlib.suppress(DamagedRecordError):
            head = Head.read(directory.storage)
            return head.step if head else None
        return None


@dataclass
class _Tally:
    """What has come of all trainings so far."""

    trainings: int = 0
    kills: int = 0
    different: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def add(self, chaos: Chaos, *, status: int | None, equal: bool) -> None:
        self.trainings += 1
        self.kills += len(chaos.kills)
        self.lost += chaos.lost
        self.wrong += chaos.damaged + chaos.regressions
        if status:
            self.wrong.append(f"the last attempt ended with {status}")
        self.different += not equal

    def __str__(self) -> str:
        lost = "not counted"
        if self.lost:
            half, most = statistics.median(self.lost), max(self.lost)
            lost = f"{half:.0f} in the middle, {most} at most"
        return (
            f"{self.kills} kills in {self.trainings} training(s): "
            f"{self.trainings - self.different} ended bit-identical, "
            f"{self.different} DIFFERENT, {len(self.wrong)} damaged or lost "
            f"commits; steps lost by a kill: {lost}"
        )


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
    parser.add_argument(
        "--forked",
        action="store_true",
        help="fork the trainings from a process that has imported Keras, in "
        "place of starting the whole command: a kill takes a second or two",
    )
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
        start: Callable[[Path], Victim]
        if options.forked:
            nursery = stack.enter_context(contextlib.closing(Nursery()))

            def start(run_dir: Path) -> Victim:
                return Forked(
                    nursery,
                    run_dir,
                    [f"--epochs={options.epochs}"],
                    save_freq=options.save_freq,
                )
        else:

            def start(run_dir: Path) -> Victim:
                return Command(
                    [
                        *(sys.executable, "-m", "colab_keras_bg", "train"),
                        f"--run_dir={run_dir}",
                        f"--save_freq={options.save_freq}",
                        f"--epochs={options.epochs}",
                    ]
                )

        return _run(options, seed, directory, start)


def _run(
    options: argparse.Namespace,
    seed: int,
    directory: Path,
    start: Callable[[Path], Victim],
) -> int:
    print(f"chaos seed {seed}, in {directory}", flush=True)
    directory.mkdir(parents=True, exist_ok=True)
    undisturbed, draw, tally = (
        directory / "undisturbed",
        random.Random(seed),
        _Tally(),
    )
    started = time.monotonic()
    status = start(undisturbed).ended(within_secs=3600)
    if status:
        print(f"the undisturbed training ended with {status}")
        return 1
    whole_secs = time.monotonic() - started
    expected = digest(undisturbed)
    while tally.kills < options.kills:
        run_dir = directory / f"killed-{tally.trainings + 1}"
        chaos = Chaos(lambda path=run_dir: start(path), run_dir, draw)  # type: ignore[misc]
        wanted = options.kills - tally.kills
        while len(chaos.kills) < wanted and chaos.kill_once(
            most_secs=whole_secs / 10,
            early_secs=min(8.0, whole_secs / 2),
            patience_secs=300,
        ):
            pass
        status = start(run_dir).ended(within_secs=3600)
        equal = digest(run_dir) == expected
        tally.add(chaos, status=status, equal=equal)
        print(f"{chaos.kills[-3:]} and the like\n{tally}", flush=True)
        for line in chaos.damaged + chaos.regressions:
            print(f"WRONG: {line}")
        if equal and not chaos.damaged and not chaos.regressions:
            shutil.rmtree(run_dir)  # What went wrong is left to be looked at.
        if not chaos.kills:
            print("a training ends before it can be killed: give more --epochs")
            return 1
    good = not tally.different and not tally.wrong
    return 0 if good else 1


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
