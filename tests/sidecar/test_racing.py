"""Many attempts at one run: exactly one commits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from checkpoint.saves import arrays_of, assert_is_whole, state_of
from waiting import until

from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import RunHeldError
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.exchange import Orders, Report
from colab_keras_bg.sidecar.process import Sidecar
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.retrying import RetryingStorage
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs

_RACERS = 16


@pytest.fixture(params=["local", "gcs"])
def remote(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], Storage]]:
    """Makes a client of one and the same place."""
    if request.param == "local":
        yield lambda: LocalStorage(tmp_path / "remote")
        return
    with LoopbackGcs(["bucket"]) as server, contextlib.ExitStack() as stack:

        def client() -> Storage:
            storage = GcsStorage("bucket", "runs/a", endpoint=server.url)
            stack.callback(storage.close)
            return RetryingStorage(storage)

        yield client


class Attempt:
    """One machine's try at the run: a spool, a sidecar and a trainer."""

    def __init__(self, spool: Path, remote: Storage, *, step: int) -> None:
        spool.mkdir()
        exchange.write(spool, Orders(launch="x"))
        self.step = step
        self.lost = threading.Event()
        self.has_committed = False
        self._directory = RunDirectory(spool)
        self._directory._lock = self._directory._acquire()
        self._sidecar = Sidecar(spool, remote)

    def race(self, begin: threading.Barrier, over: threading.Event) -> None:
        """Takes the run, if it can; commits; waits until all is over."""
        trainer = threading.Thread(target=self._train, args=(over,))
        begin.wait(60)
        trainer.start()
        try:
            self._sidecar.run()
        except RunHeldError:
            self.lost.set()
        finally:
            trainer.join()

    def _train(self, over: threading.Event) -> None:
        directory = self._directory
        try:
            until(
                lambda: self.lost.is_set() or self._phase() == "shipping",
                what="the run is ours, or another's",
            )
            if self.lost.is_set():
                return
            directory.head = directory._read_head()
            directory.begin_attempt(command=["program"])
            arrays = arrays_of(self.step).items()
            manifest = directory.checkpoints.save(
                self.step,
                attempt=directory.attempt,
                tensors={k: LazyTensor.of(v) for k, v in arrays},
                state=state_of(self.step),
            )
            directory.publish(step=self.step, committed=manifest.created)
            self.has_committed = True
            over.wait(60)
        finally:
            directory.release()

    def _phase(self) -> str:
        report = exchange.read(self._directory.path, Report)
        return report.phase if report else ""


def test_one_commits(remote: Callable[[], Storage], tmp_path: Path) -> None:
    """
    Of sixteen that begin at once, each with a step of its own to commit, one
    commits; the others know that it is not theirs, and have changed nothing.
    """
    attempts = [
        Attempt(tmp_path / f"spool-{number}", remote(), step=number)
        for number in range(1, _RACERS + 1)
    ]
    begin, over = threading.Barrier(_RACERS), threading.Event()
    with ThreadPoolExecutor(_RACERS) as pool:
        racing = [pool.submit(one.race, begin, over) for one in attempts]
        try:
            until(
                lambda: (
                    [one.lost.is_set() for one in attempts].count(True)
                    == _RACERS - 1
                ),
                what="all but one have lost",
                patience_secs=60,
            )
        finally:
            over.set()
        for one in racing:
            one.result()
    winners = [one.step for one in attempts if one.has_committed]
    assert len(winners) == 1
    there = CheckpointStore(remote())
    assert there.steps() == winners
    assert_is_whole(there.latest(), winners[0])
