"""A run comes back from the remote, whole or with the cause why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint.saves import (
    QuickFileSystem,
    arrays_of,
    assert_is_whole,
    state_of,
)

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    NoUsableCheckpointError,
    StorageUnavailableError,
)
from colab_keras_bg.sidecar import fetching
from colab_keras_bg.sidecar.fetching import Fetched, Fetcher
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage import LocalStorage, MemoryStorage
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.testing.faulty_storage import FaultyStorage


@pytest.fixture
def remote() -> MemoryStorage:
    """Three steps, of which two refer to the first."""
    storage = MemoryStorage()
    store = CheckpointStore(storage)
    for step in (1, 2, 3):
        put(store, step)
    return storage


@pytest.fixture
def spool(tmp_path: Path) -> LocalStorage:
    """An empty spool."""
    return LocalStorage(tmp_path / "spool", filesystem=QuickFileSystem())


def put(store: CheckpointStore, step: int, attempt: int = 1) -> None:
    """Saves a step."""
    tensors = {k: LazyTensor.of(v) for k, v in arrays_of(step).items()}
    store.save(step, attempt=attempt, tensors=tensors, state=state_of(step))


def newest(spool: LocalStorage) -> int | None:
    """The newest step in the spool, which has to be whole."""
    found = CheckpointStore(spool).latest()
    if found is None:
        return None
    assert_is_whole(found, found.step)
    return found.step


def test_the_newest_is_fetched(
    remote: MemoryStorage, spool: LocalStorage
) -> None:
    """With what it refers to, and nothing else."""
    assert Fetcher(remote, spool).newest(None) == Fetched(3)
    assert newest(spool) == 3
    assert CheckpointStore(spool).steps() == [3]
    names = {info.name for info in spool.list()}
    assert len(names) == 4
    assert {n for n in names if "step-000000001/" in n} == {
        f"checkpoints/step-000000001/{file}"
        for origin, file in CheckpointStore(remote).manifest(3).origins
    }


def test_what_is_there_is_not_fetched_again(
    remote: MemoryStorage, spool: LocalStorage
) -> None:
    """A spool that has it all reads manifests only."""
    Fetcher(remote, spool).newest(None)
    counted = FaultyStorage(remote)
    assert Fetcher(counted, spool).newest(None) == Fetched(3)
    assert not [call for call in counted.calls if "read_range" in call]
    put(CheckpointStore(remote), 4)
    assert Fetcher(counted, spool).newest(None) == Fetched(4)
    assert newest(spool) == 4


def test_nothing_was_ever_committed(spool: LocalStorage) -> None:
    """Then there is nothing to fetch."""
    assert Fetcher(MemoryStorage(), spool).newest(None) == Fetched(None)
    hold = Hold(Head("run", attempt=1))
    assert Fetcher(MemoryStorage(), spool).newest(hold) == Fetched(None)


@pytest.mark.parametrize("kind", ["tensors", "state", "manifest"])
@pytest.mark.parametrize("damage", ["flipped", "shortened", "missing"])
def test_damage_there_is_passed_over(
    remote: MemoryStorage, spool: LocalStorage, kind: str, damage: str
) -> None:
    """The newest that is whole is taken, and the cause is told."""
    (name,) = [
        info.name for info in remote.list(f"checkpoints/step-000000003/{kind}")
    ]
    spoil(remote, name, damage)
    found = Fetcher(remote, spool).newest(Hold(Head("run", attempt=1, step=3)))
    assert found.step == 2
    (skipped,) = found.skipped
    assert skipped.step == 3
    assert name.rpartition("/")[2] in skipped.reason
    assert newest(spool) == 2
    assert not [i.name for i in spool.list() if i.name.endswith(name)]


def spoil(storage: MemoryStorage, name: str, damage: str) -> None:
    """Damages an object."""
    content = storage.read(name)
    storage.delete(name)
    if damage != "missing":
        flipped = content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]
        storage.create(name, [flipped if damage == "flipped" else content[:-1]])


@pytest.mark.parametrize("damage", ["flipped", "shortened", "missing"])
def test_damage_to_what_is_referred_to(
    remote: MemoryStorage, spool: LocalStorage, damage: str
) -> None:
    """If all that is there needs it, that is an error, not a beginning."""
    ((_, file),) = CheckpointStore(remote).manifest(3).origins
    name = f"checkpoints/step-000000001/{file}"
    content = bytearray(remote.read(name))
    place = content.find(arrays_of(1)["frozen/kernel"].tobytes()) + 400
    content[place] ^= 1
    remote.delete(name)
    if damage != "missing":
        kept = content if damage == "flipped" else content[: place + 4]
        remote.create(name, [bytes(kept)])
    with pytest.raises(NoUsableCheckpointError) as caught:
        Fetcher(remote, spool).newest(None)
    assert [step for step, _ in caught.value.skipped] == [3, 2, 1]
    assert newest(spool) is None
    assert not list(spool.list("checkpoints/step-000000003/"))


def test_what_is_void_is_not_fetched(
    remote: MemoryStorage, spool: LocalStorage
) -> None:
    """What an attempt has committed after it had lost the run."""
    hold = Hold(Head("run", attempt=2, step=2), fences=((2, 2),))
    assert Fetcher(remote, spool).newest(hold) == Fetched(2)
    assert newest(spool) == 2


def test_all_that_is_there_is_void(
    remote: MemoryStorage, spool: LocalStorage
) -> None:
    """
    The step that the last take-over went on from is gone: that is no reason
    to begin from nothing.
    """
    CheckpointStore(remote).delete(1)
    hold = Hold(Head("run", attempt=2, step=1), fences=((2, 1),))
    with pytest.raises(NoUsableCheckpointError, match="step 1") as caught:
        Fetcher(remote, spool).newest(hold)
    assert [one.step for one in caught.value.skipped] == [1]
    nothing = Hold(Head("run", attempt=2), fences=((2, None),))
    assert Fetcher(remote, spool).newest(nothing) == Fetched(None)


@pytest.mark.parametrize("dies_at", range(30))
def test_the_network_is_gone(
    remote: MemoryStorage,
    spool: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
    dies_at: int,
) -> None:
    """
    At whichever call: it is said, it is never taken for "there is nothing",
    and the next try goes on where this one was.
    """
    monkeypatch.setattr(fetching, "_RANGE_BYTES", 512)
    faulty = FaultyStorage(
        remote,
        fails=lambda number, call: "before" if number >= dies_at else None,
    )
    fetcher = Fetcher(faulty, spool, connections=2)
    try:
        fetcher.newest(None)
    except StorageUnavailableError:
        assert newest(spool) is None
    else:
        assert len(faulty.calls) <= dies_at
    before = len(faulty.calls)
    faulty.fails = lambda number, call: None
    assert fetcher.newest(None) == Fetched(3)
    assert newest(spool) == 3
    if dies_at > 25:
        assert len(faulty.calls) - before < before


def test_progress_is_told(remote: MemoryStorage, spool: LocalStorage) -> None:
    """How far it has come, never beyond the whole."""
    told: list[tuple[str, int, int]] = []
    Fetcher(
        remote,
        spool,
        watch=lambda what, done, total: told.append((what, done, total)),
    ).newest(None)
    assert {what for what, _, _ in told} == {
        "fetching the checkpoint of step 3"
    }
    assert told[-1][1] == told[-1][2] > 0
    assert all(done <= total for _, done, total in told)


def test_a_damaged_copy_in_the_spool_is_replaced(
    remote: MemoryStorage, spool: LocalStorage
) -> None:
    """What this machine's disk has lost comes back."""
    Fetcher(remote, spool).newest(None)
    for info in list(spool.list("checkpoints/step-000000003/")):
        path = spool.directory / info.name
        content = path.read_bytes()
        path.write_bytes(content[:-2] + b"?" + content[-1:])
        Fetcher(remote, spool).newest(None)
        assert newest(spool) == 3


def test_records(remote: MemoryStorage, spool: LocalStorage) -> None:
    """Small files come as they are, and only if they differ."""
    remote.create("run.json", [b"{}\n"])
    remote.create("attempts/0001/attempt.json", [b"1\n"])
    remote.create("attempts/0002/attempt.json", [b"2\n"])
    fetcher = Fetcher(remote, spool)
    assert not fetcher.record("DONE")
    assert not spool.exists("DONE")
    for _ in range(2):
        assert fetcher.record("run.json")
    assert sorted(fetcher.records("attempts/")) == [
        "attempts/0001/attempt.json",
        "attempts/0002/attempt.json",
    ]
    assert spool.read("attempts/0002/attempt.json") == b"2\n"
