"""Attempts in fresh processes, each a fork of one that has imported Keras.

Importing TensorFlow takes longer than these trainings. So one process, the
nursery, imports it and runs nothing; each attempt is a fork of it, with its own
memory, threads and open files, and can be killed like any other process.

As a program, this file is the nursery: a request a line on its input, an
answer a line on its output.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Attempt",
    "Interruption",
    "assert_exact",
    "at_each_kind_of_position",
    "at_random",
    "attempt",
    "committed_step",
    "undisturbed",
]

_TIMEOUT_SECS = 240
_READY = "ready"


@dataclass(frozen=True)
class Interruption:
    """How an attempt ends before its time.

    Attributes:
        kind: `SIGKILL`, `SIGTERM`, `SIGINT` or `exception`.
        batches: After so many batches of this attempt.
        hook: Or in this hook, `on_epoch_begin:1`.
        millis: Or at a moment: so many milliseconds after the training began,
            wherever it is then.
    """

    kind: str = "SIGKILL"
    batches: int | None = None
    hook: str = ""
    millis: int | None = None


@dataclass
class Attempt:
    """What came of one attempt.

    Attributes:
        end: As `harness.End`, if the training came to its end.
        batches: The (epoch, batch) that another callback saw.
        printed: Both of its outputs.
        status: As `os.waitstatus_to_exitcode`.
    """

    end: dict[str, Any] | None
    batches: list[list[int]]
    printed: str
    status: int


def at_random(name: str, *, kinds: Sequence[str]) -> list[Interruption]:
    """Interruptions after random batches of the whole training.

    Args:
        name: The case's; the moments are drawn from it, and from the
            environment's CHAOS_SEED.
        kinds: Of the interruptions, one after the other.
    """
    seed = f"{name}{os.environ.get('CHAOS_SEED', '')}"
    drawn = random.Random(zlib.crc32(seed.encode()))
    turns = len(undisturbed(name)["batches"])
    ends = sorted(drawn.sample(range(1, turns), len(kinds)))
    # An attempt goes on one batch before the last that the one before saw.
    counts = [ends[0], *(b - a + 1 for a, b in itertools.pairwise(ends))]
    return [
        Interruption(kind, batches=count)
        for kind, count in zip(kinds, counts, strict=True)
    ]


def at_each_kind_of_position(name: str) -> list[Interruption]:
    """SIGKILL after an epoch's first batch, in its middle, and so on.

    In the first two epochs of the case: after the first batch, in the middle,
    before the last, between the epochs, and after the first batch of the next.
    """
    epochs = [epoch for epoch, _ in undisturbed(name)["batches"]]
    first, turns = epochs[0], epochs.count(epochs[0])
    committed = sorted({1, (turns + 1) // 2, turns - 1} - {0})
    counts = [b - a + 1 for a, b in itertools.pairwise([0, *committed])]
    return [
        *(Interruption(batches=count) for count in counts),
        Interruption(hook=f"on_epoch_begin:{first + 1}"),
        Interruption(batches=2),
    ]


def attempt(
    name: str,
    run_dir: Path | None,
    interruption: Interruption | None = None,
    *,
    save_freq: Any = 1,
    settled: bool = True,
    deterministic: bool = False,
    tensorboard: int = 10,
) -> Attempt:
    """Runs one attempt at a case in a fresh process.

    Args:
        name: The case's name in `cases.CASES`.
        run_dir: The run directory; None for a training without us.
        interruption: How it ends before its time, if it does.
        save_freq: As for `bg.Run`.
        settled: Whether each save is waited for.
        deterministic: Whether to turn on the backend's determinism.
        tensorboard: Every how many batches TensorBoard is told.
    """
    with tempfile.TemporaryDirectory() as directory:
        request = {
            "case": name,
            "run_dir": None if run_dir is None else str(run_dir),
            "interruption": (
                None
                if interruption is None
                else dataclasses.asdict(interruption)
            ),
            "save_freq": save_freq,
            "settled": settled,
            "deterministic": deterministic,
            "tensorboard": tensorboard,
            "out": directory,
        }
        status = _nursery().ask(request)
        out = Path(directory)
        end = out / "end.json"
        seen = out / "batches"
        return Attempt(
            end=json.loads(end.read_text()) if end.exists() else None,
            batches=[
                json.loads(line)
                for line in (
                    seen.read_text().splitlines() if seen.exists() else ()
                )
            ],
            printed=(out / "printed").read_text(errors="replace"),
            status=status,
        )


@functools.cache
def undisturbed(name: str) -> dict[str, Any]:
    """How a case ends if nothing interrupts it and nothing is saved."""
    from cases import CASES

    if CASES[name].protected:
        with tempfile.TemporaryDirectory() as directory:
            done = attempt(name, Path(directory), save_freq=10**9)
    else:
        done = attempt(name, None)
    assert done.end is not None, done.printed
    return done.end


def assert_exact(
    name: str,
    run_dir: Path,
    interruptions: Sequence[Interruption],
    *,
    save_freq: Any = 1,
    settled: bool = True,
) -> list[Attempt]:
    """Interrupted as given, the training ends as if it never had been.

    Returns:
        The attempts.
    """
    expected = undisturbed(name)
    attempts: list[Attempt] = []
    for interruption in [*interruptions, None]:
        committed = committed_step(run_dir)
        now = attempt(
            name,
            run_dir,
            interruption,
            save_freq=save_freq,
            settled=settled,
        )
        attempts.append(now)
        if interruption is not None and interruption.millis is None:
            assert now.end is None, "the interruption did not come"
        if interruption is not None and interruption.kind == "SIGKILL":
            assert now.status in (-signal.SIGKILL, 0), now.printed
        if expected["steps_per_execution"] == 1:
            # No batch before the commit is seen again, and none is left out.
            rest = expected["batches"][committed:]
            assert rest[: len(now.batches)] == now.batches
    last = attempts[-1]
    assert last.end is not None, last.printed
    assert 0 == last.status, last.printed
    assert expected["history"] == last.end["history"]
    assert expected["variables"] == last.end["variables"]
    return attempts


def committed_step(run_dir: Path) -> int:
    """The newest committed step, from the folders."""
    manifests = run_dir.glob("checkpoints/step-*/manifest.json")
    return max((int(m.parent.name[5:]) for m in manifests), default=0)


class _Nursery:
    """The process that attempts are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read(_READY)

    def ask(self, request: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def _read(self, expected: str | None = None) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the nursery has died"
        assert expected in (None, line), line
        return line


@functools.cache
def _nursery() -> _Nursery:
    return _Nursery()  # Ends when its input does, with us.


# In the nursery.


def _requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _serve() -> None:
    import cases  # noqa: F401 - imports Keras and all that cases need
    import harness  # noqa: F401

    if importlib.util.find_spec("tensorflow") is not None:
        import tensorflow  # noqa: F401 - tf.data on another backend
    answers = os.fdopen(os.dup(1), "w")
    print(_READY, file=answers, flush=True)
    for request in _requests():
        child = os.fork()
        if child == 0:
            _die_after(_TIMEOUT_SECS)
            _run(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _die_after(secs: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(secs)


def _run(request: dict[str, Any]) -> None:
    """The life of an attempt; never returns."""
    out = Path(request["out"])
    printed = os.open(out / "printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    status = 1
    try:
        _train(request, out)
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - as an interpreter ends
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _train(request: dict[str, Any], out: Path) -> None:
    import keras
    from cases import CASES
    from harness import UNWATCHED, Settled, Witness, end_of

    import colab_keras_bg as bg
    from colab_keras_bg.cli.termination import exit_on_sigterm

    signal.signal(signal.SIGINT, signal.default_int_handler)
    exit_on_sigterm(75)  # As under `colab-keras-bg train`.
    case = CASES[request["case"]]
    if request["deterministic"]:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(11)
    with case.scope():
        model = case.model()
    args, kwargs = case.data()
    witness = Witness([], log=out / "batches")

    def fit(callbacks: list[Any]) -> None:
        history = model.fit(
            *args,
            **kwargs,
            epochs=case.epochs,
            verbose=0,
            callbacks=callbacks,
        )
        end = dataclasses.asdict(end_of(model, history, witness.batches))
        end["steps_per_execution"] = int(model.steps_per_execution)
        (out / "end.json").write_text(json.dumps(end))

    others = [*case.callbacks(), witness]
    if request["run_dir"] is None:
        fit(others)
        return
    resumed = committed_step(Path(request["run_dir"])) > 0
    if resumed and not case.draws_before:
        _scramble()
    run = bg.Run(
        request["run_dir"], save_freq=request["save_freq"], **UNWATCHED
    )
    with run:
        added = [Settled(run)] if request["settled"] else []
        if request["interruption"] is not None:
            interruption = Interruption(**request["interruption"])
            added.append(_interrupting(interruption))
        ours = run.callbacks(tensorboard=request["tensorboard"])
        fit([*ours, *others, *added])


def _scramble() -> None:
    """Brings the generators elsewhere: a program need not seed them all."""
    import keras
    import numpy as np

    random.seed(99)
    np.random.seed(99)
    if keras.backend.backend() == "torch":
        import torch

        torch.manual_seed(99)


def _strike(kind: str) -> None:
    if kind == "exception":
        raise RuntimeError("an interruption")
    os.kill(os.getpid(), getattr(signal, kind))


def _interrupting(interruption: Interruption) -> Any:
    import keras

    hook, _, number = interruption.hook.partition(":")

    class Interrupting(keras.callbacks.Callback):
        async_safe = False

        def __init__(self) -> None:
            super().__init__()
            self._left = interruption.batches

        def on_train_begin(self, logs: Any = None) -> None:
            if interruption.millis is not None:
                timer = threading.Timer(
                    interruption.millis / 1000, _strike, [interruption.kind]
                )
                timer.daemon = True
                timer.start()

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if hook == "on_epoch_begin" and epoch == int(number):
                _strike(interruption.kind)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if hook == "on_epoch_end" and epoch == int(number):
                _strike(interruption.kind)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    _strike(interruption.kind)

        def get_state(self) -> dict[str, Any]:
            return {}

        def set_state(self, state: dict[str, Any]) -> None:
            pass

    return Interrupting()


if __name__ == "__main__":
    _serve()
