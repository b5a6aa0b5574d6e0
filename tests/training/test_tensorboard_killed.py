"""TensorBoard's own readers on runs that were killed."""

from __future__ import annotations

import contextlib
import random
from functools import partial
from pathlib import Path

import keras
import pytest
from cases import CASES
from fresh_process import Interruption, attempt, committed_step, undisturbed
from harness import UNWATCHED, CutAt, PowerCut, Settled
from tensorboards import SERVERS, Server, Shown, accumulated, serving
from waiting import until

import colab_keras_bg as bg
from colab_keras_bg.journal.metrics import read_metrics

CASE = "bg.data.arrays"
FREQ = 3  # Batches between two saves.
# After so many batches of each attempt: before the first save, in the middle
# of an epoch and at its end, and twice without a save between.
KILLS = (2, 6, 5, 1, 9)


def train(run_dir: Path, batches: int | None = None, **more: object) -> None:
    """One attempt, killed after so many batches or at its end."""
    kill = None if batches is None else Interruption(batches=batches)
    done = attempt(CASE, run_dir, kill, save_freq=FREQ, tensorboard=1, **more)
    assert (done.end is None) == (batches is not None), done.printed
    assert "TensorBoard" not in done.printed


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """What a run shows that nothing interrupts."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(run_dir)
    found = accumulated(run_dir / "tensorboard")
    steps = len(undisturbed(CASE)["batches"])
    assert [*range(1, steps + 1)] == steps_of(found, "train", "batch_loss")
    return found


def steps_of(shown: Shown, folder: str, tag: str) -> list[int]:
    """At which steps a tag is shown."""
    return [step for step, _ in shown[folder][tag]]


def comparable(shown: Shown) -> Shown:
    """Without what a TensorBoard rounds, and without empty tags."""
    return {
        folder: {
            tag: [(step, float(f"{value:.5g}")) for step, value in points]
            for tag, points in sorted(tags.items())
            if points
        }
        for folder, tags in sorted(shown.items())
        if any(tags.values())
    }


def test_each_step_once(expected: Shown, tmp_path: Path) -> None:
    """
    Killed five times, a run shows what an undisturbed one shows, each step of
    each tag once, to a reader that comes after it; and after each kill
    nothing is missing up to the last commit.
    """
    run_dir = tmp_path / "run"
    for batches in KILLS:
        train(run_dir, batches)
        found = accumulated(run_dir / "tensorboard")
        shown = found.get("train", {}).get("batch_loss", [])
        committed = committed_step(run_dir)
        assert expected["train"]["batch_loss"][: len(shown)] == shown
        assert committed <= len(shown)
    train(run_dir)
    assert expected == accumulated(run_dir / "tensorboard")


def test_at_any_moment(expected: Shown, tmp_path: Path) -> None:
    """
    The same when it is killed at random moments, in the middle of a record or
    of a save, too.
    """
    run_dir, drawn = tmp_path / "run", random.Random(7)
    for _ in range(4):
        moment = Interruption(millis=drawn.randrange(20, 400))
        attempt(
            CASE, run_dir, moment, save_freq=1, settled=False, tensorboard=1
        )
        for path in (run_dir / "tensorboard").rglob("*.tfevents.*"):
            with path.open("ab") as file:  # What a torn write leaves.
                file.write(b"\x30\0\0\0\0\0\0\0\x12")
            break
    train(run_dir)
    found = accumulated(run_dir / "tensorboard")
    for folder, tags in expected.items():
        assert tags == found[folder]


def test_watched_from_the_beginning(expected: Shown, tmp_path: Path) -> None:
    """
    A TensorBoard that was watching from the first kill to the last shows in
    the end what one shows that is started then, which is what an undisturbed
    run shows: each step once, by either of its readers.
    """
    run_dir = tmp_path / "run"
    root = run_dir / "tensorboard"
    root.mkdir(parents=True)

    def has_seen(server: Server) -> bool:
        """Whether the server has seen all that is on disk."""
        there = accumulated(root)["train"]["batch_loss"]
        shown = server.shown().get("train", {}).get("batch_loss", [])
        return bool(shown) and shown[-1][0] >= there[-1][0]

    def shows_all(server: Server) -> bool:
        return comparable(server.shown()) == comparable(expected)

    with contextlib.ExitStack() as started:
        servers = [
            started.enter_context(
                serving(root, kind=kind, tensorflow=kind == "Python")
            )
            for kind in SERVERS
        ]
        for batches in KILLS:
            train(run_dir, batches)
            for server in servers:
                until(partial(has_seen, server), what="it has been read")
        train(run_dir)
        servers += [
            started.enter_context(serving(root, kind=kind)) for kind in SERVERS
        ]
        for server in servers:
            until(partial(shows_all, server), what="all of it is shown")


def test_from_the_beginning_again(tmp_path: Path, expected: Shown) -> None:
    """
    Killed before the first save, it begins at 0 again, and nothing from
    before is shown.
    """
    run_dir = tmp_path / "run"
    train(run_dir, 2)
    assert 0 == committed_step(run_dir)
    train(run_dir, 1)
    found = accumulated(run_dir / "tensorboard").get("train", {})
    shown = found.get("batch_loss", [])  # What was on its way is gone.
    assert expected["train"]["batch_loss"][:1][: len(shown)] == shown


def test_what_a_user_logs_at_each_batch(tmp_path: Path) -> None:
    """
    Numbers that a callback of the user's logs at each batch are there once
    for each step, too, for TensorBoard and in the metrics.
    """
    run_dir = tmp_path / "run"

    class Logs(keras.callbacks.Callback):
        def __init__(self, run: bg.Run) -> None:
            super().__init__()
            self._of_run = run

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self._of_run.log(seen=1, note="text")

        def get_state(self) -> dict[str, object]:
            return {}

        def set_state(self, state: object) -> None:
            pass

    for batches in (2, 5, 4, None):
        keras.utils.clear_session()
        case = CASES[CASE]
        model = case.model()
        args, kwargs = case.data()
        with (
            contextlib.suppress(PowerCut),
            bg.Run(run_dir, save_freq=3, **UNWATCHED) as run,
        ):
            cut = [CutAt(batches)] if batches else []
            callbacks = [Logs(run), *run.callbacks(), Settled(run), *cut]
            model.fit(
                *args,
                **kwargs,
                epochs=case.epochs,
                verbose=0,
                callbacks=callbacks,
            )
    steps = len(undisturbed(CASE)["batches"])
    found = accumulated(run_dir / "tensorboard")
    assert [*range(1, steps + 1)] == steps_of(found, ".", "seen")
    logged = read_metrics(run_dir / "metrics.jsonl")
    assert [*range(1, steps + 1)] == [r["step"] for r in logged if "seen" in r]
