"""Warnings of what will run out, while they help."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from colab_keras_bg.journal.trends import Trends

GB = 10**9
TOTAL = 16 * GB


def warned(
    left: Callable[[float], float], *, secs: int = 600, every: int = 10
) -> list[tuple[float, str]]:
    """
    What is said of memory that goes like this, and when it was first said.
    """
    trends, said = Trends(), []
    for now in range(0, secs, every):
        look = {
            "time": float(now),
            "memory_total_bytes": TOTAL,
            "memory_used_bytes": TOTAL - left(now),
            "disk_free_bytes": 50 * GB,
            "disk_total_bytes": 100 * GB,
        }
        said += [(float(now), text) for text in trends.warnings(look)]
    return said


def test_steady_growth() -> None:
    """
    Memory that is used up step by step is warned of, with the time that is
    left, as soon as there is a trend.
    """
    said = warned(lambda now: 8 * GB - now * 5_000_000)
    first, text = said[0]
    assert first <= 70
    assert text.startswith("out of memory in about 26 minutes: ")
    assert "GB of 16 GB left" in text
    assert "smaller batch" in text


def test_noise_is_no_trend() -> None:
    """
    Ups and downs, a single jump, and what is given back are no trend.
    """
    draw = random.Random(1)
    assert [] == warned(lambda now: (8 + draw.uniform(-1, 1)) * GB)
    assert [] == warned(lambda now: (12 if now < 100 else 6) * GB, secs=200)
    assert [] == warned(lambda now: (4 + now / 600) * GB)
    assert [] == warned(lambda now: 8 * GB)


def test_what_is_no_trend_yet() -> None:
    """
    A few looks, or looks of a few seconds, show no trend.
    """

    def steep(now: float) -> float:
        return 8 * GB - now * 20_000_000

    assert [] == warned(steep, secs=60)
    assert [] == warned(steep, secs=120, every=30)


def test_what_goes_up_and_down_around_a_slope() -> None:
    """
    A slope that explains little of what is seen is none: steps of a cache,
    say, or of an epoch.
    """
    draw = random.Random(5)
    assert [] == warned(
        lambda now: 8 * GB - now * 2_500_000 + draw.uniform(-3, 3) * GB
    )


def test_what_was_long_ago() -> None:
    """
    What went on for an hour, and is over for ten minutes, is no trend.
    """
    said = warned(lambda now: (12 - 4 * min(1.0, now / 3000)) * GB, secs=7200)
    assert not [when for when, _ in said if when > 3600]
    back = warned(
        lambda now: 12 * GB if now < 3000 else 12 * GB - (now - 3000) * 3e6,
        secs=4000,
    )
    assert 3000 < back[0][0] < 3600


def test_slow_growth() -> None:
    """
    What takes more than an hour is nobody's concern yet.
    """
    assert [] == warned(lambda now: 12 * GB - now * 1_000_000)


def test_nearly_used_up() -> None:
    """
    What is nearly used up is warned of at once, trend or none.
    """
    said = warned(lambda now: 0.5 * GB, secs=20)
    assert 2 == len(said)
    assert said[0][1].startswith("memory is nearly used up: 0.5 GB of 16 GB")


def test_disk() -> None:
    """
    The disk is watched in the same way.
    """
    trends, said = Trends(), ()
    for now in range(0, 300, 10):
        said = trends.warnings(
            {
                "time": float(now),
                "disk_free_bytes": 20 * GB - now * 40_000_000,
                "disk_total_bytes": 100 * GB,
            }
        )
    (text,) = said
    assert text.startswith("out of disk in about 4 minutes: 8.4 GB")
    assert "fewer checkpoints" in text


def test_it_is_over() -> None:
    """
    When it is over, it is no longer warned of.
    """
    said = warned(lambda now: 8 * GB - min(now, 300) * 5_000_000, secs=1200)
    assert max(when for when, _ in said) < 700


@pytest.mark.parametrize("look", [{"time": 1.0}, {"time": 1.0, "x": None}])
def test_nothing_known(look: dict[str, float]) -> None:
    """
    What cannot be told is not warned of.
    """
    assert () == Trends().warnings(look)
