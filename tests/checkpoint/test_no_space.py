"""The disk is full, or fails, at each call of whatever changes checkpoints."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from colab_keras_bg.checkpoint.keeping import Commit, KeepLast
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import NoSpaceError, StorageError
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.testing.power_cut import FaultyFileSystem

from .saves import (
    NO_SPACE,
    QuickFileSystem,
    arrays_of,
    assert_is_whole,
    debris_in,
    save,
    state_of,
    store_in,
    tree_of,
)

CALLS_OF_FIRST_SAVE = 31
CALLS_OF_SAVE = 28
CALLS_OF_RETAIN = 16
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Holds the checkpoints of steps 1 and 2."""
    store = store_in(tmp_path)
    save(store, 1)
    save(store, 2)
    return tmp_path


def failing(
    fails_at: int | None, error: int = errno.EIO, *, lasting: bool = False
) -> FaultyFileSystem:
    """A disk of which a call fails."""
    return FaultyFileSystem(
        fails_at=fails_at,
        error=error,
        lasting=lasting,
        files=QuickFileSystem(),
    )


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("fails_at", range(CALLS_OF_SAVE))
def test_a_save_that_fails(
    fails_at: int, error: int, lasting: bool, run: Path
) -> None:
    """
    Whichever call fails, and whether the next ones do: the error is raised,
    the step does not exist, the previous ones are as they were, and once there
    is space again the step is saved.
    """
    before = tree_of(run)
    store = store_in(run, failing(fails_at, error, lasting=lasting))
    with pytest.raises(StorageError) as caught:
        save(store, 3)
    assert isinstance(caught.value, NoSpaceError) == (error in NO_SPACE)
    after = store_in(run)
    assert after.steps() == [1, 2]
    assert before.items() <= tree_of(run).items()
    assert_is_whole(after.latest(), 2)
    after.sweep()
    assert tree_of(run) == before
    for again in (after, store_in(run)):
        if 3 not in again.steps():
            save(again, 3)
        assert_is_whole(again.latest(), 3)
    assert debris_in(run) == []


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("fails_at", range(CALLS_OF_SAVE))
def test_a_full_disk_is_left_clean(
    fails_at: int, error: int, run: Path
) -> None:
    """
    A save that fails clears up after itself at once, as far as the disk lets
    it: a full one does, so that training does not fill it further.
    """
    before = tree_of(run)
    store = store_in(run, failing(fails_at, error))
    with pytest.raises(StorageError):
        save(store, 3)
    assert tree_of(run) == before
    save(store, 3)
    assert_is_whole(store.latest(), 3)


@pytest.mark.parametrize("fails_at", range(CALLS_OF_FIRST_SAVE))
def test_a_first_save_that_fails(fails_at: int, tmp_path: Path) -> None:
    """
    Whichever call fails in the first save of all, no checkpoint and no folder
    for any is left, and the next save works.
    """
    store = store_in(tmp_path / "run", failing(fails_at))
    with pytest.raises(StorageError):
        save(store, 1)
    assert tree_of(tmp_path) in ({}, {"run": "folder"})
    save(store, 1)
    assert_is_whole(store.latest(), 1)


@pytest.mark.parametrize("fails_at", range(CALLS_OF_RETAIN))
def test_a_retain_that_fails(fails_at: int, run: Path) -> None:
    """
    Whichever call fails, what is kept is whole, what still shows too, and
    what is left over goes next time.
    """
    for step in (3, 4):
        save(store_in(run), step)
    files = failing(fails_at)
    try:
        store_in(run, files).retain(KeepLast(2))
    except StorageError:
        pass
    else:  # An empty folder may stay.
        assert files.calls[fails_at].operation == "rmdir"
    store = store_in(run)
    assert {3, 4} <= set(store.steps())
    for step in store.steps():
        assert_is_whole(store.load(step), step)
    store.sweep()
    store.retain(KeepLast(2))
    assert store.steps() == [3, 4]
    assert debris_in(run) == []


def test_every_call_is_a_point_of_failure(run: Path) -> None:
    """The points of failure above are all the calls there are."""
    first = failing(None)
    save(store_in(run / "new", first), 1)
    assert len(first.calls) == CALLS_OF_FIRST_SAVE
    saving = failing(None)
    save(store_in(run, saving), 3)
    save(store_in(run), 4)
    retaining = failing(None)
    store_in(run, retaining).retain(KeepLast(2))
    assert len(saving.calls) == CALLS_OF_SAVE
    assert len(retaining.calls) == CALLS_OF_RETAIN


class Small(LocalStorage):
    """A disk on which there is so much space for checkpoints."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        super().__init__(path, filesystem=QuickFileSystem())
        self._size_bytes = size_bytes

    def free_bytes(self) -> int:
        used = sum(info.size_bytes for info in self.list("checkpoints/"))
        return self._size_bytes + (4 << 20) - used


@pytest.mark.parametrize(
    ("room_for", "left"),
    [(9, [1, 2, 3, 4, 5]), (4.5, [3, 4, 5]), (2.5, None)],
)
def test_room_is_made_as_the_policy_allows(
    room_for: float, left: list[int] | None, tmp_path: Path
) -> None:
    """
    If there is too little space, what the policy would give up once the new
    one is there goes first, but never the last two that verify.
    """
    policy = KeepLast(3)
    for step in (1, 2, 3, 4):
        save(CheckpointStore(Small(tmp_path, 10**9), refers=False), step)
    size = sum(
        p.stat().st_size for p in (tmp_path / "checkpoints").rglob("*.*")
    )
    store = CheckpointStore(
        Small(tmp_path, int(room_for * size / 4)), refers=False
    )
    asked = []

    def make_room() -> None:
        asked.append(store.superfluous(policy, coming=Commit(5)))
        for step in asked[-1]:
            assert store.delete(step)

    tensors = {k: LazyTensor.of(v) for k, v in arrays_of(5).items()}
    given = {"attempt": 1, "tensors": tensors, "state": state_of(5)}
    if left is None:
        with pytest.raises(NoSpaceError):
            store.save(5, **given, make_room=make_room)
        assert store.steps() == [3, 4]
    else:
        store.save(5, **given, make_room=make_room)
        assert store.steps() == left
    assert len(asked) == (room_for < 9)
    for step in store.steps():
        store.load(step)
