"""`bg.load_metrics`: what a run has reported, as a table.

Invariant: one row a report, in the order of steps, the values as they were
written. A line that is damaged is passed over, and that is said.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from colab_keras_bg.errors import ObjectNotFoundError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.metrics import METRICS, damaged_lines
from colab_keras_bg.report.numbers import moment, records, whole
from colab_keras_bg.report.status import wherever
from colab_keras_bg.storage.records import DamagedRecordError
from colab_keras_bg.stored_run import StoredRun

__all__ = ["load_metrics"]

_FIRST = ("step", "epoch", "time", "attempt")
# What a training is made with is no measurement.
_NO_METRICS = (*_FIRST, "hparams")


def load_metrics(run_dir: str | os.PathLike[str]) -> Any:
    """What a run has reported: `history.history` of the whole run, as a table.

    One row a report: those of `fit` at the end of each epoch, and those of
    `run.log`. The columns are `step`, `epoch` (from 0; of epochs only),
    `time` (in seconds since 1970), `attempt` (as far as it can be told by the
    time), and one for each metric, as Keras names it; what a report does not
    tell is NaN.

    Args:
        run_dir: The run directory: a path, or a URL.

    Returns:
        A `pandas.DataFrame`, sorted by step; where pandas is not installed, a
        list of dicts, one a row, without what is not told.

    Raises:
        UsageError: If there is no run.
        StorageUnavailableError: If it cannot be read.

    Example:
        ```python
        table = bg.load_metrics("runs/a")
        table.plot("step", ["loss", "val_loss"])
        ```
    """
    rows, trouble = wherever(run_dir, _rows)
    if trouble is not None:
        say(f"{trouble} What is on this machine is read.")
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        return rows
    names = dict.fromkeys(_FIRST)
    for row in rows:
        names.update(dict.fromkeys(row))
    table = pandas.DataFrame(rows, columns=list(names))
    for name in ("epoch", "attempt"):
        table[name] = table[name].astype("Int64")
    return table


def _rows(stored: StoredRun) -> list[dict[str, Any]]:
    stored.check_holds_a_run()
    try:
        content = stored.storage.read(METRICS)
    except ObjectNotFoundError:
        return []
    damaged = list(damaged_lines(content))
    if damaged:
        which = ", ".join(map(str, damaged[:5])) + " ..." * (len(damaged) > 5)
        say(f"{METRICS}: {len(damaged)} damaged lines passed over: {which}")
    began = _beginnings(stored)
    rows = []
    # The last line is cut off if the program died while it was written.
    for report in records(content[: content.rfind(b"\n") + 1].split(b"\n")):
        if whole(report.get("step")) is None:
            continue
        attempt = _attempt_at(moment(report.get("time")), began)
        first = {name: report[name] for name in _FIRST if name in report}
        first |= {} if attempt is None else {"attempt": attempt}
        for name, of in (("epoch", whole), ("time", moment)):
            if name in first and of(first[name]) is None:
                del first[name]
        rest = {n: v for n, v in report.items() if n not in _NO_METRICS}
        if rest:
            rows.append({**first, **rest})
    return sorted(rows, key=lambda row: int(row["step"]))


def _beginnings(stored: StoredRun) -> list[tuple[float, int]]:
    """When each attempt began, oldest first."""
    found = []
    for number in stored.attempts.numbers():
        try:
            attempt = stored.attempts.read(number)
        except DamagedRecordError:
            continue
        if attempt is not None and moment(attempt.started) is not None:
            found.append((attempt.started, number))
    return sorted(found)


def _attempt_at(
    when: float | None, began: list[tuple[float, int]]
) -> int | None:
    if when is None:
        return None
    before = [number for started, number in began if started <= when]
    return before[-1] if before else None
