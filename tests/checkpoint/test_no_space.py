"""The disk is full, or fails, at each call of whatever changes checkpoints."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from colab_keras_bg.checkpoint.keeping import KeepLast
from colab_keras_bg.errors import NoSpaceError, StorageError
from colab_keras_bg.testing.power_cut import FaultyFileSystem

from .saves import (
    NO_SPACE,
    QuickFileSystem,
    assert_is_whole,
    debris_in,
    save,
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
