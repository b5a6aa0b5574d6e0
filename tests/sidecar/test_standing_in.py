"""A fallback that stands in for a run directory, and who may go on from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint.saves import arrays_of, state_of
from waiting import until

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    BackgroundTrainingError,
    RunHeldError,
    StorageUnavailableError,
)
from colab_keras_bg.journal.console_log import ConsoleLog
from colab_keras_bg.journal.heartbeat import STATUS
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.sidecar import exchange, far_end, process
from colab_keras_bg.sidecar.exchange import Orders, Report
from colab_keras_bg.sidecar.fence import Fence
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.sidecar.notes import Notes
from colab_keras_bg.sidecar.process import Sidecar
from colab_keras_bg.sidecar.standing_in import StandIn
from colab_keras_bg.storage import MemoryStorage, Storage
from colab_keras_bg.storage.records import write_record
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.testing.faulty_storage import FaultyStorage


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for half a minute here."""
    monkeypatch.setattr(process, "_PROBE_SECS", 0.1)
    monkeypatch.setattr(process, "_POLL_SECS", 0.02)
    monkeypatch.setattr(far_end, "_JOURNAL_SECS", 0.2)
    monkeypatch.setattr(process, "_FIRST_WAIT_SECS", 0.02)
    monkeypatch.setattr(process, "_MOST_WAIT_SECS", 0.05)


class PowerCut(BaseException):
    """Not an Exception: no `except Exception` can survive a power cut."""


class Place:
    """A storage that can be out of reach, or refuse to be written."""

    def __init__(self) -> None:
        self.memory = MemoryStorage()
        self.is_dead = self.is_full = self.is_nearly_full = False

    def seen(self) -> FaultyStorage:
        """What a machine sees of it."""

        def fails(number: int, call: str) -> str | None:
            reads = call.startswith(("read", "info", "list", "map"))
            if self.is_dead or (self.is_full and not reads):
                return "before"
            is_large = call.startswith(("create", "upload"))
            if self.is_nearly_full and is_large:
                return "before"
            return None

        return FaultyStorage(
            self.memory,
            fails=fails,
            error=lambda: StorageUnavailableError("out of reach"),
        )

    @property
    def hold(self) -> Hold:
        return Hold.from_bytes(self.memory.read(HEAD))

    @property
    def step(self) -> int | None:
        try:
            return self.hold.head.step
        except FileNotFoundError:
            return None

    def age(self) -> None:
        """Whoever holds it has not been heard of for long."""
        hold = replace(self.hold, claimed=self.hold.claimed - 3600)
        self.memory.replace(HEAD, hold.to_bytes())
        write_record(self.memory, STATUS, {"heartbeat": 0.0})


class Machine:
    """A spool with a trainer and a sidecar, which runs in a thread."""

    def __init__(
        self, path: Path, first: Place, fallback: Place, *, launch: str = "x"
    ) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        exchange.write(path, Orders(launch=launch, fallback_after_secs=0.2))
        self.error: BackgroundTrainingError | None = None
        self.directory = RunDirectory(path)
        self.directory._lock = self.directory._acquire()
        self._gone = False
        self._sidecar = Sidecar(
            path, first.seen(), fallback.seen(), sleep=self._sleep
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _sleep(self, secs: float) -> None:
        if self._gone:
            raise PowerCut
        time.sleep(min(secs, 0.02))

    def _run(self) -> None:
        try:
            self._sidecar.run()
        except PowerCut:
            pass
        except BackgroundTrainingError as error:
            self.error = error

    @property
    def report(self) -> Report:
        return exchange.read(self.path, Report) or Report()

    def begin(self) -> int | None:
        """The trainer starts; what it goes on from."""
        until(
            lambda: self.error or self.report.phase == "shipping",
            what="the run is ours, or not to be had",
        )
        if self.error is not None:
            raise self.error
        self.directory.head = self.directory._read_head()
        self.directory.begin_attempt(command=["program"])
        return max(self.directory.checkpoints.steps(), default=None)

    def save(self, step: int) -> None:
        manifest = self.directory.checkpoints.save(
            step,
            attempt=self.directory.attempt,
            tensors={k: LazyTensor.of(v) for k, v in arrays_of(step).items()},
            state=state_of(step),
        )
        self.directory.publish(step=step, committed=manifest.created)

    def save_durably(self, step: int, place: Place) -> None:
        self.save(step)
        until(lambda: place.step == step, what=f"step {step} there")

    def end(self) -> None:
        """As one that is asked to end does: all is shipped."""
        orders = exchange.read(self.path, Orders) or Orders()
        exchange.write(self.path, replace(orders, finish=True))
        until(lambda: self.report.phase == "drained", what="it has ended")
        self.die()

    def die(self) -> None:
        """As a machine does: nothing is given back."""
        self._gone = True
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.directory.release()


class Told:
    """What a sidecar says is durable, from now on."""

    def __init__(self, machine: Machine) -> None:
        self.durable: list[int] = []
        self._machine, self._ending = machine, threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ending.wait(0.001):
            self.durable.append(self._machine.report.durable_step or 0)

    def end(self) -> list[int]:
        self._ending.set()
        self._thread.join()
        return self.durable


@pytest.fixture
def first() -> Place:
    """The run directory."""
    return Place()


@pytest.fixture
def spare() -> Place:
    """The fallback."""
    return Place()


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Machines that do not outlive the test."""
    made: list[Machine] = []
    yield made
    for machine in made:
        if not machine._gone:
            machine.die()


def gone_and_come_back(
    path: Path, first: Place, spare: Place, machines: list[Machine]
) -> Machine:
    """A machine that has shipped to the fallback at step 3, and is back."""
    machine = Machine(path, first, spare)
    machines.append(machine)
    assert machine.begin() is None
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    first.is_dead = False
    until(lambda: first.step == 3, what="what is due is shipped")
    return machine


def test_given_back(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    When the run directory is back, it gets what is due, and the fallback says
    that it was given back; when it stands in once more, it says so no longer.
    """
    machine = gone_and_come_back(tmp_path / "a", first, spare, machines)
    assert (True, "") == (spare.hold.given_back, spare.hold.holder)
    first.is_dead = True
    machine.save_durably(4, spare)
    assert not spare.hold.given_back
    until(lambda: machine.report.durable_step == 4, what="it is told")


def test_stale_fallback_begins_nothing(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    A fallback that was given back is not begun from while the run directory,
    which has gone further, is out of reach; afterwards nothing is missing.
    """
    machine = gone_and_come_back(tmp_path / "a", first, spare, machines)
    machine.save_durably(9, first)
    machine.die()
    first.is_dead = True
    machines.append(Machine(tmp_path / "b", first, spare))
    with pytest.raises(StorageUnavailableError, match="out of reach"):
        machines[-1].begin()
    first.is_dead = False
    first.age()
    machines.append(Machine(tmp_path / "c", first, spare))
    assert 9 == machines[-1].begin()
    assert 9 in CheckpointStore(first.memory).steps()


def test_live_holder_of_the_fallback(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    Another that ships to the fallback and lives holds the run, though the run
    directory has not heard of it for long.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    first.memory.replace(
        HEAD, replace(first.hold, claimed=0.0, holder="a").to_bytes()
    )
    write_record(spare.memory, STATUS, {"heartbeat": time.time()})

    beats = threading.Event()

    def beat() -> None:
        while not beats.wait(0.05):
            write_record(spare.memory, STATUS, {"heartbeat": time.time()})

    threading.Thread(target=beat, daemon=True).start()
    clock = Fence(
        first.memory, holder="b", machine="b", sleep=lambda secs: None
    ).beside(spare.memory)
    clock._sleep = lambda secs: time.sleep(0.1)  # type: ignore[assignment]
    notes = Notes(tmp_path / "a").of_fallback()
    beside = StandIn(spare.memory, clock, notes, skip=lambda text: None)
    with pytest.raises(RunHeldError):
        beside.check_free(take_over=False)
    beside.check_free(take_over=True)
    beats.set()


def test_taken_from_who_ships_to_the_fallback(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    Who takes the run fences the fallback off, too: what the other still
    commits is not called durable, and it ends.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    # For the other one, the run directory stays out of reach.
    seen = Place()
    seen.memory = first.memory
    first.age()
    spare.age()
    other = Machine(tmp_path / "b", seen, spare, launch="y")
    machines.append(other)
    exchange.write(
        other.path, Orders(launch="y", take_over=True, fallback_after_secs=0.2)
    )
    assert 3 == other.begin()
    assert spare.hold.given_back
    other.save_durably(4, seen)
    machine.save(5)
    until(lambda: machine.error is not None, what="it has ended")
    assert 3 == spare.step
    assert isinstance(machine.error, RunHeldError)


def test_taker_that_dies_at_once(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    Who goes on from the fallback and dies before anything of it is in the run
    directory has lost nothing: the next one goes on from the fallback, too.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    machine.die()
    first.is_dead = False
    first.age()
    spare.age()
    second = Machine(tmp_path / "b", first, spare)
    machines.append(second)
    until(lambda: second.report.phase == "shipping", what="it has taken it")
    # Whatever of step 3 is there by now: as if it had died before.
    second.die()
    for info in list(first.memory.list("checkpoints/step-000000003/")):
        first.memory.delete(info.name)
    hold = first.hold
    head = replace(hold.head, step=2, steps=(2,))
    first.memory.replace(HEAD, replace(hold, head=head).to_bytes())
    first.age()
    third = Machine(tmp_path / "c", first, spare)
    machines.append(third)
    assert 3 == third.begin()


@pytest.mark.parametrize("how", ["is_full", "is_nearly_full"])
def test_readable_but_not_writable(
    how: str,
    tmp_path: Path,
    first: Place,
    spare: Place,
    machines: list[Machine],
) -> None:
    """
    A run directory that can be read and not be written, or only a little, is
    not gone back to for long: what is committed meanwhile becomes durable in
    the fallback at once, and what was called durable stays so.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    setattr(first, how, True)
    machine.save_durably(3, spare)
    # From now on, waiting for the fallback to be due would take too long.
    exchange.write(machine.path, Orders(launch="x", fallback_after_secs=600.0))
    told = Told(machine)
    for step in range(4, 10):
        machine.save_durably(step, spare)
        until(
            lambda step=step: machine.report.durable_step == step,  # type: ignore[misc]
            what="it is told",
        )
        time.sleep(0.15)  # It is looked at again meanwhile.
    assert first.step in (None, 2)
    assert sorted(told.end()) == told.durable
    setattr(first, how, False)
    until(lambda: first.step == 9, what="what is due is there")


def test_lost_answer_to_a_taking(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    When the fallback was taken and the answer was lost, and it then was out
    of reach for long, it is ours all the same.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    lost = threading.Event()
    swap = MemoryStorage.swap

    def losing(
        self: Storage, name: str, content: bytes, *, expected: bytes | None
    ) -> object:
        done = swap(self, name, content, expected=expected)  # type: ignore[arg-type]
        if self is spare.memory and not lost.is_set():
            lost.set()
            spare.is_dead = True
            raise StorageUnavailableError("the answer is lost")
        return done

    spare.memory.swap = losing.__get__(spare.memory)  # type: ignore[method-assign]
    first.is_dead = True
    machine.save(3)
    assert lost.wait(30)
    time.sleep(0.2)
    spare.is_dead = False
    until(lambda: spare.step == 3, what="it is shipped there")
    assert machine.error is None


def test_another_run_in_the_fallback(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    A fallback that holds another run is refused.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    machine.die()
    other = Hold(Head(run_id="another", attempt=1, step=7, committed=1.0))
    spare.memory.replace(HEAD, other.to_bytes())
    first.age()
    machines.append(Machine(tmp_path / "b", first, spare))
    with pytest.raises(BackgroundTrainingError, match="it holds another run"):
        machines[-1].begin()


def test_fallback_out_of_reach(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    Whether the fallback holds newer steps is never guessed.
    """
    spare.is_dead = True
    machines.append(Machine(tmp_path / "a", first, spare))
    with pytest.raises(StorageUnavailableError, match="Whether newer steps"):
        machines[-1].begin()
    assert first.step is None


def test_attempt_that_ends_at_the_fallback(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    Who goes on from where another has ended at the fallback closes that: it
    is not begun from when the run directory, which has gone further, is gone.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    machine.end()
    assert not spare.hold.given_back
    first.is_dead = False
    first.age()
    second = Machine(tmp_path / "b", first, spare)
    machines.append(second)
    assert 3 == second.begin()
    second.save_durably(9, first)
    second.die()
    first.is_dead = True
    machines.append(Machine(tmp_path / "c", first, spare))
    with pytest.raises(StorageUnavailableError, match="out of reach"):
        machines[-1].begin()


def test_fallback_that_cannot_be_closed(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    If the fallback does not answer when it is left, it is closed as soon as
    it does. Should a machine begin from it before, it is ended when the run
    directory is seen, of which nothing is lost.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    spare.is_full, first.is_dead = True, False
    machine.save_durably(9, first)
    assert not spare.hold.given_back
    content = spare.memory.read(HEAD)
    spare.is_full = False
    until(lambda: spare.hold.given_back, what="it is closed after all")
    machine.die()
    spare.memory.replace(HEAD, content)  # As if the machine had died before.
    first.is_dead = True
    spare.age()
    stale = Machine(tmp_path / "c", first, spare)
    machines.append(stale)
    assert 3 == stale.begin()
    stale.save_durably(12, spare)
    first.is_dead = False
    until(lambda: stale.error is not None, what="it has ended")
    assert isinstance(stale.error, RunHeldError)
    assert 9 in CheckpointStore(first.memory).steps()
    assert 9 == first.step
    stale.die()
    first.age()
    spare.age()
    machines.append(Machine(tmp_path / "d", first, spare))
    assert 9 == machines[-1].begin()


def test_fallback_lost_to_another(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    Who has lost the fallback to another has lost the run, and does not go
    back to the run directory.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    spare.age()
    other = Machine(tmp_path / "b", first, spare)
    exchange.write(
        other.path, Orders(launch="x", take_over=True, fallback_after_secs=0.2)
    )
    machines.append(other)
    assert 3 == other.begin()
    machine.save(12)
    until(lambda: machine.error is not None, what="the loser has ended")
    assert isinstance(machine.error, RunHeldError)
    other.save_durably(5, spare)
    first.age()
    first.is_dead = False
    until(lambda: first.step == 5, what="the winner goes back")


@pytest.mark.parametrize("used", [False, True])
def test_cut_off_from_the_run_directory(
    used: bool,
    tmp_path: Path,
    first: Place,
    spare: Place,
    machines: list[Machine],
) -> None:
    """
    One that cannot see that the run was taken cannot ship to the fallback,
    whether that was ever used or not.
    """
    if used:
        machine = gone_and_come_back(tmp_path / "a", first, spare, machines)
    else:
        machine = Machine(tmp_path / "a", first, spare)
        machines.append(machine)
        machine.begin()
        machine.save_durably(2, first)
    exchange.write(machine.path, Orders(launch="x", fallback_after_secs=1.0))
    seen = Place()  # Only the first machine is cut off.
    seen.memory = first.memory
    first.is_dead = True
    machine.save(4)
    first.age()
    other = Machine(tmp_path / "b", seen, spare)
    machines.append(other)
    other.begin()
    until(lambda: machine.error is not None, what="the loser has ended")
    assert isinstance(machine.error, RunHeldError)
    other.save_durably(5, seen)


def test_taken_at_a_step_that_has_not_arrived(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    A machine takes the run directory with a step that only it has, and is
    lost: the next one goes on from the newest that is durable anywhere.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(5, spare)
    spare.is_dead = True
    machine.save(7)
    machine.die()
    first.is_dead = spare.is_dead = False
    first.is_nearly_full = True  # A large upload takes its time.
    again = Machine(tmp_path / "a", first, spare, launch="y")
    machines.append(again)
    assert 7 == again.begin()
    again.die()
    first.is_nearly_full = False
    first.age()
    machines.append(Machine(tmp_path / "c", first, spare))
    assert 5 == machines[-1].begin()


def test_records_of_our_own(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    A machine whose disk has more than the fallback keeps what it has
    reported.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    reports = tmp_path / "a/metrics.jsonl"
    reports.write_bytes(b'{"step": 2}\n')
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    spare.is_dead = True
    reports.write_bytes(b'{"step": 2}\n{"step": 6}\n')
    machine.save(6)
    machine.die()
    first.is_dead = spare.is_dead = False
    machines.append(Machine(tmp_path / "a", first, spare, launch="y"))
    assert 6 == machines[-1].begin()
    assert b'{"step": 2}\n{"step": 6}\n' == reports.read_bytes()


def test_console_of_the_fallback(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    What was printed while the fallback stood in is in the run directory after
    the machine is lost.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    log = ConsoleLog(tmp_path / "a", 1)
    log.append(b"printed\n", when=1e9)
    machine.save_durably(3, spare)
    name = "attempts/0001/console.log"
    until(lambda: spare.memory.exists(name), what="it is there")
    machine.die()
    first.is_dead = False
    first.age()
    spare.age()
    machines.append(Machine(tmp_path / "b", first, spare))
    machines[-1].begin()
    until(lambda: first.memory.exists(name), what="it is here, too")
    assert first.memory.read(name) == spare.memory.read(name)


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_head_that_is_lost(
    how: str,
    tmp_path: Path,
    first: Place,
    spare: Place,
    machines: list[Machine],
) -> None:
    """
    A fallback that was closed does not win over a run directory whose HEAD is
    damaged or gone.
    """
    machine = gone_and_come_back(tmp_path / "a", first, spare, machines)
    machine.save_durably(9, first)
    machine.die()
    if how == "gone":
        first.memory.delete(HEAD)
    else:
        first.memory.replace(HEAD, first.memory.read(HEAD)[:40])
    write_record(first.memory, STATUS, {"heartbeat": 0.0})
    machines.append(Machine(tmp_path / "c", first, spare))
    assert 9 == machines[-1].begin()


@pytest.mark.parametrize("how", ["is_dead", "is_full"])
def test_fallback_that_fails(
    how: str,
    tmp_path: Path,
    first: Place,
    spare: Place,
    machines: list[Machine],
) -> None:
    """
    When the fallback fails and the run directory is back, it is gone back to.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    first.is_dead = True
    machine.save_durably(3, spare)
    setattr(spare, how, True)
    machine.save(4)
    first.is_dead = False
    until(lambda: first.step == 4, what="what is due is shipped")


def test_start_without_the_fallback(
    tmp_path: Path, first: Place, spare: Place, machines: list[Machine]
) -> None:
    """
    Where a run was given back in the run directory, it does not matter that
    the fallback is out of reach.
    """
    machine = Machine(tmp_path / "a", first, spare)
    machines.append(machine)
    machine.begin()
    machine.save_durably(2, first)
    machine.end()
    spare.is_dead = True
    machines.append(Machine(tmp_path / "b", first, spare))
    assert 2 == machines[-1].begin()
