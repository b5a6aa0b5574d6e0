"""Whatever is trained, and however, an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path

import model_cases
import pytest
from cases import in_turns, not_here
from fresh_process import assert_exact, at_random

# What takes the same way through the code as another; with -m slow.
ALIKE = {
    "AMSGrad",
    "Adafactor",
    "Ftrl",
    "a GAN, optimizers in a dict",
    "a dtype policy for each layer",
    "a learning rate set each batch",
    "accumulation with EMA",
    "an exponential schedule",
    "bfloat16",
    "float16 with LossScaleOptimizer",
    "float8",
    "int4 with LoRA",
    "int8 with LoRA",
    "jit_compile=False",
    "mixed_bfloat16",
    "shared layers",
    "weight decay and clipnorm",
}


@pytest.mark.parametrize("name", in_turns(model_cases.CASES, slow=ALIKE))
def test_killed_three_times(name: str, tmp_path: Path) -> None:
    """
    Killed after three random batches, each time going on in a fresh process,
    a training ends with the same bits.
    """
    if (reason := not_here(name)) is not None:
        pytest.skip(reason)
    kinds = ["SIGKILL"] * 3
    assert_exact(name, tmp_path / "run", at_random(name, kinds=kinds))
