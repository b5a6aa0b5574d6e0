"""What is drawn of a long run."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.report.curves import (
    Chart,
    Curve,
    metric_charts,
    resource_charts,
    thinned,
)

charts = pytest.importorskip("colab_keras_bg.report.charts")


@given(st.lists(st.floats(), max_size=2000), st.integers(10, 300))
def test_thinned(values: list[float], most: int) -> None:
    """
    Few points stay, in their order; the least and the largest are among them,
    and whatever is no number is a gap.
    """
    xs, ys = thinned([float(i) for i in range(len(values))], values, most=most)
    assert len(xs) == len(ys) <= max(most, 10) + 5
    assert all(a < b for a, b in pairwise(xs))
    assert not any(math.isinf(y) for y in ys)
    finite = [y for y in values if math.isfinite(y)]
    shown = [y for y in ys if not math.isnan(y)]
    if finite:
        assert (min(shown), max(shown)) == (min(finite), max(finite))
    for x, y in zip(xs, ys, strict=True):
        assert y == values[int(x)] or not math.isfinite(values[int(x)])


def test_training_and_validation_share_a_chart() -> None:
    """
    A metric and its validation stand together; one that only looks like that
    stands alone.
    """
    reports = [
        {"step": 1, "val_loss": 2.0, "loss": 1.0, "val_only": 3.0, "time": 1.0},
        {"step": 2, "val_loss": math.nan, "loss": True, "text": "x"},
    ]
    found, more = metric_charts(reports, most=10)
    assert [chart.title for chart in found] == ["loss", "val_only"]
    loss, only = found
    assert [curve.name for curve in loss.curves] == ["training", "validation"]
    assert [curve.name for curve in only.curves] == ["val_only"]
    assert loss.curves[0].xs == [1.0]
    assert math.isnan(loss.curves[1].last)
    assert more == 0


def test_many_metrics() -> None:
    """
    Of very many metrics some are drawn, and it is told how many are not.
    """
    report = {"step": 1, **{f"m{i}": 1.0 for i in range(1000)}}
    found, more = metric_charts([report], most=20)
    assert len(found) == 20
    assert more > 300


ODD = {
    "none": [],
    "one": [1.0],
    "gaps": [math.nan] * 5,
    "huge": [1e308, -1e308, 1e308],
    "tiny": [5e-324, 1e308],
    "log": [10.0**-i for i in range(9)],
    "still": [3.0] * 9,
}


@pytest.mark.parametrize("name", ODD)
def test_drawn(name: str) -> None:
    """
    Any curve can be drawn: the same bytes each time, colours as variables,
    and nothing that leads out of the page.
    """
    ys = ODD[name]
    curve = Curve(f"$x_1^2$ {name}", [float(i) for i in range(len(ys))], ys)
    chart = Chart("$\\frac{1}{2", [curve, curve], "GB", from_zero=True)
    svg = charts.svg_of(chart, name="a")
    assert svg == charts.svg_of(chart, name="a")
    assert svg.startswith("<svg viewBox=")
    assert svg.endswith("</svg>")
    assert "var(--muted)" in svg
    assert "http" not in svg
    assert "frac" not in svg
    assert "#0102" not in svg
    assert len(svg) < 30_000


def test_a_persons_settings_stay() -> None:
    """
    What a person has set for matplotlib neither changes a chart nor is
    changed by it.
    """
    import matplotlib as mpl

    chart = Chart("a", [Curve("a", [0.0, 1.0], [1.0, 2.0])])
    plain = charts.svg_of(chart, name="a")
    with mpl.rc_context({"text.usetex": True, "font.size": 40}):
        assert charts.svg_of(chart, name="a") == plain
        assert mpl.rcParams["font.size"] == 40


def test_newest_value_that_is_none() -> None:
    """
    The newest value of a metric is told also where it cannot be drawn.
    """
    (chart,), _ = metric_charts(
        [
            {"step": 1, "loss": 0.5},
            {"step": 2, "loss": math.nan},
            {"step": 3, "loss": math.inf},
        ],
        most=5,
    )
    assert math.inf == chart.curves[0].last


@pytest.mark.parametrize(
    ("secs", "along", "last"),
    [
        (20.0, "seconds", 20.0),
        (600.0, "minutes", 10.0),
        (36_000.0, "hours", 10.0),
    ],
)
def test_time_in_a_unit_that_fits(secs: float, along: str, last: float) -> None:
    """
    A run of seconds is not shown in thousandths of an hour.
    """
    began = 1e9
    charts = resource_charts(
        [
            {"time": began + part * secs, "cores_busy": 1.0, "cores": 2.0}
            for part in (0.5, 0.75, 1.0)
        ],
        began=began,
    )
    (chart,) = [chart for chart in charts if chart.title == "Processor"]
    assert along == chart.along
    assert pytest.approx(last) == chart.curves[0].xs[-1]
    assert [] == resource_charts([], began=began)
