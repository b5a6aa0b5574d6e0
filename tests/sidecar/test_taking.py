"""A run is taken from a machine that lives, and goes on writing."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from colab_keras_bg.errors import RunHeldError
from colab_keras_bg.sidecar.fence import Fence
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.sidecar.notes import Notes
from colab_keras_bg.sidecar.taking import Taking
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.memory import MemoryStorage
from colab_keras_bg.storage.records import write_record
from colab_keras_bg.testing.faulty_storage import FaultyStorage

RUN_ID = "0123456789abcdef"


def fence(storage: Storage, name: str, *, ahead_secs: float = 0.0) -> Fence:
    """A machine's, whose clock is ahead."""
    return Fence(
        storage,
        holder=name,
        machine=f"machine {name}",
        clock=lambda: time.time() + ahead_secs,
    )


def taken(storage: Storage, name: str) -> Fence:
    """One that has taken the run."""
    made = fence(storage, name)
    made.look()
    made.take(run_id=RUN_ID, step=None)
    return made


class Busy:
    """A run directory in which something happens before it is taken."""

    def __init__(self, spool: Path, happens: object, *, times: int) -> None:
        self.backing = MemoryStorage()
        write_record(self.backing, "run.json", {"run_id": RUN_ID})
        self.first = taken(self.backing, "a")
        self.happens, self.times = happens, times
        self.storage = FaultyStorage(self.backing)
        self.storage.fails = self._meanwhile
        self.spool = spool
        spool.mkdir(exist_ok=True)

    def _meanwhile(self, number: int, call: str) -> None:
        if call.startswith("swap HEAD") and self.times > 0:
            self.times -= 1
            self.happens(self)  # type: ignore[operator]

    def begin(self, *, take_over: bool) -> Hold:
        """Another machine takes it."""
        taking = Taking(
            LocalStorage(self.spool),
            self.storage,
            fence(self.storage, "b", ahead_secs=1e6),
            Notes(self.spool),
            launch="x",
            take_over=take_over,
        )
        return taking.begin().hold


def commits(busy: Busy) -> None:
    """The first machine goes on."""
    head = busy.first.hold.head
    busy.first.publish(
        replace(head, reports=(*head.reports, f"{busy.times:016x}"))
    )


def gives_back(busy: Busy) -> None:
    """The first machine is done."""
    busy.first.release()


def is_lost(busy: Busy) -> None:
    """A third machine takes it."""
    taken(busy.backing, "c")


@pytest.mark.parametrize(
    ("happens", "times"), [(commits, 1), (commits, 2), (gives_back, 1)]
)
def test_from_one_that_writes(
    happens: object, times: int, tmp_path: Path
) -> None:
    """
    A take-over is no matter of luck: whoever lives may have changed what was
    looked at.
    """
    busy = Busy(tmp_path, happens, times=times)
    assert 2 == busy.begin(take_over=True).head.attempt
    assert 0 == busy.times
    with pytest.raises(RunHeldError):
        busy.first.check()


@pytest.mark.parametrize(
    ("happens", "times"), [(is_lost, 1), (commits, 9)], ids=["third", "always"]
)
def test_from_one_that_is_not_meant(
    happens: object, times: int, tmp_path: Path
) -> None:
    """
    Who has come in between is not taken from; and it is not tried for ever.
    """
    busy = Busy(tmp_path, happens, times=times)
    with pytest.raises(RunHeldError):
        busy.begin(take_over=True)
    hold = Hold.from_bytes(busy.backing.read("HEAD"))
    assert ("c" if happens is is_lost else "a") == hold.holder


def test_only_if_it_is_asked_for(tmp_path: Path) -> None:
    """
    Without being asked to, nothing is taken from one that has come in
    between.
    """
    busy = Busy(tmp_path / "a", is_lost, times=1)
    busy.first.release()
    with pytest.raises(RunHeldError, match="machine c"):
        busy.begin(take_over=False)
    # Its heartbeat seemed to be old, and it lives.
    busy = Busy(tmp_path / "b", commits, times=1)
    with pytest.raises(RunHeldError, match="machine a"):
        busy.begin(take_over=False)
