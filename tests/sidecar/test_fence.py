"""Who may write to a remote run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.checkpoint.head import HEAD, Head
from colab_keras_bg.errors import RunHeldError
from colab_keras_bg.sidecar.fence import Fence
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage import LocalStorage, MemoryStorage, Storage
from colab_keras_bg.storage.records import (
    DamagedRecordError,
    encode,
    write_record,
)


class Clock:
    """A clock that only sleeping moves on."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, secs: float) -> None:
        """Moves on."""
        self.now += secs


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A remote."""
    return (
        MemoryStorage()
        if request.param == "memory"
        else LocalStorage(tmp_path / "remote")
    )


def fence(storage: Storage, name: str, clock: Clock | None = None) -> Fence:
    """A spool's."""
    clock = clock or Clock()
    return Fence(
        storage,
        holder=name,
        machine=f"machine {name}",
        clock=clock,
        sleep=clock.sleep,
    )


def taken(storage: Storage, name: str, step: int | None = None) -> Fence:
    """One that has taken the run."""
    made = fence(storage, name)
    made.look()
    made.take(run_id="run", step=step)
    return made


def commit(made: Fence, step: int) -> None:
    """Publishes a commit."""
    made.publish(replace(made.hold.head, step=step, committed=1.0))


def test_a_run_that_nobody_holds(storage: Storage) -> None:
    """The first takes it as its attempt 1, and HEAD is as on a local disk."""
    made = fence(storage, "a")
    assert made.look() is None
    made.take(run_id="run", step=None)
    commit(made, 5)
    assert Head.read(storage) == Head("run", attempt=1, step=5, committed=1.0)
    assert fence(storage, "b").look() == made.hold


def test_the_loser_learns_of_it_and_changes_nothing(storage: Storage) -> None:
    """Whoever was taken over from cannot commit, check or release."""
    first = taken(storage, "a")
    commit(first, 5)
    second = taken(storage, "b", step=5)
    before = storage.read(HEAD)
    for use in (
        lambda: commit(first, 9),
        first.check,
        first.release,
    ):
        with pytest.raises(RunHeldError, match="machine b") as caught:
            use()
        assert caught.value.run_dir == storage.describe()
    assert storage.read(HEAD) == before
    second.check()
    commit(second, 7)
    assert second.hold.head.attempt == 2


def test_of_sixteen_one_takes_it(storage: Storage) -> None:
    """Whoever looked at the same HEAD, only one takes it."""
    taken(storage, "before")
    fences = [fence(storage, f"{number}") for number in range(16)]
    for one in fences:
        one.look()

    def take(one: Fence) -> bool:
        try:
            one.take(run_id="run", step=None)
        except RunHeldError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(take, fences))
    assert won.count(True) == 1
    winner = fences[won.index(True)]
    winner.check()
    commit(winner, 1)


def test_what_is_void(storage: Storage) -> None:
    """What an earlier attempt commits beyond a take-over is void."""
    first = taken(storage, "a")
    commit(first, 10)
    second = taken(storage, "b", step=10)
    assert not second.hold.is_void(10, attempt=1)
    assert second.hold.is_void(11, attempt=1)
    assert not second.hold.is_void(11, attempt=2)
    third = taken(storage, "c", step=8)  # 10 was damaged.
    assert third.hold.is_void(10, attempt=1)
    assert third.hold.is_void(9, attempt=2)
    assert not third.hold.is_void(8, attempt=1)
    assert not third.hold.is_void(9, attempt=3)
    assert third.hold.fences == ((1, None), (3, 8))
    fourth = taken(storage, "d", step=None)
    assert fourth.hold.is_void(0, attempt=3)


@given(st.lists(st.integers(0, 20) | st.none(), max_size=8))
def test_void_is_what_lies_beyond_any_take_over(
    steps: list[int | None],
) -> None:
    """However many there were, none of them is forgotten."""
    hold = Hold(Head("run", attempt=0))
    for step in steps:
        hold = hold.taken(holder="x", machine="", claimed=0.0, step=step)
    for attempt in range(len(steps) + 1):
        for step in range(21):
            expected = any(
                began is None or step > began for began in steps[attempt:]
            )
            assert expected == hold.is_void(step, attempt=attempt)
    assert Hold.from_bytes(hold.to_bytes()) == hold


@pytest.mark.parametrize("age_secs", [0.0, 12.0, 59.0, -3600.0])
def test_one_that_lives_is_not_taken_over(
    storage: Storage, age_secs: float
) -> None:
    """A heart that beats while we watch is somebody's."""
    taken(storage, "a")
    clock = Clock()

    def beat() -> None:
        signs = {"heartbeat": clock.now - age_secs}
        write_record(storage, "status.json", signs)

    beat()

    def sleep(secs: float) -> None:
        clock.sleep(secs)
        beat()

    made = Fence(
        storage, holder="b", machine="machine b", clock=clock, sleep=sleep
    )
    found = made.look()
    assert found is not None
    with pytest.raises(RunHeldError, match="machine a"):
        made.check_free(found)
    made.check_free(found, take_over=True)


def test_one_that_is_dead_is_taken_over(storage: Storage) -> None:
    """A heartbeat that seems fresh is watched; an old one is not."""
    taken(storage, "a")
    cases = [(5.0, True), (300.0, True), (-900.0, True), (700.0, False)]
    for age_secs, watched in cases:
        clock = Clock(2_000_000.0)
        signs = {"heartbeat": clock.now - age_secs}
        write_record(storage, "status.json", signs)
        made = fence(storage, "b", clock)
        found = made.look()
        assert found is not None
        made.check_free(found)
        assert watched == (clock.now > 2_000_000.0)


def test_one_that_was_given_back_is_free(storage: Storage) -> None:
    """Then, or if the same spool comes back, nobody is watched."""
    first = taken(storage, "a")
    write_record(storage, "status.json", {"heartbeat": 1000000.0})
    for name, expected in [("a", 0.0), ("b", 30.0)]:
        clock = Clock()
        made = fence(storage, name, clock)
        found = made.look()
        assert found is not None
        made.check_free(found)
        assert expected == clock.now - 1_000_000.0
    first.release()
    clock = Clock()
    made = fence(storage, "b", clock)
    found = made.look()
    assert found is not None
    made.check_free(found)
    assert clock.now == 1_000_000.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        encode(HEAD, {}),
        encode(HEAD, {"run_id": "r", "attempt": 1, "holder": 3}),
        encode(HEAD, {"run_id": "r", "attempt": 1, "fences": [[1]]}),
        encode(HEAD, {"run_id": "r", "attempt": 1, "fences": [[True, 1]]}),
        encode(HEAD, {"run_id": "r", "attempt": 1, "fences": [["1", 1]]}),
    ],
    ids=lambda content: content[:60].decode(),
)
def test_a_head_that_is_damaged(storage: Storage, content: bytes) -> None:
    """It is said, and the run can be taken all the same."""
    storage.replace(HEAD, content)
    made = fence(storage, "a")
    with pytest.raises(DamagedRecordError):
        made.look()
    hold = made.take(run_id="run", step=5, there=4, past_attempt=7)
    assert hold.head == Head("run", attempt=8, step=4, steps=(4,))
    assert storage.read(HEAD) == hold.to_bytes()


def test_what_is_only_here_is_not_named_there(storage: Storage) -> None:
    """
    Who takes the run with a step that was never shipped goes on from it; HEAD
    names what is there.
    """
    first = taken(storage, "a")
    commit(first, 5)
    second = taken(storage, "b", step=7)
    head = second.hold.head
    assert (head.step, head.steps, head.committed) == (5, (5,), 1.0)
    assert second.hold.fences[-1] == (2, 7)
    third = taken(storage, "c", step=3)
    head = third.hold.head
    assert (head.step, head.steps, head.committed) == (None, (), None)


def test_a_head_from_a_local_disk(storage: Storage) -> None:
    """A run directory that was copied there can be gone on with."""
    Head("run", attempt=3, step=7, committed=2.0).write(storage)
    made = fence(storage, "a")
    found = made.look()
    assert found is not None
    made.check_free(found)
    made.take(run_id="other", step=7)
    assert made.hold.head == Head(
        "run", attempt=4, step=7, committed=2.0, steps=(7,)
    )
