"""Which metrics are no numbers any more, and since when."""

from __future__ import annotations

import math
from typing import Any

from colab_keras_bg.report.divergence import (
    Divergence,
    diverged,
    divergence_text,
)
from colab_keras_bg.report.overview import OWN


def found_in(*reports: dict[str, Any]) -> dict[str, Divergence]:
    """What is found in reports of steps 10, 20, 30, ..."""
    return diverged(
        ({"step": 10 * (n + 1), **one} for n, one in enumerate(reports)),
        own=OWN,
    )


def test_since_which_step() -> None:
    """
    The first step counts, whatever the metric has been since.
    """
    found = found_in(
        {"loss": 1.0},
        {"loss": math.inf},
        {"accuracy": 0.5},
        {"loss": math.nan},
    )
    assert ["loss"] == list(found)
    assert (20, True) == (found["loss"].step, found["loss"].is_first)
    assert math.isnan(found["loss"].value)
    assert "loss is nan since step 20" == divergence_text(found)


def test_a_beginning_that_nobody_read() -> None:
    """
    Where no number was seen before, it may have begun earlier.
    """
    found = found_in({"loss": math.nan}, {"loss": -math.inf})
    assert "loss is -inf since step 10 or before" == divergence_text(found)


def test_a_number_again() -> None:
    """
    What has come back is not told of, and the next time counts anew.
    """
    assert not found_in({"loss": math.nan}, {"loss": 2})
    again = found_in({"loss": math.nan}, {"loss": 2}, {"loss": math.nan})
    assert Divergence(again["loss"].value, 30, is_first=True) == again["loss"]


def test_what_is_no_metric() -> None:
    """
    Texts, times and lines without a step tell nothing.
    """
    assert not diverged(
        [
            {"loss": math.nan},
            {"step": -1, "loss": math.nan},
            {"step": 1, "time": math.nan, "text": "nan", "flag": True},
        ],
        own=OWN,
    )


def test_many() -> None:
    """
    A few are named, and how many there are.
    """
    text = divergence_text(found_in({f"m{n}": math.nan for n in range(9)}))
    assert "m2 is nan" in text
    assert "m3" not in text
    assert text.endswith("and 6 more")
    assert not divergence_text({})
