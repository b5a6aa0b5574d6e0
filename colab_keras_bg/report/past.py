"""What a run has been through: its attempts on the line of time.

Invariant: how much is read is bounded, however long the run and however many
its attempts; of what is beyond, it is said that it was left out. A record
that is damaged leaves a gap, and nothing else.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colab_keras_bg.journal.attempts import Attempt, attempt_directory
from colab_keras_bg.journal.metrics import METRICS
from colab_keras_bg.report.numbers import moment, number, records, whole
from colab_keras_bg.report.status import RunStatus
from colab_keras_bg.report.timeline import (
    Look,
    Split,
    Stretch,
    split_of,
    stretch_of,
)
from colab_keras_bg.storage.records import DamagedRecordError
from colab_keras_bg.storage.tails import sampled_lines
from colab_keras_bg.stored_run import StoredRun

__all__ = ["Past", "looks_of", "read_past", "resources_name"]

_LEAST_BYTES = 16 << 10
_MOST_NAMED = 5


@dataclass(frozen=True)
class Past:
    """What a run has been through.

    Attributes:
        stretches: The attempts that were looked at, oldest first.
        split: What their time went into.
        left_out: How many older attempts were not looked at.
        damaged: Whose records cannot be understood, in words.
    """

    stretches: Sequence[Stretch]
    split: Split
    left_out: int
    damaged: Sequence[str] = ()


def read_past(
    stored: StoredRun,
    status: RunStatus,
    *,
    most_attempts: int,
    most_bytes: int,
    now: float | None = None,
) -> Past:
    """Reads what a run has been through.

    Args:
        stored: The run.
        status: Where it stands.
        most_attempts: How many attempts are looked at, the newest ones.
        most_bytes: How much is read in all, about.
        now: Seconds since 1970.

    Raises:
        StorageUnavailableError: If it cannot be read.
    """
    numbers = stored.attempts.numbers()
    looked_at = numbers[-most_attempts:]
    attempts = [
        attempt
        for one in looked_at
        if (attempt := _attempt(stored, one)) is not None
    ]
    known = {attempt.number for attempt in attempts}
    share = most_bytes // 2 // max(1, len(attempts))
    reports = looks_of(
        records(
            sampled_lines(stored.storage, METRICS, most_bytes=most_bytes // 2)
        )
    )
    is_running = status.state == "running"
    stretches = []
    for index, attempt in enumerate(attempts):
        later = attempts[index + 1 :]
        until = later[0].started if later else None
        mine = _between(reports, attempt.started, until)
        seen = _resources(stored, attempt.number, max(share, _LEAST_BYTES))
        # Before training goes on, the step of the attempt before shows.
        looks = [look for look in seen if look.step_secs]
        last_sign = max((look.time for look in (*mine, *seen)), default=None)
        step = max((look.step for look in mine), default=None)
        if not later:
            beat = (now or time.time()) if is_running else status.last_heartbeat
            last_sign = _largest(last_sign, beat)
            if _is_newest_told(status, attempt):
                step = _largest(step, status.step)
        stretches.append(
            stretch_of(
                attempt,
                looks or mine,
                last_sign=last_sign,
                step=step,
                is_running=is_running and not later,
                until=until,
            )
        )
    kept_step = None
    if status.state in ("interrupted", "failed"):
        kept_step = max(status.committed_step or 0, status.durable_step or 0)
    told, split = split_of(stretches, kept_step=kept_step)
    return Past(
        told,
        split,
        left_out=len(numbers) - len(attempts),
        # The newest one's record is the status' to name.
        damaged=_damaged([one for one in looked_at[:-1] if one not in known]),
    )


def looks_of(found: Iterable[Mapping[str, Any]]) -> list[Look]:
    """What records tell of the training, in the order of time.

    Args:
        found: Lines of `resources.jsonl`, or of `metrics.jsonl`.
    """
    looks = []
    for record in found:
        when, step = moment(record.get("time")), whole(record.get("step"))
        if when is not None and step is not None:
            looks.append(
                Look(
                    when,
                    step,
                    step_secs=number(record.get("step_secs")),
                    input_wait=number(record.get("input_wait")),
                    save_wait=number(record.get("save_wait")),
                )
            )
    return sorted(looks, key=lambda look: look.time)


def resources_name(attempt: int) -> str:
    """The name of an attempt's resources."""
    return f"{attempt_directory(attempt)}/resources.jsonl"


def _attempt(stored: StoredRun, attempt: int) -> Attempt | None:
    try:
        found = stored.attempts.read(attempt)
    except DamagedRecordError:
        return None
    if found is None or moment(found.started) is None:
        return None
    if found.ended is not None and moment(found.ended) is None:
        return None
    return found


def _damaged(attempts: Sequence[int]) -> list[str]:
    if not attempts:
        return []
    named = ", ".join(map(str, attempts[-_MOST_NAMED:]))
    more = len(attempts) - _MOST_NAMED
    return [
        f"what is known of attempt {named}"
        + (f" and of {more} more" if more > 0 else "")
        + " cannot be understood"
    ]


def _resources(stored: StoredRun, attempt: int, most_bytes: int) -> list[Look]:
    lines = sampled_lines(
        stored.storage, resources_name(attempt), most_bytes=most_bytes
    )
    return looks_of(records(lines))


def _between(
    looks: Sequence[Look], begin: float, end: float | None
) -> Sequence[Look]:
    first = bisect.bisect_left(looks, begin, key=lambda look: look.time)
    if end is None:
        return looks[first:]
    last = bisect.bisect_left(looks, end, key=lambda look: look.time)
    return looks[first:last]


def _is_newest_told(status: RunStatus, attempt: Attempt) -> bool:
    """Whether the step that the status tells is of this attempt."""
    beat = status.last_heartbeat
    return beat is not None and beat >= attempt.started


def _largest(*values: Any) -> Any:
    return max((v for v in values if v is not None), default=None)
