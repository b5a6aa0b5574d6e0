"""What a sidecar does on its own machine, whatever the network does.

Invariant: a thread of its own, which no storage can hold up. What goes wrong
with one duty is told, keeps none of the others from being done, and is tried
again.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from colab_keras_bg.sidecar.exchange import Orders
from colab_keras_bg.sidecar.paging import Paging
from colab_keras_bg.sidecar.pumping import Pumping
from colab_keras_bg.sidecar.sampling import Sampling

__all__ = ["Duties", "Duty", "duties_of"]

_POLL_SECS = 0.25


def duties_of(spool: Path, orders: Orders) -> Duties:
    """What the orders of a sidecar ask it to do on its machine.

    Args:
        spool: The run's local directory.
        orders: Its orders.
    """
    duties: list[Duty] = []
    if orders.console_bytes:
        duties.append(Pumping(spool, limit_bytes=orders.console_bytes))
    if orders.resources_secs:
        duties.append(Sampling(spool, interval_secs=orders.resources_secs))
    if orders.report_secs:
        duties.append(Paging(spool, every_secs=orders.report_secs))
    return Duties(duties)


class Duty(Protocol):
    """Something that is to be done again and again."""

    @property
    def interval_secs(self) -> float:
        """How long to wait between two times."""

    def do(self) -> None:
        """Does it once, in a short time.

        Raises:
            OSError: If it cannot be done now.
        """

    def finish(self) -> None:
        """Does it for the last time, as a whole.

        Raises:
            OSError: If it cannot be done.
        """


class Duties:
    """Does them, each at its time."""

    def __init__(
        self,
        duties: Sequence[Duty],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes them; see `start`.

        Args:
            duties: What is to be done, in this order.
            clock: Seconds that only grow.
        """
        self._duties, self._clock = list(duties), clock
        self._due = {id(duty): 0.0 for duty in duties}
        self._problems: dict[int, str] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._work, name="duties", daemon=True
        )

    @property
    def problem(self) -> str | None:
        """What is going wrong with one of them; None if nothing is."""
        return next(iter(self._problems.values()), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What will go wrong before long, in words."""
        found = (getattr(duty, "warnings", ()) for duty in self._duties)
        return tuple(itertools.chain.from_iterable(found))

    def start(self) -> None:
        """Does them from now on."""
        self._thread.start()

    def finish(self) -> None:
        """Does each for the last time; then none is done any more."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._thread.join()
        for duty in self._duties:
            self._try(duty, duty.finish)

    def _work(self) -> None:
        while not self._ending.wait(_POLL_SECS):
            now = self._clock()
            for duty in self._duties:
                if now >= self._due[id(duty)]:
                    self._due[id(duty)] = now + duty.interval_secs
                    self._try(duty, duty.do)

    def _try(self, duty: Duty, does: Callable[[], None]) -> None:
        try:
            does()
        except Exception as error:  # noqa: BLE001 - told, and tried again
            told = str(error) or type(error).__name__
            self._problems[id(duty)] = told
        else:
            self._problems.pop(id(duty), None)
