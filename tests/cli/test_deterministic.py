"""`train --deterministic` reaches the backend before the program starts."""

from __future__ import annotations

import pytest
from commands import Workplace

from colab_keras_bg.cli import exit_status

pytest.importorskip("keras", reason="needs Keras and a backend")

PROGRAM = """\
import os
import keras
from colab_keras_bg.training_state import surroundings

backend = keras.backend.backend()
adapter = surroundings._adapter(backend)
print("deterministic:", adapter.is_deterministic())
print("flags:", os.environ.get("XLA_FLAGS"))
print("drawn:", float(keras.random.normal(())))
"""


def told(out: bytes) -> dict[str, str]:
    """What the program told."""
    lines = [
        line.partition(": ")
        for line in out.decode(errors="replace").splitlines()
    ]
    return {name: value for name, _, value in lines}


def test_asked_for(place: Workplace) -> None:
    """
    The program finds its backend deterministic, and seeded: what it draws is
    the same in the next run.
    """
    program = place.program(PROGRAM)
    first = place.train("--deterministic", program)
    assert exit_status.DONE == first.status, first.err
    found = told(first.out)
    assert "True" == found["deterministic"]
    again = place.train("--deterministic", "--start_over", program)
    assert found["drawn"] == told(again.out)["drawn"]


@pytest.mark.slow
def test_not_asked_for(place: Workplace) -> None:
    """
    Without the flag nothing is set.
    """
    import keras

    found = told(place.train(place.program(PROGRAM)).out)
    assert "None" == found["flags"]
    if keras.backend.backend() != "jax":  # On a CPU it always is.
        assert "False" == found["deterministic"]


def test_part_of_the_command(place: Workplace) -> None:
    """
    A run that is done without the flag is not done with it.
    """
    program = place.program("print('here')")
    assert exit_status.DONE == place.train(program).status
    assert b"here" in place.train("--deterministic", program).out
    assert b"here" not in place.train("--deterministic", program).out
