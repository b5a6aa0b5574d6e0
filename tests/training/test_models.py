"""Whatever is trained, and however, an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path

import model_cases
import pytest
from fresh_process import assert_exact, at_random


@pytest.mark.parametrize("name", model_cases.CASES)
def test_killed_three_times(name: str, tmp_path: Path) -> None:
    """
    Killed after three random batches, each time going on in a fresh process,
    a training ends with the same bits.
    """
    if not model_cases.TENSORFLOW and name in model_cases.ONLY_ON_TENSORFLOW:
        pytest.skip(model_cases.ONLY_ON_TENSORFLOW[name])
    kinds = ["SIGKILL"] * 3
    assert_exact(name, tmp_path / "run", at_random(name, kinds=kinds))
