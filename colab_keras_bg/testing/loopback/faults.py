"""What goes wrong, on demand or at random.

Invariant: a fault strikes as often as it says and where it says, and whether
a random one strikes depends on the seed, the operation, the object and how
often that was asked for before; not on which thread comes first.
"""

from __future__ import annotations

import fnmatch
import random
import threading
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["PASSING_FAULTS", "Fault", "Faults"]

_KINDS = (
    "status",
    "reset",
    "lost_answer",
    "truncated_answer",
    "broken_answer",
    "corrupt_answer",
    "stall",
    "stalled_answer",
)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with some requests.

    Attributes:
        operation: A pattern of the operations that it strikes, such as
            "upload.*".
        kind: What happens:

            - "status": the request is not carried out, but answered with
              `status` (and `reason`).
            - "reset": the connection is reset before it is carried out.
            - "lost_answer": it is carried out, and the connection reset.
            - "truncated_answer": it is carried out; the answer ends early,
              and nothing in it says so.
            - "broken_answer": it is carried out; the connection ends within
              the body of the answer.
            - "corrupt_answer": it is carried out; one byte of the answer's
              body is wrong.
            - "stall": it is held and then carried out, even if the client
              has given up waiting.
            - "stalled_answer": it is carried out, and the answer held.
        status: The HTTP status.
        reason: The service's word for it, such as "quotaExceeded"; the
            usual one of the status if None.
        name: A pattern of the names of the objects that it strikes.
        times: How often it strikes; None for always.
        skip: How many requests it lets pass before.
        after_bytes: Of a "status" or "reset": after how many bytes of the
            request's body; None: after the body and before it, respectively.
            Of an answer: at which byte of its body; None: in the middle.
        secs: How long a stall lasts at most; None: until it is released.
    """

    operation: str = "*"
    kind: str = "status"
    status: int = 503
    reason: str | None = None
    name: str = "*"
    times: int | None = 1
    skip: int = 0
    after_bytes: int | None = None
    secs: float | None = None

    def __post_init__(self) -> None:
        """Refuses a kind that there is not."""
        if self.kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ValueError(f"No fault is {self.kind!r}. There are: {known}.")

    def strikes(self, operation: str, name: str) -> bool:
        """Whether it is meant for an operation on an object."""
        return fnmatch.fnmatchcase(
            operation, self.operation
        ) and fnmatch.fnmatchcase(name, self.name)


# What a client that tries again gets over.
PASSING_FAULTS: tuple[Fault, ...] = (
    Fault(status=429),
    Fault(status=500),
    Fault(status=503),
    Fault("upload.*", status=503, after_bytes=300_000),
    Fault("upload.*", "reset", after_bytes=600_000),
    Fault(kind="reset"),
    Fault(kind="lost_answer"),
    Fault(kind="truncated_answer"),
    Fault(kind="broken_answer"),
)


class Faults:
    """The faults of a server. All its methods are for any thread.

    Attributes:
        struck: How often each kind has struck.
    """

    def __init__(self, *faults: Fault) -> None:
        """Starts with some, or none."""
        self.struck: Counter[str] = Counter()
        self._waiting: list[Fault] = list(faults)
        self._mixture: tuple[int, float, Sequence[Fault]] = (0, 0.0, ())
        self._asked: Counter[tuple[str, str]] = Counter()
        self._held = 0
        self._releases = 0
        self._changed = threading.Condition()

    @classmethod
    def random(
        cls,
        seed: int,
        rate: float,
        mixture: Sequence[Fault] = PASSING_FAULTS,
    ) -> Faults:
        """Faults that strike at random; see `strike_randomly`."""
        faults = cls()
        faults.strike_randomly(seed, rate, mixture)
        return faults

    def add(self, *faults: Fault) -> None:
        """Adds faults, behind those that there are."""
        with self._changed:
            self._waiting += faults

    def strike_randomly(
        self,
        seed: int,
        rate: float,
        mixture: Sequence[Fault] = PASSING_FAULTS,
    ) -> None:
        """Lets faults strike at random, besides those that were added.

        Args:
            seed: What they are drawn from.
            rate: The part of all requests that is struck; 0 ends it.
            mixture: What is drawn from, of what is meant for the request.
        """
        with self._changed:
            self._mixture = (seed, rate, tuple(mixture))
            self._asked.clear()

    def clear(self) -> None:
        """Ends all faults, and releases what is held."""
        with self._changed:
            self._waiting.clear()
            self._mixture = (0, 0.0, ())
        self.release()

    def release(self) -> None:
        """Lets all requests go on that are held now."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    def wait_until_held(self, count: int = 1, *, within_secs: float) -> bool:
        """Waits until requests are held.

        Args:
            count: How many.
            within_secs: How long to wait.

        Returns:
            Whether as many are.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self._held >= count, within_secs
            )

    def take(
        self,
        operation: str,
        name: str,
        *,
        kinds: Container[str] = _KINDS,
    ) -> Fault | None:
        """The fault that strikes a request, if one does.

        Args:
            operation: What is to be done.
            name: The object that it is about.
            kinds: Which kinds may strike.
        """
        with self._changed:
            fault = self._added(operation, name, kinds) or self._drawn(
                operation, name, kinds
            )
            if fault:
                self.struck[fault.kind] += 1
            return fault

    def hold(self, secs: float | None) -> None:
        """Waits until released, at most for some time."""
        with self._changed:
            before = self._releases
            self._held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._releases != before, secs)
            self._held -= 1

    def control(self, order: Mapping[str, Any]) -> None:
        """Does what a request from another process says.

        Args:
            order: `clear` and `release`, if true; `random` with a seed and
                a rate; `add` with faults by their attributes.

        Raises:
            ValueError: If it says something else.
        """
        try:
            added = [Fault(**fault) for fault in order.get("add", ())]
            drawn = dict(order.get("random", {}))
            if unknown := order.keys() - {"add", "clear", "random", "release"}:
                raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
            if order.get("clear"):
                self.clear()
            if order.get("release"):
                self.release()
            if drawn:
                self.strike_randomly(**drawn)
            self.add(*added)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def _added(
        self, operation: str, name: str, kinds: Container[str]
    ) -> Fault | None:
        for index, fault in enumerate(self._waiting):
            if fault.kind not in kinds or not fault.strikes(operation, name):
                continue
            if fault.skip:
                self._waiting[index] = replace(fault, skip=fault.skip - 1)
                continue
            if fault.times is not None:
                self._waiting[index] = replace(fault, times=fault.times - 1)
                if fault.times <= 1:
                    del self._waiting[index]
            return fault
        return None

    def _drawn(
        self, operation: str, name: str, kinds: Container[str]
    ) -> Fault | None:
        seed, rate, mixture = self._mixture
        if not rate:
            return None
        self._asked[operation, name] += 1
        asked = self._asked[operation, name]
        draw = random.Random(f"{seed} {operation} {name} {asked}")
        meant = [
            fault
            for fault in mixture
            if fault.kind in kinds and fault.strikes(operation, name)
        ]
        struck = draw.random() < rate and meant
        return draw.choice(meant) if struck else None
