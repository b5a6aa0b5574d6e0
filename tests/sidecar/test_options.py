"""How a run is shipped, as a person asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from colab_keras_bg.errors import UsageError
from colab_keras_bg.sidecar.options import ShippingOptions


def test_as_they_are_written() -> None:
    """Times and rates have units; what is left out is not limited."""
    assert ShippingOptions.of("gs://bucket/a") == ShippingOptions()
    assert ShippingOptions.of(
        "gs://bucket/a",
        take_over=True,
        max_undurable="30m",
        fallback_dir="gs://other/a/",
        fallback_after="90s",
        bandwidth="2.5MB",
    ) == ShippingOptions(
        take_over=True,
        max_undurable_secs=1800.0,
        fallback="gs://other/a",
        fallback_after_secs=90.0,
        bytes_per_sec=2_500_000.0,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1000", 1e3), ("500kB", 5e5), ("1G", 1e9), ("20 MB/s", 2e7)],
)
def test_bandwidth(text: str, expected: float) -> None:
    """Bytes a second, in the units that people write."""
    found = ShippingOptions.of("gs://bucket/a", bandwidth=text)
    assert found.bytes_per_sec == expected


@pytest.mark.parametrize(
    ("run_dir", "options", "words"),
    [
        ("a", {"fallback_dir": "gs://b/c"}, "on this machine's disk"),
        ("gs://bkt/a", {"fallback_dir": "local"}, "goes with this machine"),
        ("gs://bkt/a", {"fallback_dir": "gs://bkt/a/"}, "directory itself"),
        ("gs://bkt/a", {"fallback_dir": "gs://bkt"}, "gs://BUCKET/FOLDER"),
        ("gs://bkt/a", {"fallback_dir": "gs://bkt"}, "^fallback_dir='gs://b"),
        ("gs://bkt/a", {"fallback_after": "soon"}, "fallback_after='soon'"),
        ("gs://bkt/a", {"max_undurable": "5"}, "max_undurable='5'"),
        ("gs://bkt/a", {"bandwidth": "fast"}, "bandwidth='fast'"),
        ("gs://bkt/a", {"bandwidth": "0MB"}, "1kB or more"),
        ("gs://bkt/a", {"bandwidth": "10"}, "1kB or more"),
    ],
)
def test_what_cannot_be_meant(
    run_dir: str, options: dict[str, Any], words: str
) -> None:
    """It is refused, with what to give."""
    with pytest.raises(UsageError, match=words):
        ShippingOptions.of(run_dir, **options)
