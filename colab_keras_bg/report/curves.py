"""What is drawn: curves out of records, thinned to what a page can show.

Invariant: of however many points, a few hundred stay, the least and the
largest of every stretch among them, so that no peak is lost; what is no
number is a gap. Curves of one chart belong together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colab_keras_bg.report.numbers import any_number, moment, number, whole
from colab_keras_bg.report.overview import OWN, first

__all__ = ["Chart", "Curve", "metric_charts", "resource_charts", "thinned"]

_MOST_POINTS = 300
_MOST_NAMES = 400
_VALIDATION = "val_"
# The unit of a time axis, and up to how many seconds it is the one.
_UNITS = (("seconds", 1.0, 180.0), ("minutes", 60.0, 3 * 3600.0))
_HOURS = ("hours", 3600.0)
# Nobody looked for so long: a gap.
_GAP_SECS = 120.0


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        name: What it is; any text.
        xs: Where its points are.
        ys: Their values; NaN for a gap.
        newest: Its newest value, should that not be drawn: NaN, or infinite.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    newest: float | None = None

    @property
    def last(self) -> float:
        """Its newest value; the last that is one, if that is not known."""
        if self.newest is not None:
            return self.newest
        finite = (y for y in reversed(self.ys) if math.isfinite(y))
        return next(finite, math.nan)


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Attributes:
        title: What they show; any text.
        curves: The lines.
        unit: What is written at the vertical axis: one of ours.
        along: What the horizontal axis is: `step`, or a unit of time.
        from_zero: Whether the vertical axis begins at 0.
        most: Where it ends, if that is known.
    """

    title: str
    curves: Sequence[Curve]
    unit: str = ""
    along: str = "step"
    from_zero: bool = False
    most: float | None = None


def thinned(
    xs: Sequence[float], ys: Sequence[float], *, most: int = _MOST_POINTS
) -> tuple[list[float], list[float]]:
    """Fewer points, with the least and the largest of each stretch.

    Args:
        xs: Where the points are, ascending.
        ys: Their values; NaN and infinity become a gap.
        most: How many points stay, about.
    """
    values = [y if math.isfinite(y) else math.nan for y in ys]
    if len(values) <= most:
        return list(xs), values
    kept: set[int] = {0, len(values) - 1}
    stretches = max(1, most // 3)
    for index in range(stretches):
        begin = len(values) * index // stretches
        end = len(values) * (index + 1) // stretches
        known = [i for i in range(begin, end) if not math.isnan(values[i])]
        if len(known) < end - begin:
            gap = next(i for i in range(begin, end) if math.isnan(values[i]))
            kept.add(gap)
        if known:
            kept.add(min(known, key=values.__getitem__))
            kept.add(max(known, key=values.__getitem__))
    order = sorted(kept)
    return [xs[i] for i in order], [values[i] for i in order]


def metric_charts(
    reports: Iterable[Mapping[str, Any]], *, most: int
) -> tuple[list[Chart], int]:
    """A chart for each metric: in training, and in validation.

    Args:
        reports: Lines of `metrics.jsonl`, oldest first.
        most: How many charts at most.

    Returns:
        The charts, and how many metrics have none.
    """
    points: dict[str, tuple[list[float], list[float]]] = {}
    newest: dict[str, float | None] = {}
    for report in reports:
        step = whole(report.get("step"))
        if step is None:
            continue
        for name, value in report.items():
            if name in OWN or type(value) not in (int, float):
                continue
            if name not in points and len(points) >= _MOST_NAMES:
                continue
            xs, ys = points.setdefault(name, ([], []))
            known = number(value)
            xs.append(float(step))
            ys.append(math.nan if known is None else known)
            newest[name] = any_number(value)
    grouped: dict[str, list[str]] = {}
    for name in first(points):
        base = name.removeprefix(_VALIDATION)
        grouped.setdefault(base if base in points else name, []).append(name)
    charts = []
    for base, names in list(grouped.items())[:most]:
        is_pair = len(names) > 1
        curves = [
            Curve(
                _told(name, base) if is_pair else name,
                *thinned(*points[name]),
                newest[name],
            )
            for name in sorted(names, key=lambda name: name != base)
        ]
        charts.append(Chart(base, curves))
    return charts, max(0, len(grouped) - most)


def _told(name: str, base: str) -> str:
    return "training" if name == base else "validation"


def resource_charts(
    looks: Sequence[Mapping[str, Any]], *, began: float
) -> list[Chart]:
    """What was used, over time.

    Args:
        looks: Lines of `resources.jsonl` of all attempts.
        began: When the run did, in seconds since 1970.
    """
    timed = [
        (when, look)
        for look in looks
        if (when := moment(look.get("time"))) is not None
    ]
    timed.sort(key=lambda one: one[0])
    last = timed[-1][0] - began if timed else 0.0
    along, scale = next(
        (unit[:2] for unit in _UNITS if last <= unit[2]), _HOURS
    )
    found = []
    for title, unit, of, most in _WANTED:
        curves = []
        for name, value in of.items():
            xs, ys = _over_time(timed, value, began)
            xs = [x / scale for x in xs]
            if any(not math.isnan(y) for y in ys):
                curves.append(Curve(name, *thinned(xs, ys)))
        if curves:
            limit = most and _largest(timed, most)
            found.append(
                Chart(title, curves, unit, along, from_zero=True, most=limit)
            )
    return found


def _over_time(
    timed: Sequence[tuple[float, Mapping[str, Any]]], value: Any, began: float
) -> tuple[list[float], list[float]]:
    """The points, in seconds; with a gap where nobody looked."""
    xs: list[float] = []
    ys: list[float] = []
    before: float | None = None
    for when, look in timed:
        if before is not None and when - before > _GAP_SECS:
            xs.append(before - began)
            ys.append(math.nan)
        before = when
        known = value(look)
        xs.append(when - began)
        ys.append(math.nan if known is None else known)
    return xs, ys


def _largest(timed: Sequence[tuple[float, Any]], value: Any) -> float | None:
    known = [v for _, look in timed if (v := value(look)) is not None]
    return max(known, default=None)


def _field(name: str, scale: float = 1.0) -> Any:
    def value(look: Mapping[str, Any]) -> float | None:
        known = number(look.get(name))
        return None if known is None else known * scale

    return value


def _of_gpus(name: str, scale: float = 1.0) -> Any:
    """The mean over all GPUs."""

    def value(look: Mapping[str, Any]) -> float | None:
        gpus = look.get("gpus")
        if not isinstance(gpus, list):
            return None
        known = [
            found
            for gpu in gpus[:64]
            if isinstance(gpu, dict)
            and (found := number(gpu.get(name))) is not None
        ]
        return scale * sum(known) / len(known) if known else None

    return value


# What is drawn: the title, the unit, the curves, and what their most is.
_WANTED: list[tuple[str, str, dict[str, Any], Any]] = [
    ("Processor", "cores", {"busy": _field("cores_busy")}, _field("cores")),
    (
        "Memory",
        "GB",
        {
            "machine": _field("memory_used_bytes", 1e-9),
            "training": _field("process_bytes", 1e-9),
        },
        _field("memory_total_bytes", 1e-9),
    ),
    ("GPU", "%", {"busy": _of_gpus("utilisation", 100.0)}, lambda look: 100.0),
    (
        "GPU memory",
        "GB",
        {"used": _of_gpus("used_bytes", 1e-9)},
        _of_gpus("total_bytes", 1e-9),
    ),
    ("Time of a step", "ms", {"step": _field("step_secs", 1e3)}, None),
    (
        "Waiting",
        "% of the time",
        {
            "for data": _field("input_wait", 100.0),
            "for saves": _field("save_wait", 100.0),
        },
        None,
    ),
    ("Disk free", "GB", {"free": _field("disk_free_bytes", 1e-9)}, None),
    (
        "Network",
        "MB/s",
        {
            "received": _field("received_bytes_per_sec", 1e-6),
            "sent": _field("sent_bytes_per_sec", 1e-6),
        },
        None,
    ),
    (
        "GPU power",
        "W",
        {"drawn": _of_gpus("power_watts")},
        None,
    ),
]
