"""SIGKILL, on real processes: the built-in job on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from colab_keras_bg.testing import chaos


@pytest.mark.timeout(900)
def test_killed_at_random_moments(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    Killed at random moments and started again, the built-in job ends
    bit-identical to an undisturbed run; nothing is damaged after any kill.
    """
    arguments = [
        "--kills=4",
        "--epochs=8",
        "--save_freq=2",
        f"--directory={tmp_path}",
    ]
    status = chaos.main(arguments)
    printed = capfd.readouterr().out
    assert 0 == status, printed
    assert "bit-identical" in printed


@pytest.mark.timeout(900)
def test_killed_when_forked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    The same in several trainings, forked from one process; what was left of
    each is told.
    """
    arguments = [
        *("--kills=6", "--forked", "--epochs=3", "--save_freq=2"),
        f"--directory={tmp_path}",
    ]
    status = chaos.main(arguments)
    printed = capfd.readouterr().out
    assert 0 == status, printed
    assert "6 kills in" in printed
    assert "0 DIFFERENT, 0 damaged" in printed
    assert "at most" in printed


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_a_thousand_times(tmp_path: Path) -> None:
    """
    A thousand times: half an hour.
    """
    arguments = ["--kills=1000", "--forked", f"--directory={tmp_path}"]
    assert 0 == chaos.main(arguments)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_thirty_times(tmp_path: Path) -> None:
    """
    The same, thirty times in one run.
    """
    assert 0 == chaos.main(["--kills=30", f"--directory={tmp_path}"])
