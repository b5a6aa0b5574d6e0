"""How a sidecar is doing, told to whoever asks on this machine.

Invariant: the report has one writer and a beat that goes on while an upload
takes an hour; one that stands still is a process that was stopped or hangs.
What was asked of the far end is added up over all sidecars of a spool.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.exchange import Report

__all__ = ["BEAT_SECS", "Reporter", "added_up"]

BEAT_SECS = 5.0

_SECS_AN_HOUR = 3600.0
_BYTES = ("sent_bytes", "received_bytes")


class Reporter:
    """Writes the report of one sidecar."""

    def __init__(
        self,
        spool: Path,
        *,
        traffic: Callable[[], Mapping[str, Any]] = dict,
        beside: Callable[[], Mapping[str, Any]] = dict,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Goes on from what an earlier sidecar has counted.

        Args:
            spool: The spool.
            traffic: Tells what was asked of the far end by this process.
            beside: More fields of `Report`, as they are at present.
            clock: Seconds since 1970.
        """
        self._spool, self._traffic, self._clock = spool, traffic, clock
        self._beside = beside
        self.before = exchange.read(spool, Report) or Report()
        self._begun = clock()
        self._report = Report(pid=os.getpid())
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, name="beat", daemon=True
        )

    @property
    def report(self) -> Report:
        """What was told last."""
        return self._report

    def start(self) -> None:
        """Beats from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Beats no more."""
        self._ending.set()
        self._thread.join()

    def tell(self, **changes: Any) -> None:
        """Says what has changed; all else is as it was.

        Args:
            changes: Fields of `Report`.
        """
        with self._lock:
            self._report = replace(
                self._report,
                **{**self._beside(), **changes},
                beat=self._clock(),
                traffic=self._counted(),
            )
            # The disk may be full: then its age tells.
            with contextlib.suppress(OSError):
                exchange.write(self._spool, self._report)

    def _beat(self) -> None:
        while not self._ending.wait(BEAT_SECS):
            self.tell()

    def _counted(self) -> dict[str, Any]:
        """Requests and bytes of all sidecars so far, and per hour."""
        before = self.before.traffic
        secs = _number(before.get("secs")) + self._clock() - self._begun
        counted = added_up([self._traffic(), before])
        hours = max(secs, 1.0) / _SECS_AN_HOUR
        per_hour = {
            "requests": round(sum(counted["requests"].values()) / hours, 1),
            **{name: round(counted[name] / hours) for name in _BYTES},
        }
        return {"secs": secs, **counted, "per_hour": per_hour}


def added_up(traffic: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Requests, by method, and bytes, of several.

    Args:
        traffic: What was counted; what cannot be understood counts nothing.
    """
    requests: Counter[str] = Counter()
    size_bytes: Counter[str] = Counter()
    for one in traffic:
        asked = one.get("requests")
        if isinstance(asked, Mapping):
            requests.update({k: int(_number(v)) for k, v in asked.items()})
        size_bytes.update(
            {name: int(_number(one.get(name))) for name in _BYTES}
        )
    return {
        "requests": dict(requests),
        **{name: size_bytes[name] for name in _BYTES},
    }


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) else 0.0
