"""A `fit` whose run lives in a bucket, on machines that vanish."""

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
from harness import CutAt, train, undisturbed

import colab_keras_bg as bg
from colab_keras_bg.durability import Durability
from colab_keras_bg.errors import RunHeldError, StorageUnavailableError
from colab_keras_bg.report.verification import verify_run
from colab_keras_bg.stored_run import stored_run
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs

URL: Any = "gs://bucket/runs/a"
CASE = CASES["arrays"]


@pytest.fixture
def spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine that knows a bucket."""
    spools = tmp_path / "spools"
    monkeypatch.setenv("COLAB_KERAS_BG_SPOOLS", str(spools))
    with LoopbackGcs(["bucket"]) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield spools
        for report in spools.glob("*/.sidecar/report.json"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(report.read_text())["pid"], signal.SIGKILL)


def test_continues_on_an_empty_machine(spools: Path) -> None:
    """
    Interrupted, its disk gone each time, a training ends with the same bits,
    and all of it is in the bucket when `fit` has ended.
    """
    seen: list[tuple[int, int]] = []
    for batches in (2, 4):
        assert train(CASE, URL, cut=CutAt(batches), batches=seen) is None
        assert verify_run(URL).damaged == []
        shutil.rmtree(spools)
    end = train(CASE, URL, batches=seen)
    expected = undisturbed(CASE)
    assert end is not None
    assert end.variables == expected.variables
    assert end.history == expected.history
    shutil.rmtree(spools)
    stored = stored_run(URL)
    assert stored.done() is not None
    assert stored.finals.latest() is not None
    assert verify_run(URL).damaged == []


@pytest.mark.parametrize(
    "error",
    [
        RunHeldError(URL, holder="another machine"),
        StorageUnavailableError("Nothing has become durable for 31 min."),
    ],
    ids=["taken over", "not durable for too long"],
)
def test_ends_with_what_was_found(
    error: Exception, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    In a notebook nobody ends the process: `fit` raises what was found beside
    it, at the next batch.
    """

    def found(self: Durability) -> None:
        raise error

    monkeypatch.setattr(Durability, "look_after", found)
    with pytest.raises(type(error)) as raised:
        train(CASE, URL)
    assert raised.value is error


def test_tells_what_is_durable(spools: Path) -> None:
    """
    A run tells where it lies, and which step is durable there.
    """
    with bg.Run(URL) as run:
        assert (run.address, run.durable_step) == (URL, None)
        assert run.path.is_relative_to(spools)
    assert train(CASE, URL, cut=CutAt(3)) is None
    with bg.Run(URL) as run:
        assert run.durable_step == 2


def test_taken_again_by_the_same_process(spools: Path) -> None:
    """
    A notebook's cell is run again and again: what each has committed counts,
    here and on another machine.
    """
    for batches in (2, 3, 2):
        assert train(CASE, URL, cut=CutAt(batches)) is None
    shutil.rmtree(spools)
    with bg.Run(URL) as run:
        assert run.durable_step == 4
