"""However a training is interrupted, and how often."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import keras
import pytest
from cases import CASES, not_here
from fresh_process import (
    Interruption,
    assert_exact,
    at_random,
    attempt,
    committed_step,
    undisturbed,
)

KINDS = ["exception", "SIGINT", "SIGTERM"]
DATA = [
    "bg.data.arrays",
    "arrays",
    "a PyDataset with workers",
    "a generator",
    *(["tf.data"] if keras.backend.backend() == "tensorflow" else []),
]


@pytest.mark.parametrize("name", DATA)
def test_ended_by_other_means(name: str, tmp_path: Path) -> None:
    """
    An exception, Ctrl-C and SIGTERM, one after the other at random batches,
    change nothing at the end either.
    """
    attempts = assert_exact(
        name, tmp_path / "run", at_random(name, kinds=KINDS)
    )
    assert [1, 1, 75, 0] == [one.status for one in attempts]
    assert "RuntimeError: an interruption" in attempts[0].printed
    assert "KeyboardInterrupt" in attempts[1].printed


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT"])
def test_ended_at_any_moment(kind: str, tmp_path: Path) -> None:
    """
    Interrupted at random moments, wherever it is then, in the middle of a
    save, too, a training ends with the same bits.
    """
    drawn = random.Random(5)
    moments = [
        Interruption(kind, millis=drawn.randrange(20, 500)) for _ in range(6)
    ]
    attempts = assert_exact(
        "bg.data.arrays", tmp_path / "run", moments, settled=False
    )
    interrupted = [one for one in attempts if one.end is None]
    assert interrupted, "no interruption came while it trained"
    if kind == "SIGKILL":
        assert {-signal.SIGKILL} == {one.status for one in interrupted}


def test_never_backwards(tmp_path: Path) -> None:
    """
    Interrupted again and again at the batch after the same commit, a training
    stays there: no batch before the commit is ever trained again.
    """
    run_dir = tmp_path / "run"
    name = "bg.data.arrays"
    attempt(name, run_dir, Interruption(batches=11))
    assert 10 == committed_step(run_dir)
    for _ in range(3):
        again = attempt(name, run_dir, Interruption(batches=1))
        assert [[1, 3]] == again.batches
        assert 10 == committed_step(run_dir)
    last = attempt(name, run_dir)
    assert undisturbed(name)["variables"] == last.end["variables"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CASES)
def test_every_case_by_every_means(name: str, tmp_path: Path) -> None:
    """
    Each case there is, killed three times and then ended by other means, all
    at random batches; another CHAOS_SEED in the environment draws others.
    """
    if (reason := not_here(name)) is not None:
        pytest.skip(reason)
    kinds = ["SIGKILL", "SIGKILL", "SIGKILL", *KINDS]
    assert_exact(name, tmp_path / "run", at_random(name, kinds=kinds))
