"""How a sidecar is doing is told while it works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from waiting import until

from colab_keras_bg.sidecar import exchange, reporting
from colab_keras_bg.sidecar.exchange import Report
from colab_keras_bg.sidecar.reporting import Reporter


def read(spool: Path) -> Report:
    """What was told last."""
    found = exchange.read(spool, Report)
    assert found is not None
    return found


def test_it_beats_while_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long an upload takes, and what was told stays."""
    monkeypatch.setattr(reporting, "BEAT_SECS", 0.001)
    reporter = Reporter(tmp_path, traffic=dict)
    reporter.tell(phase="shipping", durable_step=3)
    first = read(tmp_path).beat
    reporter.start()
    try:
        until(lambda: read(tmp_path).beat > first + 0.01, what="it beats")
    finally:
        reporter.stop()
    last = read(tmp_path)
    assert (last.phase, last.durable_step) == ("shipping", 3)


def test_requests_are_added_up(tmp_path: Path) -> None:
    """Over all sidecars of a spool, in total and per hour of run."""
    now = 1000.0
    asked: dict[str, Any] = {"requests": {}, "sent_bytes": 0}

    def reporter() -> Reporter:
        return Reporter(tmp_path, traffic=lambda: asked, clock=lambda: now)

    first = reporter()
    now += 1800.0
    asked = {"requests": {"GET": 2, "POST": 3}, "sent_bytes": 700}
    first.tell()
    told = read(tmp_path).traffic
    assert told["secs"] == 1800.0
    assert told["per_hour"]["requests"] == 10
    asked = {}
    now += 9999.0  # The machine stood still.
    second = reporter()
    now += 1800.0
    asked = {"requests": {"GET": 1}, "sent_bytes": 300, "received_bytes": 5}
    second.tell()
    assert read(tmp_path).traffic == {
        "secs": 3600.0,
        "requests": {"GET": 3, "POST": 3},
        "sent_bytes": 1000,
        "received_bytes": 5,
        "per_hour": {
            "requests": 6.0,
            "sent_bytes": 1000,
            "received_bytes": 5,
        },
    }


@pytest.mark.parametrize(
    "traffic", [{"requests": 3}, {"secs": "x"}, {"requests": {"GET": "1"}}]
)
def test_a_report_of_another_form(
    tmp_path: Path, traffic: dict[str, Any]
) -> None:
    """What cannot be understood is not counted."""
    exchange.write(tmp_path, Report(traffic=traffic))
    Reporter(tmp_path, traffic=lambda: {"requests": {"GET": 1}}).tell()
    assert read(tmp_path).traffic["requests"] == {"GET": 1}
