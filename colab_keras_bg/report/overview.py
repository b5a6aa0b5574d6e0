"""All that `status` shows: where a run stands, and how it goes.

Invariant: what is read of the files that grow does not grow with them; so
does what it costs to look.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from colab_keras_bg.journal.metrics import METRICS
from colab_keras_bg.report.divergence import Divergence, diverged
from colab_keras_bg.report.numbers import (
    any_number,
    damage_in,
    moment,
    number,
    records,
    whole,
)
from colab_keras_bg.report.past import Past, looks_of, read_past, resources_name
from colab_keras_bg.report.status import RunStatus, status_of, wherever
from colab_keras_bg.report.timeline import Look, Split, Stretch
from colab_keras_bg.storage.tails import tail_lines
from colab_keras_bg.stored_run import StoredRun

__all__ = [
    "OWN",
    "Overview",
    "eta_secs",
    "first",
    "newest_values",
    "overview_of",
    "read_overview",
    "resources_of",
    "with_damage",
]

# The fields of a report that are no metrics.
OWN = frozenset({"step", "epoch", "time"})

_MOST_ATTEMPTS_HERE, _MOST_ATTEMPTS_FAR = 100, 6
_MOST_BYTES = 1 << 20
_TAIL_BYTES = 64 << 10
_TOLD_ATTEMPTS = 5
_MOST_VALUES = 200
# Of the losses of many outputs, none is the one.
_FIRST = ("loss", "val_loss")
# A pace is that of about the last ten minutes.
_PACE_SECS, _LEAST_PACE_SECS = 600.0, 20.0
_RESOURCES = (
    "time",
    "cores",
    "cores_busy",
    "memory_used_bytes",
    "memory_total_bytes",
    "process_bytes",
    "children",
    "disk_free_bytes",
    "disk_total_bytes",
    "sent_bytes_per_sec",
    "received_bytes_per_sec",
    "step_secs",
    "input_wait",
    "save_wait",
)
_GPU = ("utilisation", "used_bytes", "total_bytes", "power_watts", "celsius")


@dataclass(frozen=True)
class Overview:
    """Where a run stands, and how it goes.

    Attributes:
        status: Where it stands.
        eta_secs: For how long it will still train; None if nobody knows.
        split: What the time since the first start went into.
        stretches: The newest attempts, oldest first.
        metrics: The newest value of each metric, by name.
        diverged: Those that are no numbers any more, by name.
        resources: What it used when that was last looked at.
        left_out: How many older attempts `split` knows nothing of.
    """

    status: RunStatus
    eta_secs: float | None = None
    split: Split = Split()  # noqa: RUF009 - frozen
    stretches: Sequence[Stretch] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    diverged: Mapping[str, Divergence] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """What `status --json` prints."""
        goodput = self.split.goodput
        told = self.status.to_json()
        del told["step_secs"]
        return {
            **told,
            "eta_secs": self.eta_secs,
            "goodput": None if goodput is None else round(goodput, 4),
            "attempts_left_out": self.left_out,
            "split": self.split.to_json(),
            # JSON knows no NaN: a text says what it is.
            "metrics": {
                name: value if math.isfinite(value) else str(value)
                for name, value in self.metrics.items()
            },
            "diverged": {name: one.step for name, one in self.diverged.items()},
            "resources": dict(self.resources),
            "last_attempts": [
                one.to_json() for one in self.stretches[-_TOLD_ATTEMPTS:]
            ],
        }


def read_overview(run_dir: str | os.PathLike[str]) -> Overview:
    """Reads where a run stands, and how it goes.

    Args:
        run_dir: The run directory.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If the directory cannot be read.
    """
    found, trouble = wherever(run_dir, overview_of)
    if trouble is None:
        return found
    return replace(found, status=replace(found.status, problem=trouble))


def overview_of(stored: StoredRun) -> Overview:
    """Where a run stands, and how it goes, by its files.

    Args:
        stored: The run.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If it cannot be read.
    """
    status = status_of(stored)
    past = read_past(
        stored,
        status,
        most_attempts=(
            _MOST_ATTEMPTS_FAR if stored.is_remote else _MOST_ATTEMPTS_HERE
        ),
        most_bytes=_MOST_BYTES,
    )
    tail = tail_lines(stored.storage, METRICS, most_bytes=_TAIL_BYTES)
    reports = list(records(tail))
    used, damage = _newest_resources(stored, past)
    damaged = [*past.damaged, *damage_in(METRICS, tail), *damage]
    return Overview(
        with_damage(status, damaged),
        eta_secs=eta_secs(status, looks_of(used), now=time.time()),
        split=past.split,
        stretches=past.stretches,
        metrics=newest_values(reports),
        diverged=diverged(reports, own=OWN),
        resources=resources_of(used[-1]) if used else {},
        left_out=past.left_out,
    )


def eta_secs(
    status: RunStatus, looks: Sequence[Look], *, now: float
) -> float | None:
    """For how long a run will still train, at the pace it has.

    The pace is that of the last minutes, with all that held the training up;
    as long as there are none, that of the last steps.

    Args:
        status: Where it stands.
        looks: What was seen of the newest attempt, oldest first.
        now: Seconds since 1970.

    Returns:
        Seconds; None if it is not running, or nobody knows.
    """
    if status.state != "running" or None in (
        status.expected_steps,
        status.step,
    ):
        return None
    left = max(0, (status.expected_steps or 0) - (status.step or 0))
    secs = status.step_secs
    recent = [look for look in looks if now - look.time < _PACE_SECS]
    if len(recent) > 1:
        passed = recent[-1].time - recent[0].time
        steps = recent[-1].step - recent[0].step
        if steps > 0 and passed >= _LEAST_PACE_SECS:
            secs = passed / steps
    return None if secs is None or secs < 0 else round(left * secs, 3)


def newest_values(reports: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The newest value of each metric, by name; it may be NaN or infinite.

    Args:
        reports: Lines of `metrics.jsonl`, oldest first.
    """
    found: dict[str, float] = {}
    for report in reports:
        if whole(report.get("step")) is None:
            continue
        for name, value in report.items():
            known = any_number(value)
            if name in OWN or known is None:
                continue
            if name in found or len(found) < _MOST_VALUES:
                found[name] = known
    return {name: found[name] for name in first(found)}


def first(names: Iterable[str]) -> list[str]:
    """Metrics in the order in which they matter: the loss comes first.

    Args:
        names: Their names, as they were reported.
    """
    return sorted(names, key=lambda name: name not in _FIRST)


def resources_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a line of `resources.jsonl` tells, and nothing else.

    Args:
        record: The line.
    """
    found: dict[str, Any] = _numbers(record, _RESOURCES)
    gpus = record.get("gpus")
    if isinstance(gpus, list):
        found["gpus"] = [
            {"name": str(gpu.get("name", "GPU"))[:80], **_numbers(gpu, _GPU)}
            for gpu in gpus[:64]
            if isinstance(gpu, dict)
        ]
    return found


def _numbers(
    record: Mapping[str, Any], names: Sequence[str]
) -> dict[str, float | int]:
    known = {name: number(record.get(name)) for name in names}
    return {n: record[n] for n, value in known.items() if value is not None}


def with_damage(status: RunStatus, damaged: Sequence[str]) -> RunStatus:
    """Names what else is damaged.

    Args:
        status: Where the run stands.
        damaged: What was found besides, in words.
    """
    return replace(status, damaged=[*status.damaged, *damaged])


def _newest_resources(
    stored: StoredRun, past: Past
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The last lines of the newest attempt that has any, and their damage."""
    damaged: list[str] = []
    for stretch in reversed(past.stretches[-3:]):
        name = resources_name(stretch.number)
        lines = tail_lines(stored.storage, name, most_bytes=_TAIL_BYTES)
        damaged += damage_in(name, lines)
        found = [
            record
            for record in records(lines)
            if moment(record.get("time")) is not None
        ]
        if found:
            return found, damaged
    return [], damaged
