"""All that a report shows, read from a run's files.

Invariant: how much is read, and how much is kept of it, is bounded, however
long the run.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.errors import CheckpointError
from colab_keras_bg.journal.console_reading import ConsoleLine
from colab_keras_bg.journal.metrics import METRICS
from colab_keras_bg.report.console_tail import console_tail
from colab_keras_bg.report.curves import Chart, metric_charts, resource_charts
from colab_keras_bg.report.divergence import Divergence, Divergences
from colab_keras_bg.report.numbers import damage_in, records
from colab_keras_bg.report.overview import (
    OWN,
    eta_secs,
    newest_values,
    resources_of,
    with_damage,
)
from colab_keras_bg.report.past import (
    Past,
    looks_of,
    read_past,
    resources_name,
)
from colab_keras_bg.report.status import RunStatus, status_of
from colab_keras_bg.storage.records import DamagedRecordError, read_record
from colab_keras_bg.storage.tails import sampled_lines, tail_lines
from colab_keras_bg.stored_run import RUN, StoredRun

__all__ = ["PageData", "read_page_data"]

_MOST_ATTEMPTS_HERE, _MOST_ATTEMPTS_FAR = 300, 60
_METRICS_BYTES, _RESOURCES_BYTES = 32 << 20, 16 << 20
_TAIL_BYTES = 64 << 10
_LEAST_BYTES = 32 << 10
_MOST_LOOKS = 50_000
_CHARTS = 20
_CHECKPOINTS = 30
_CONSOLE_LINES = 200


@dataclass(frozen=True)
class PageData:
    """What a report shows.

    Attributes:
        status: Where the run stands.
        now: When it was read, in seconds since 1970.
        past: What it has been through.
        eta_secs: For how long it will still train.
        metrics: The newest value of each metric.
        diverged: Those that are no numbers any more, by name.
        used: What was used when that was last looked at.
        charts: Of metrics.
        more_metrics: How many metrics have no chart.
        resources: Charts of what was used.
        checkpoints: Those that are kept, newest first, some of them.
        console: The newest lines.
        run: The run's own record.
        hparams: What was said of its hyperparameters.
    """

    status: RunStatus
    now: float
    past: Past
    eta_secs: float | None
    metrics: Mapping[str, float]
    diverged: Mapping[str, Divergence]
    used: Mapping[str, Any]
    charts: Sequence[Chart]
    more_metrics: int
    resources: Sequence[Chart]
    checkpoints: Sequence[Manifest]
    console: Sequence[ConsoleLine]
    run: Mapping[str, Any]
    hparams: Mapping[str, Any]


def read_page_data(stored: StoredRun, *, now: float) -> PageData:
    """Reads what a report shows.

    Args:
        stored: The run.
        now: Seconds since 1970.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If it cannot be read.
    """
    status = status_of(stored, ending=True)
    most_attempts = _MOST_ATTEMPTS_HERE
    if stored.is_remote:
        most_attempts = _MOST_ATTEMPTS_FAR
    past = read_past(
        stored,
        status,
        most_attempts=most_attempts,
        most_bytes=_RESOURCES_BYTES,
        now=now,
    )
    looks = _looks(stored, past)
    storage, hparams = stored.storage, dict[str, Any]()
    divergences = Divergences(own=OWN)

    def reports() -> Any:
        lines = sampled_lines(
            storage, METRICS, most_bytes=_METRICS_BYTES, pieces=64
        )
        for report in records(lines):
            if isinstance(told := report.get("hparams"), dict):
                hparams.update(itertools.islice(told.items(), 50))
            divergences.see(report)
            yield report

    charts, more = metric_charts(reports(), most=_CHARTS)
    tail = tail_lines(storage, METRICS, most_bytes=_TAIL_BYTES)
    began = past.stretches[0].started if past.stretches else now
    return PageData(
        status=with_damage(status, [*past.damaged, *damage_in(METRICS, tail)]),
        now=now,
        past=past,
        eta_secs=eta_secs(status, looks_of(looks[-200:]), now=now),
        metrics=newest_values(records(tail)),
        diverged=divergences.found,
        used=resources_of(looks[-1]) if looks else {},
        charts=charts,
        more_metrics=more,
        resources=resource_charts(looks, began=began),
        checkpoints=_checkpoints(stored, status.checkpoints),
        console=console_tail(stored, most=_CONSOLE_LINES),
        run=_run(stored),
        hparams=hparams,
    )


def _looks(stored: StoredRun, past: Past) -> list[Mapping[str, Any]]:
    """What was used, over all attempts."""
    share = max(_LEAST_BYTES, _RESOURCES_BYTES // max(1, len(past.stretches)))
    found: list[Mapping[str, Any]] = []
    for stretch in past.stretches:
        lines = sampled_lines(
            stored.storage, resources_name(stretch.number), most_bytes=share
        )
        found += itertools.islice(records(lines), _MOST_LOOKS)
    return found


def _checkpoints(stored: StoredRun, steps: Sequence[int]) -> list[Manifest]:
    found = []
    for step in reversed(steps[-_CHECKPOINTS:]):
        with contextlib.suppress(CheckpointError):
            found.append(stored.checkpoints.manifest(step))
    return found


def _run(stored: StoredRun) -> Mapping[str, Any]:
    with contextlib.suppress(DamagedRecordError):
        return read_record(stored.storage, RUN) or {}
    return {}
