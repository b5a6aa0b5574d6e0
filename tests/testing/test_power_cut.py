"""The doubles that fail: what they forget, keep and refuse."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from colab_keras_bg.testing.power_cut import (
    EXTREMES,
    Aftermath,
    Call,
    FaultyFileSystem,
    PowerCut,
    PowerCutFileSystem,
    aftermaths,
)

ALL_LOST = Aftermath("lost", "lost")
ALL_KEPT = Aftermath("kept", "kept")
ONLY_NAMES = Aftermath("kept", "lost")


def contents(directory: Path) -> dict[str, bytes | None]:
    """All files with their contents, and folders with None."""
    return {
        path.relative_to(directory).as_posix(): (
            None if path.is_dir() else path.read_bytes()
        )
        for path in sorted(directory.rglob("*"))
    }


def write(
    files: PowerCutFileSystem, path: Path, *, synced: bytes, unsynced: bytes
) -> None:
    """Writes a new file, and syncs the beginning of its content."""
    handle = files.create(path)
    files.write(handle, synced)
    files.fsync(handle)
    files.write(handle, memoryview(unsynced))
    files.close(handle)


def states(files: PowerCutFileSystem, directory: Path) -> list[object]:
    """Many of the states that a cut may leave."""
    found = []
    for aftermath in aftermaths(seeds=60):
        files.cut(aftermath)
        found.append(contents(directory))
    return found


# What a power cut leaves.


def test_what_was_there_at_the_start_stays(tmp_path: Path) -> None:
    """Everything that nobody touched is there after any cut."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "y").write_bytes(b"")
    expected = contents(tmp_path)
    for found in states(PowerCutFileSystem(tmp_path), tmp_path):
        assert found == expected


def test_what_was_synced_stays(tmp_path: Path) -> None:
    """A file whose content and names were synced is there after any cut."""
    files = PowerCutFileSystem(tmp_path)
    files.mkdir(tmp_path / "a")
    files.fsync_directory(tmp_path)
    write(files, tmp_path / "a" / "x", synced=b"12", unsynced=b"")
    files.fsync_directory(tmp_path / "a")
    for found in states(files, tmp_path):
        assert found == {"a": None, "a/x": b"12"}


def test_unsynced_content_is_torn(tmp_path: Path) -> None:
    """
    Content that was not synced may be lost, cut off, or zeros; what was
    synced before it stays.
    """
    files = PowerCutFileSystem(tmp_path)
    write(files, tmp_path / "x", synced=b"12", unsynced=b"34")
    files.fsync_directory(tmp_path)
    found = {state["x"] for state in states(files, tmp_path)}
    assert found == {b"12", b"123", b"1234", b"12\0\0", b"123\0"}


def test_unsynced_names_come_or_do_not(tmp_path: Path) -> None:
    """
    Of names whose folder was not synced any may be there, whatever the order
    in which they were made.
    """
    files = PowerCutFileSystem(tmp_path)
    for name in "ab":
        write(files, tmp_path / name, synced=b"1", unsynced=b"")
    found = {tuple(state) for state in states(files, tmp_path)}
    assert found == {(), ("a",), ("b",), ("a", "b")}


def test_unsynced_removals_happen_or_do_not(tmp_path: Path) -> None:
    """A removed name may be back, and even without the other changes."""
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    files = PowerCutFileSystem(tmp_path)
    files.unlink(tmp_path / "a")
    files.unlink(tmp_path / "b")
    found = {tuple(state) for state in states(files, tmp_path)}
    assert found == {(), ("a",), ("b",), ("a", "b")}


def test_unsynced_folders_take_what_is_in_them(tmp_path: Path) -> None:
    """A file, synced in every way, is lost with a folder that was not."""
    files = PowerCutFileSystem(tmp_path)
    files.mkdir(tmp_path / "a")
    write(files, tmp_path / "a" / "x", synced=b"1", unsynced=b"")
    files.fsync_directory(tmp_path / "a")
    found = {tuple(state) for state in states(files, tmp_path)}
    assert found == {(), ("a", "a/x")}


def test_a_folder_removed_and_made_again_is_another(tmp_path: Path) -> None:
    """If the old folder's removal is lost, so is what lies in the new one."""
    (tmp_path / "a").mkdir()
    files = PowerCutFileSystem(tmp_path)
    files.rmdir(tmp_path / "a")
    files.mkdir(tmp_path / "a")
    write(files, tmp_path / "a" / "x", synced=b"1", unsynced=b"")
    files.fsync_directory(tmp_path / "a")
    found = {tuple(state) for state in states(files, tmp_path)}
    assert found == {(), ("a",), ("a", "a/x")}


def test_a_replaced_file_is_the_old_or_the_new(tmp_path: Path) -> None:
    """
    The target of an unsynced rename is what it was or what it became, and
    never missing; the source may be there or not.
    """
    (tmp_path / "x").write_bytes(b"old")
    files = PowerCutFileSystem(tmp_path)
    write(files, tmp_path / "t", synced=b"new", unsynced=b"")
    files.replace(tmp_path / "t", tmp_path / "x")
    found = {tuple(state.items()) for state in states(files, tmp_path)}
    assert found == {
        (("x", b"old"),),
        (("x", b"new"),),
        (("t", b"new"), ("x", b"old")),
        (("t", b"new"), ("x", b"new")),
    }


def test_two_names_of_one_file_share_its_content(tmp_path: Path) -> None:
    """A hard link leads to the same file after the cut."""
    files = PowerCutFileSystem(tmp_path)
    write(files, tmp_path / "a", synced=b"1", unsynced=b"2")
    files.link(tmp_path / "a", tmp_path / "b")
    files.cut(ALL_KEPT)
    assert contents(tmp_path) == {"a": b"12", "b": b"12"}
    assert os.path.samefile(tmp_path / "a", tmp_path / "b")
    for state in states(files, tmp_path):
        assert len(set(state.values())) <= 1


def test_the_extremes(tmp_path: Path) -> None:
    """Each of the extremes leaves what it says."""
    (tmp_path / "removed").write_bytes(b"1")
    (tmp_path / "x").write_bytes(b"old")
    files = PowerCutFileSystem(tmp_path)
    files.unlink(tmp_path / "removed")
    write(files, tmp_path / "t", synced=b"", unsynced=b"new")
    files.replace(tmp_path / "t", tmp_path / "x")
    found = {}
    for aftermath in EXTREMES:
        files.cut(aftermath)
        found[aftermath.names, aftermath.content] = contents(tmp_path)
    assert found == {
        ("lost", "lost"): {"removed": b"1", "x": b"old"},
        ("kept", "kept"): {"x": b"new"},
        ("kept", "lost"): {"x": b""},
        ("kept", "zeros"): {"x": b"\0\0\0"},
        ("added", "lost"): {"removed": b"1", "t": b"", "x": b""},
        ("removed", "lost"): {"x": b"old"},
    }


def test_a_seed_draws_the_same_state_again(tmp_path: Path) -> None:
    """What is drawn hangs on the seed alone, not on names or addresses."""

    def drawn(letter: str, seed: int) -> list[bytes | None]:
        directory = tmp_path / f"{letter}{seed}"
        directory.mkdir()
        files = PowerCutFileSystem(directory)
        for number in range(20):
            name = f"{letter * (1 + number * 7 % 5)}{number}"
            write(files, directory / name, synced=b"", unsynced=b"123456789")
        files.cut(Aftermath("drawn", "drawn", seed))
        return sorted(contents(directory).values())

    assert drawn("a", 1) == drawn("b", 1)
    assert drawn("a", 2) != drawn("a", 3)


# The fatal call.


@pytest.mark.parametrize("dies_at", range(5))
def test_calls_before_the_fatal_one_are_carried_out(
    dies_at: int, tmp_path: Path
) -> None:
    """
    All calls before the fatal one had their effect; it may have had its own;
    every later one raises, and changes nothing.
    """
    files = PowerCutFileSystem(tmp_path, dies_at=dies_at)
    for number in range(7):
        path = tmp_path / str(number)
        if number < dies_at:
            files.mkdir(path)
        else:
            with pytest.raises(PowerCut, match=f"call {number}: mkdir"):
                files.mkdir(path)
    assert [Call("mkdir", str(n)) for n in range(7)] == files.calls
    files.cut(ALL_KEPT)
    assert sorted(contents(tmp_path)) == [str(n) for n in range(dies_at + 1)]
    with pytest.raises(PowerCut):
        files.mkdir(tmp_path / "later")


@pytest.mark.parametrize("dies_at", [2, 4])
def test_a_fatal_sync_confirms_nothing(dies_at: int, tmp_path: Path) -> None:
    """What was being synced when the power went may be lost."""
    files = PowerCutFileSystem(tmp_path, dies_at=dies_at)

    def change() -> None:
        handle = files.create(tmp_path / "x")
        files.write(handle, b"1")
        files.fsync(handle)
        files.close(handle)
        files.fsync_directory(tmp_path)

    with pytest.raises(PowerCut):
        change()
    files.cut(ALL_LOST)
    assert contents(tmp_path) == {}
    files.cut(ONLY_NAMES)
    assert contents(tmp_path) == {"x": b"1" if dies_at > 2 else b""}


def test_no_exception_handler_survives(tmp_path: Path) -> None:
    """A power cut passes through `except Exception` and through `suppress`."""
    assert not issubclass(PowerCut, Exception)
    files = PowerCutFileSystem(tmp_path, dies_at=0)
    with pytest.raises(PowerCut), contextlib.suppress(Exception):
        files.mkdir(tmp_path / "a")


def test_the_errors_of_the_real_calls_come_through(tmp_path: Path) -> None:
    """Until the power goes, a call fails as it would on any disk."""
    files = PowerCutFileSystem(tmp_path)
    (tmp_path / "a").mkdir()
    files = PowerCutFileSystem(tmp_path)
    files.mkdir(tmp_path / "a")
    write(files, tmp_path / "a" / "x", synced=b"", unsynced=b"")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "a" / "x")
    with pytest.raises(FileExistsError):
        files.link(tmp_path / "a" / "x", tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        files.unlink(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        files.replace(tmp_path / "nothing", tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        files.fsync_directory(tmp_path / "nothing")
    with pytest.raises(NotADirectoryError):
        files.fsync_directory(tmp_path / "a" / "x")
    with pytest.raises(OSError, match="not empty"):
        files.rmdir(tmp_path / "a")
    files.fsync_directory(tmp_path.parent)
    assert contents(tmp_path) == {"a": None, "a/x": b""}


def test_another_process_goes_on(tmp_path: Path) -> None:
    """
    After `restart` the calls work again, and what the first process left
    unsynced still is; no descriptor of it stays open.
    """
    open_before = len(os.listdir("/proc/self/fd"))
    files = PowerCutFileSystem(tmp_path, dies_at=2)
    handle = files.create(tmp_path / "a")
    files.write(handle, b"1")
    with pytest.raises(PowerCut):
        files.write(handle, b"2")
    files.restart()
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert contents(tmp_path) == {"a": b"12"}
    files.fsync_directory(tmp_path)
    files.cut(ALL_LOST)
    assert contents(tmp_path) == {"a": b""}


# Ways to write a file that a power cut must show to be wrong.


def in_place(files: PowerCutFileSystem, path: Path) -> None:
    """Writes over the old content."""
    files.unlink(path)
    write(files, path, synced=b"new", unsynced=b"")
    files.fsync_directory(path.parent)


def content_not_synced(files: PowerCutFileSystem, path: Path) -> None:
    """Renames before the content is on the disk."""
    write(files, path.with_name("t"), synced=b"", unsynced=b"new")
    files.replace(path.with_name("t"), path)
    files.fsync_directory(path.parent)


def folder_not_synced(files: PowerCutFileSystem, path: Path) -> None:
    """Does not wait for the rename to be on the disk."""
    write(files, path.with_name("t"), synced=b"new", unsynced=b"")
    files.replace(path.with_name("t"), path)


def correct(files: PowerCutFileSystem, path: Path) -> None:
    """Content, rename, folder, each synced."""
    write(files, path.with_name("t"), synced=b"new", unsynced=b"")
    files.replace(path.with_name("t"), path)
    files.fsync_directory(path.parent)


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (in_place, False),
        (content_not_synced, False),
        (folder_not_synced, False),
        (correct, True),
    ],
)
def test_wrong_ways_to_write_are_found_out(
    way: Callable[[PowerCutFileSystem, Path], None],
    expected: bool,
    tmp_path: Path,
) -> None:
    """
    A way that can lose the old content and the new, or the new after it
    returned, is told from the one that cannot.
    """
    right = True
    for dies_at in (*range(8), None):
        directory = tmp_path / str(dies_at)
        directory.mkdir()
        (directory / "x").write_bytes(b"old")
        files = PowerCutFileSystem(directory, dies_at=dies_at)
        allowed = [b"new"]
        try:
            way(files, directory / "x")
        except PowerCut:
            allowed.append(b"old")
        for aftermath in aftermaths(seeds=5):
            files.cut(aftermath)
            right &= contents(directory).get("x") in allowed
    assert right == expected


# A disk that fails.


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_one_call_fails(error: int, tmp_path: Path) -> None:
    """The chosen call fails as asked; those before and after it do not."""
    files = FaultyFileSystem(fails_at=1, error=error)
    files.mkdir(tmp_path / "a")
    with pytest.raises(OSError, match="'b'") as caught:
        files.mkdir(tmp_path / "b")
    assert caught.value.errno == error
    files.mkdir(tmp_path / "c")
    assert contents(tmp_path) == {"a": None, "c": None}


def test_no_call_fails(tmp_path: Path) -> None:
    """Without a number it is an ordinary file system that counts."""
    files = FaultyFileSystem(fails_at=None)
    handle = files.create(tmp_path / "x")
    files.write(handle, b"1")
    files.fsync(handle)
    files.close(handle)
    files.link(tmp_path / "x", tmp_path / "y")
    files.replace(tmp_path / "y", tmp_path / "z")
    files.unlink(tmp_path / "x")
    files.mkdir(tmp_path / "d")
    files.rmdir(tmp_path / "d")
    files.fsync_directory(tmp_path)
    assert contents(tmp_path) == {"z": b"1"}
    assert [call.operation for call in files.calls] == [
        "create",
        "write",
        "fsync",
        "close",
        "link",
        "replace",
        "unlink",
        "mkdir",
        "rmdir",
        "fsync_directory",
    ]


def test_a_full_disk_stays_full(tmp_path: Path) -> None:
    """A lasting error meets every later call but those that free space."""
    files = FaultyFileSystem(fails_at=1, lasting=True)
    handle = files.create(tmp_path / "x")
    with pytest.raises(OSError, match="No space left"):
        files.write(handle, b"1234")
    with pytest.raises(OSError, match="No space left"):
        files.write(handle, b"5678")
    with pytest.raises(OSError, match="No space left"):
        files.create(tmp_path / "y")
    files.close(handle)
    assert contents(tmp_path) == {"x": b"1256"}
    files.unlink(tmp_path / "x")
    assert contents(tmp_path) == {}


def test_a_failed_close_has_closed(tmp_path: Path) -> None:
    """As in the kernel, the descriptor is gone whatever `close` answers."""
    before = len(os.listdir("/proc/self/fd"))
    files = FaultyFileSystem(fails_at=1, error=errno.EIO)
    handle = files.create(tmp_path / "x")
    with pytest.raises(OSError, match="Input/output error"):
        files.close(handle)
    assert len(os.listdir("/proc/self/fd")) == before
