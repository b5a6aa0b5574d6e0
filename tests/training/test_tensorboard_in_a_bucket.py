"""What TensorBoard finds in a bucket of a run whose machines vanish."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import CASES
from harness import CutAt, train
from tensorboards import Shown, accumulated

from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs

URL: Any = "gs://bucket/runs/a"
CASE = CASES["bg.data.arrays"]


@pytest.fixture
def server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopbackGcs]:
    """A bucket that this machine knows."""
    spools = tmp_path / "spools"
    monkeypatch.setenv("COLAB_KERAS_BG_SPOOLS", str(spools))
    with LoopbackGcs(["bucket"]) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server
        for report in spools.glob("*/.sidecar/report.json"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(report.read_text())["pid"], signal.SIGKILL)


def shown_there(server: LoopbackGcs, scratch: Path) -> Shown:
    """What TensorBoard shows of the bucket."""
    with contextlib.closing(
        GcsStorage("bucket", "runs/a", endpoint=server.url)
    ) as remote:
        for info in remote.list("tensorboard/"):
            path = scratch / info.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(remote.read(info.name))
    return accumulated(scratch / "tensorboard")


def test_continues_in_the_bucket(server: LoopbackGcs, tmp_path: Path) -> None:
    """
    Interrupted beyond its last commit, the machine and its disk gone each
    time, a run shows in its bucket what an undisturbed one shows; and after
    each interruption nothing is missing up to the last commit.
    """
    assert train(CASE, tmp_path / "undisturbed", tensorboard=1) is not None
    expected = accumulated(tmp_path / "undisturbed/tensorboard")
    committed = 0
    for number, batches in enumerate((5, 5, 2)):
        cut = CutAt(batches)
        ended = train(CASE, URL, save_freq=3, cut=cut, tensorboard=1)
        assert ended is None
        shutil.rmtree(tmp_path / "spools")
        shown = shown_there(server, tmp_path / f"{number}")
        points = shown["train"]["batch_loss"]
        committed += 3 * ((batches - 1) // 3)
        assert expected["train"]["batch_loss"][: len(points)] == points
        assert len(points) >= committed
    assert train(CASE, URL, save_freq=3, tensorboard=1) is not None
    shutil.rmtree(tmp_path / "spools")
    shown = shown_there(server, tmp_path / "end")
    assert expected == shown
