"""`python -m colab_keras_bg.sidecar SPOOL`: started by a trainer, outlives it.

Where it ships to, and what is kept there, the spool's orders say.

Invariant: how it ended stands in its report, whatever that was.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

from colab_keras_bg.errors import BackgroundTrainingError
from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.duties import Duties, duties_of
from colab_keras_bg.sidecar.exchange import FOLDER, Orders, Report
from colab_keras_bg.sidecar.reporting import Reporter, added_up
from colab_keras_bg.sidecar.watching import LocalSidecar
from colab_keras_bg.storage.lock import DirectoryLock

__all__ = ["main"]

# For how long it is told that one before has died.
_TOLD_SECS = 600.0


def main() -> int:
    """Ships one spool; 0 if all is shipped, 1 if the run cannot be had."""
    # What needs gRPC is not used here, and it takes ten megabytes.
    sys.modules["grpc"] = None  # type: ignore[assignment]
    # A kernel that is interrupted, or a terminal that closes, is not ours.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    spool = Path(sys.argv[1])
    lock = DirectoryLock.acquire(
        spool / FOLDER,
        holder=f"sidecar {os.getpid()}",
        patience_secs=3600.0,
    )
    try:
        _work(spool, exchange.read(spool, Orders) or Orders())
    except Exception as error:  # noqa: BLE001 - told, whatever it is
        if not isinstance(error, BackgroundTrainingError):
            traceback.print_exc()  # Into its log.
        told = exchange.read(spool, Report) or Report()
        exchange.write(
            spool,
            replace(
                told,
                phase="failed",
                pid=os.getpid(),
                beat=time.time(),
                error=type(error).__name__,
                message=str(error) or type(error).__name__,
            ),
        )
        return 1
    finally:
        lock.release()
    return 0


def _work(spool: Path, orders: Orders) -> None:
    duties = duties_of(spool, orders)
    duties.start()
    if not orders.url:
        reporter = Reporter(spool, beside=lambda: _beside(duties, orders))
        LocalSidecar(spool, reporter, drain=duties.finish).run()
        return
    # What is needed to ship takes its time and its memory.
    from colab_keras_bg.sidecar.process import Sidecar
    from colab_keras_bg.storage.addresses import open_remote

    rate = orders.bytes_per_sec
    ends = [
        open_remote(address, bytes_per_sec=rate)
        for address in filter(None, (orders.url, orders.fallback))
    ]
    reporter = Reporter(
        spool,
        traffic=lambda: added_up(end.traffic() for end in ends),
        beside=lambda: _beside(duties, orders),
    )
    Sidecar(
        spool,
        *(end.storage for end in ends),
        reporter=reporter,
        drain=duties.finish,
    ).run()


def _beside(duties: Duties, orders: Orders) -> dict[str, object]:
    problem = duties.problem
    if problem is None and time.time() - orders.died < _TOLD_SECS:
        often = f", {orders.deaths} times by now" * (orders.deaths > 1)
        problem = (
            "the sidecar has died and was started again"
            f"{often}; a kill without a word is most often for want of memory. "
        )
    return {"local_problem": problem, "warnings": duties.warnings}


if __name__ == "__main__":
    sys.exit(main())
