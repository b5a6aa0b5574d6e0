"""What the `HEAD` of a remote run says: who holds it, and what is void.

Invariant: it is read only in the very form in which it is written, and never
changed in place: whoever takes or gives back makes another.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.storage.records import DamagedRecordError, decode, encode

__all__ = ["Hold"]

_MOST_FENCES = 64
_UNHELD: Mapping[str, Any] = {
    "holder": "",
    "machine": "",
    "claimed": 0,
    "claim": "",
    "given_back": False,
    "stands_for": "",
    "after": None,
    "closed_at": 0,
    "fences": [],
}


@dataclass(frozen=True)
class Hold:
    """What the `HEAD` of a remote run says.

    Attributes:
        head: The newest commit, and the attempt that may write.
        holder: The name of the spool that holds it; empty if none does.
        machine: Where that is, for people.
        claimed: When it was taken, in seconds since 1970.
        claim: A name of that taking, drawn at random.
        given_back: Of a fallback: whether it is closed, since the run
            directory is gone on with.
        stands_for: Of a fallback: for which taking of the run directory it
            stands in.
        after: Of a run directory: the last attempt that the fallback knew of
            when it was closed; None if there is none.
        closed_at: Of a fallback: the last attempt that was known when it was
            last closed; none up to it may ship there any more.
        fences: The take-overs, oldest first: the first attempt after each,
            and the step it went on from (None: from nothing).
    """

    head: Head
    holder: str = ""
    machine: str = ""
    claimed: float = 0.0
    claim: str = ""
    given_back: bool = False
    stands_for: str = ""
    after: int | None = None
    closed_at: int = 0
    fences: Sequence[tuple[int, int | None]] = ()

    def is_void(self, step: int, *, attempt: int) -> bool:
        """Whether a commit was cut off by a take-over.

        Args:
            step: The step of the commit.
            attempt: The attempt that has made it.
        """
        return any(
            attempt < first and step > _place(began)
            for first, began in self.fences
        )

    def taken(
        self,
        *,
        holder: str,
        machine: str,
        claimed: float,
        step: int | None,
        there: int | None = None,
    ) -> Hold:
        """The same run, held by another who goes on from a step.

        That step need not have been shipped yet: what `HEAD` names as
        committed is what was before, or was seen `there`.
        """
        named = {*self.head.steps, self.head.step, there} - {None}
        kept = sorted(s for s in named if s is not None and s <= _place(step))
        newest = kept[-1] if kept else None
        first = self.head.attempt + 1
        earlier = [
            fence
            for fence in self.fences
            # What lies beyond the new fence is void by that already.
            if _place(fence[1]) < _place(step)
        ]
        return replace(
            self,
            head=replace(
                self.head,
                attempt=first,
                step=newest,
                committed=(
                    self.head.committed if newest == self.head.step else None
                ),
                steps=tuple(kept),
            ),
            holder=holder,
            machine=machine,
            claimed=claimed,
            claim=secrets.token_hex(8),
            given_back=False,
            fences=(*earlier[1 - _MOST_FENCES :], (first, step)),
        )

    def to_bytes(self) -> bytes:
        """As it stands in `HEAD`."""
        body = {
            **vars(self.head),
            "holder": self.holder,
            "machine": self.machine,
            "claimed": self.claimed,
            "claim": self.claim,
            "given_back": self.given_back,
            "stands_for": self.stands_for,
            "after": self.after,
            "closed_at": self.closed_at,
            "fences": [list(fence) for fence in self.fences],
        }
        return encode(HEAD, body)

    @classmethod
    def from_bytes(cls, content: bytes) -> Hold:
        """Reads what stands in `HEAD`.

        Raises:
            DamagedRecordError: If that is not what we write.
        """
        body = decode(HEAD, content)
        # One that was copied from a local run names no holder.
        match {**_UNHELD, **body}:
            case {
                "holder": str(holder),
                "machine": str(machine),
                "claimed": int() | float() as claimed,
                "claim": str(claim),
                "given_back": bool(given_back),
                "stands_for": str(stands_for),
                "after": int() | None as after,
                "closed_at": int(closed_at),
                "fences": list(fences),
            }:
                pass
            case _:
                raise DamagedRecordError(HEAD, reason="its holder is no name")
        return cls(
            head=Head.from_json(body),
            holder=holder,
            machine=machine,
            claimed=claimed,
            claim=claim,
            given_back=given_back,
            stands_for=stands_for,
            after=after,
            closed_at=closed_at,
            fences=tuple(_fence(fence) for fence in fences),
        )


def _place(step: int | None) -> int:
    return -1 if step is None else step


def _fence(value: Any) -> tuple[int, int | None]:
    match value:
        case [int(first), int() | None as began] if (
            type(first) is int and type(began) is not bool
        ):
            return first, began
    raise DamagedRecordError(HEAD, reason=f"a take-over is {value!r:.80}")
