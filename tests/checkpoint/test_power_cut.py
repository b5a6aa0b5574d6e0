"""The power goes at each call of whatever changes checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colab_keras_bg.checkpoint.keeping import KeepLast
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import StepExistsError
from colab_keras_bg.testing.power_cut import (
    Aftermath,
    PowerCut,
    PowerCutFileSystem,
    aftermaths,
)

from .saves import assert_is_whole, debris_in, files_of, save, store_in

CALLS = {
    "first save": 31,
    "save": 28,
    "delete": 10,
    "retain": 16,
    "mend": 39,
}
ALL_LOST = Aftermath("lost", "lost")
AFTERMATHS = aftermaths(seeds=4)

Change = Callable[[CheckpointStore], object]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Holds the checkpoints of steps 10 to 40, synced long ago."""
    store = store_in(tmp_path / "run")
    for step in (10, 20, 30, 40):
        save(store, step)
    return tmp_path / "run"


def damage(run: Path, step: int) -> None:
    """Cuts a byte off its tensors."""
    path = files_of(run, step)["tensors"]
    path.write_bytes(path.read_bytes()[:-1])


def cut_while(
    change: Change, run: Path, *, dies_at: int | None
) -> PowerCutFileSystem:
    """Makes a change until the power goes."""
    files = PowerCutFileSystem(run.parent, dies_at=dies_at)
    with contextlib.suppress(PowerCut):
        change(store_in(run, files))
    return files


def states_after(
    files: PowerCutFileSystem, run: Path
) -> Iterator[CheckpointStore]:
    """Each state that the cut may leave, as a new process finds it."""
    for aftermath in AFTERMATHS:
        files.cut(aftermath)
        yield store_in(run)


def assert_each_step_is_whole(store: CheckpointStore) -> None:
    """Fails unless whatever shows is what was saved."""
    for step in store.steps():
        assert_is_whole(store.load(step), step)


def assert_goes_on(store: CheckpointStore, run: Path, step: int) -> None:
    """Sweeps, saves the step (again), and finds nothing else there."""
    store.sweep()
    assert debris_in(run) == []
    with contextlib.suppress(StepExistsError):
        save(store, step)
    assert_is_whole(store.load(step), step)
    assert debris_in(run) == []


@pytest.mark.parametrize("dies_at", range(CALLS["first save"]))
def test_power_cut_in_the_first_save(dies_at: int, tmp_path: Path) -> None:
    """
    Whichever call is the last, the first checkpoint of a run is there whole,
    or there is none; and it can be saved again.
    """
    run = tmp_path / "run"
    files = cut_while(lambda store: save(store, 10), run, dies_at=dies_at)
    for store in states_after(files, run):
        found = store.latest()
        if found is not None:
            assert_is_whole(found, 10)
        assert_goes_on(store, run, 10)


@pytest.mark.parametrize("dies_at", range(CALLS["save"]))
def test_power_cut_while_saving(dies_at: int, run: Path) -> None:
    """
    Whichever call is the last, each step that shows is whole, the previous
    one still shows, and the step can be saved again.
    """
    files = cut_while(lambda store: save(store, 50), run, dies_at=dies_at)
    for store in states_after(files, run):
        found = store.latest()
        assert found is not None
        assert found.step in (40, 50)
        assert found.skipped == ()
        assert_each_step_is_whole(store)
        assert {10, 20, 30, 40} <= set(store.steps())
        assert_goes_on(store, run, 50)


@pytest.mark.parametrize("dies_at", range(CALLS["delete"]))
def test_power_cut_while_deleting(dies_at: int, run: Path) -> None:
    """
    Whichever call is the last, a step that is being deleted is whole or does
    not show, the others stay, and it can be deleted then.
    """
    files = cut_while(lambda store: store.delete(20), run, dies_at=dies_at)
    for store in states_after(files, run):
        assert_each_step_is_whole(store)
        assert [s for s in store.steps() if s != 20] == [10, 30, 40]
        store.sweep()
        assert debris_in(run) == []
        assert_each_step_is_whole(store)
        if 20 in store.steps():
            store.delete(20)
        assert store.steps() == [10, 30, 40]
        assert debris_in(run) == []


@pytest.mark.parametrize("dies_at", range(CALLS["retain"]))
def test_power_cut_while_retaining(dies_at: int, run: Path) -> None:
    """
    Whichever call is the last, nothing of a step that is kept is lost, and
    what shows of the others is whole.
    """
    keep = KeepLast(2)
    files = cut_while(lambda store: store.retain(keep), run, dies_at=dies_at)
    for store in states_after(files, run):
        assert_each_step_is_whole(store)
        assert {30, 40} <= set(store.steps())
        store.sweep()
        store.retain(keep)
        assert store.steps() == [30, 40]
        assert_each_step_is_whole(store)
        assert debris_in(run) == []


@pytest.mark.parametrize("dies_at", range(CALLS["mend"]))
def test_power_cut_while_replacing_a_damaged_step(
    dies_at: int, run: Path
) -> None:
    """
    Whichever call is the last, a damaged step that is saved again is whole
    then, or still known as damaged; the previous one is what it was.
    """
    damage(run, 40)
    files = cut_while(lambda store: save(store, 40), run, dies_at=dies_at)
    for store in states_after(files, run):
        found = store.latest()
        assert found is not None
        assert found.step in (30, 40)
        assert_is_whole(found, found.step)
        for step in (10, 20, 30):
            assert_is_whole(store.load(step), step)
        assert_goes_on(store, run, 40)


@pytest.mark.parametrize("aftermath", AFTERMATHS, ids=str)
def test_power_cut_after_a_save(aftermath: Aftermath, tmp_path: Path) -> None:
    """
    Once `save` has returned, no power cut undoes it: not in a directory that
    is as new as the checkpoint, and not of its predecessor.
    """
    run = tmp_path / "run"

    def two_saves(store: CheckpointStore) -> None:
        save(store, 10)
        save(store, 20)

    files = cut_while(two_saves, run, dies_at=None)
    files.cut(aftermath)
    store = store_in(run)
    assert store.steps() == [10, 20]
    assert_each_step_is_whole(store)


@pytest.mark.parametrize("aftermath", AFTERMATHS, ids=str)
def test_power_cut_after_a_retain(aftermath: Aftermath, run: Path) -> None:
    """
    Once `retain` has returned, what it kept is there and whole whatever
    happens, and nothing it deleted is back.
    """
    files = cut_while(
        lambda store: store.retain(KeepLast(2)), run, dies_at=None
    )
    files.cut(aftermath)
    store = store_in(run)
    assert store.steps() == [30, 40]
    assert_each_step_is_whole(store)


@pytest.mark.parametrize("dies_at", range(CALLS["first save"]))
def test_kill_and_later_a_power_cut(dies_at: int, tmp_path: Path) -> None:
    """
    What a killed process left unsynced does not betray the next one: a step
    that it found or saved is there after a power cut.
    """
    run = tmp_path / "run"
    files = cut_while(lambda store: save(store, 10), run, dies_at=dies_at)
    files.restart()
    store = store_in(run, files)
    store.sweep()
    if store.latest() is None:
        save(store, 10)
    save(store, 20)
    files.cut(ALL_LOST)
    store = store_in(run)
    assert store.steps() == [10, 20]
    assert_each_step_is_whole(store)


@pytest.mark.parametrize("dies_at", range(CALLS["first save"]))
def test_kill_and_a_power_cut_at_once(dies_at: int, tmp_path: Path) -> None:
    """
    What the next process finds committed after a kill, and has swept, a power
    cut does not take back.
    """
    run = tmp_path / "run"
    files = cut_while(lambda store: save(store, 10), run, dies_at=dies_at)
    files.restart()
    store = store_in(run, files)
    store.sweep()
    found = store.steps()
    files.cut(ALL_LOST)
    store = store_in(run)
    assert found == store.steps()
    assert_each_step_is_whole(store)


def test_every_call_is_a_crash_point(run: Path, tmp_path: Path) -> None:
    """The crash points above are all the calls there are."""
    kept = KeepLast(2)
    changes: dict[str, Change] = {
        "first save": lambda store: save(store, 10),
        "save": lambda store: save(store, 50),
        "delete": lambda store: store.delete(20),
        "retain": lambda store: store.retain(kept),
        "mend": lambda store: save(store, 40),
    }
    found = {}
    for name, change in changes.items():
        where = tmp_path / "first" if name == "first save" else run
        if name == "mend":
            damage(run, 40)
        found[name] = len(cut_while(change, where, dies_at=None).calls)
        if name == "retain":  # What the mending starts from.
            assert store_in(run).steps() == [40, 50]
    assert found == CALLS
