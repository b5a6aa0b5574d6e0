"""What only a directory does: debris, strangers, links, failing disks."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from colab_keras_bg.errors import (
    NoSpaceError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from colab_keras_bg.storage import LocalStorage
from colab_keras_bg.testing.power_cut import (
    Aftermath,
    FaultyFileSystem,
    PowerCut,
    PowerCutFileSystem,
    aftermaths,
)

CALLS_OF_CREATE = 12
CALLS_OF_REPLACE = 7
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
READING = ("read", "map", "info")


def below(directory: Path) -> list[str]:
    """All paths below a directory."""
    return sorted(
        path.relative_to(directory).as_posix() for path in directory.rglob("*")
    )


def names_in(storage: LocalStorage, prefix: str = "") -> list[str]:
    """The names of all objects, sorted."""
    return sorted(info.name for info in storage.list(prefix))


def test_a_directory_is_made_only_when_needed(tmp_path: Path) -> None:
    """Asking changes nothing; writing makes what is missing, and no more."""
    storage = LocalStorage(tmp_path / "a" / "b")
    assert names_in(storage) == []
    assert not storage.exists("x")
    assert storage.sweep("c") == ()
    assert below(tmp_path) == []
    storage.create("c/x", [b"1"])
    assert below(tmp_path) == ["a", "a/b", "a/b/c", "a/b/c/x"]


def test_empty_folders_go_with_their_last_object(tmp_path: Path) -> None:
    """`delete` leaves no empty folders, but never removes the directory."""
    storage = LocalStorage(tmp_path / "s")
    storage.create("a/b/c", [b"1"])
    storage.create("a/d", [b"1"])
    storage.delete("a/b/c")
    assert below(tmp_path) == ["s", "s/a", "s/a/d"]
    storage.delete("a/d")
    assert below(tmp_path) == ["s"]


# What lies there besides.


def test_strangers_do_not_show(tmp_path: Path) -> None:
    """
    Files that cannot be objects are passed over: hidden ones, notebooks with
    blanks in their names, links, pipes; and no listing fails for them.
    """
    storage = LocalStorage(tmp_path)
    storage.create("a/x", [b"1"])
    (tmp_path / "Untitled Folder").mkdir()
    (tmp_path / "Untitled Folder" / "x").write_bytes(b"1")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "x").write_bytes(b"1")
    (tmp_path / "a" / "my notes (1).txt").write_bytes(b"1")
    (tmp_path / "a" / ".hidden").write_bytes(b"1")
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "x")
    (tmp_path / "a" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_bytes(b"1")
    before = below(tmp_path)
    assert names_in(storage) == ["a/x"]
    assert names_in(storage, "a/") == ["a/x"]
    assert storage.sweep() == ()
    assert before == below(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
@pytest.mark.parametrize("method", [*READING, "delete"])
def test_only_a_file_is_an_object(
    tmp_path: Path, kind: str, method: str
) -> None:
    """
    In an object's place a folder, a link or a pipe is no object: it is not
    followed, not waited for, not removed, and never replaced by `create`.
    """
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    path = tmp_path / "s" / "x"
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if kind == "link" else tmp_path / "nowhere")
    storage = LocalStorage(path.parent)
    before = os.lstat(path)
    with pytest.raises(ObjectNotFoundError):
        getattr(storage, method)("x")
    assert not storage.exists("x")
    with pytest.raises(ObjectExistsError):
        storage.create("x", [b"1"])
    assert stat.S_IFMT(before.st_mode) == stat.S_IFMT(os.lstat(path).st_mode)
    assert outside.read_bytes() == b"secret"


def test_replacing_a_link_replaces_the_link(tmp_path: Path) -> None:
    """What a link in an object's place leads to is left alone."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "HEAD").symlink_to(outside)
    storage = LocalStorage(tmp_path / "s")
    storage.replace("HEAD", b"1")
    assert storage.read("HEAD") == b"1"
    assert outside.read_bytes() == b"secret"


# What cannot be read is not empty.


def test_a_file_in_the_directorys_place(tmp_path: Path) -> None:
    """A directory that is a file cannot be listed: it is not empty."""
    (tmp_path / "s").write_bytes(b"")
    storage = LocalStorage(tmp_path / "s")
    with pytest.raises(StorageUnavailableError, match="cannot list"):
        names_in(storage)
    with pytest.raises(StorageUnavailableError):
        names_in(storage, "a/b")
    with pytest.raises(StorageError):
        storage.create("x", [b"1"])
    assert (tmp_path / "s").is_file()


def test_a_file_in_a_folders_place(tmp_path: Path) -> None:
    """A folder that is a file cannot be listed either."""
    storage = LocalStorage(tmp_path)
    storage.create("checkpoints", [b""])
    with pytest.raises(StorageUnavailableError):
        names_in(storage, "checkpoints/")
    with pytest.raises(StorageError):
        storage.create("checkpoints/x", [b"1"])
    assert below(tmp_path) == ["checkpoints"]


@pytest.mark.parametrize("target", ["nowhere", "s"])
def test_a_link_that_leads_nowhere(tmp_path: Path, target: str) -> None:
    """
    A directory that is a link to a disk that is not mounted, or to itself,
    cannot be listed; it is not empty.
    """
    (tmp_path / "s").symlink_to(tmp_path / target)
    with pytest.raises(StorageUnavailableError):
        names_in(LocalStorage(tmp_path / "s"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / target)
    with pytest.raises(StorageUnavailableError):
        names_in(LocalStorage(tmp_path / "run"), "checkpoints/")


def test_a_link_that_leads_to_a_directory(tmp_path: Path) -> None:
    """The directory, or a folder of it, may be a link to a larger disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "s").symlink_to(tmp_path / "disk")
    storage = LocalStorage(tmp_path / "s")
    storage.create("checkpoints/x", [b"1"])
    assert names_in(storage, "checkpoints/") == ["checkpoints/x"]
    assert storage.read("checkpoints/x") == b"1"


@pytest.mark.parametrize("failing", ["scandir", "lstat", "open"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENOTCONN])
def test_a_directory_that_cannot_be_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    code: int,
) -> None:
    """
    No permission, a broken disk, a dead mount: each is "cannot be read" from
    every method, and never "nothing there".
    """
    storage = LocalStorage(tmp_path)
    storage.create("a/x", [b"1"])

    def fails(path: object, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), path)

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, fails)
        failed = {
            "scandir": [lambda: names_in(storage)],
            "lstat": [
                lambda: names_in(storage),
                lambda: storage.info("a/x"),
                lambda: storage.exists("a/x"),
                lambda: storage.delete("a/x"),
            ],
            "open": [lambda: storage.read("a/x"), lambda: storage.map("a/x")],
        }[failing]
        for use in failed:
            with pytest.raises(StorageUnavailableError) as caught:
                use()
            assert caught.value.errno == code
            assert os.strerror(code) in str(caught.value)
    assert storage.read("a/x") == b"1"


def test_a_file_that_goes_while_we_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes between the listing and a look at it is not there."""
    storage = LocalStorage(tmp_path)
    storage.create("x", [b"1"])
    storage.create("y", [b"1"])
    lstat = os.lstat

    def late(path: Path) -> os.stat_result:
        (tmp_path / "y").unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", late)
    assert names_in(storage) == ["x"]
    monkeypatch.undo()
    storage.create("y", [b"1"])
    unlink = os.unlink

    def twice(path: Path) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", twice)
    with pytest.raises(ObjectNotFoundError):
        storage.delete("y")


def test_folders_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    """A storage does not grow with the number of folders it ever had."""
    storage = LocalStorage(tmp_path)
    for number in range(20):
        storage.create(f"a/{number}/x", [b"1"])
        storage.delete(f"a/{number}/x")
    assert storage._anchored == {tmp_path}


# What writers that died have left.


def test_temporary_files_never_show(tmp_path: Path) -> None:
    """
    While an object is being written, and if its writer dies then, only a
    hidden file is there; `sweep` removes it, and nothing else.
    """
    LocalStorage(tmp_path / "s").create("a/whole", [b"1"])
    # The last call is the close, so that nothing of it is cleared up.
    files = PowerCutFileSystem(tmp_path, dies_at=4)
    storage = LocalStorage(tmp_path / "s", filesystem=files)

    def chunks() -> object:
        yield b"12"
        assert names_in(storage) == ["a/whole"]
        raise PowerCut

    with pytest.raises(PowerCut):
        storage.create("a/new", chunks())
    (found,) = (tmp_path / "s" / "a").glob(".new.*.tmp")
    after = LocalStorage(tmp_path / "s")
    assert names_in(after) == ["a/whole"]
    assert after.sweep() == (f"a/{found.name}",)
    assert below(tmp_path) == ["s", "s/a", "s/a/whole"]
    assert after.sweep() == ()


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path) -> None:
    """Who interrupts a writer from the keyboard finds nothing of it."""

    def chunks() -> object:
        yield b"12"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalStorage(tmp_path).create("a/b/x", chunks())
    assert below(tmp_path) == []


def test_sweep_removes_only_what_is_ours(tmp_path: Path) -> None:
    """
    Without a prefix, somebody else's empty folders and temporary files stay;
    with one, what lies outside of it stays.
    """
    storage = LocalStorage(tmp_path)
    ours = ["a/.x.0123456789ab.tmp", "b/.y.0123456789ab.tmp"]
    theirs = ["a/x.tmp", "a/.x.tmp", "a/.x.part", "b/.git/.x.0123456789ab.tmp"]
    for name in ours + theirs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    for name in ("empty", "a/empty/empty"):
        (tmp_path / name).mkdir(parents=True)
    assert storage.sweep("a") == (ours[0],)
    assert (tmp_path / ours[1]).exists()
    assert (tmp_path / "empty").exists()
    assert not (tmp_path / "a" / "empty").exists()
    (tmp_path / "a" / "empty").mkdir()
    assert storage.sweep() == (ours[1],)
    assert (tmp_path / "a" / "empty").exists()
    for name in theirs:
        assert (tmp_path / name).exists()


def test_sweep_removes_the_folders_it_empties(tmp_path: Path) -> None:
    """A folder of nothing but debris goes with it, and those above it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / ".x.0123456789ab.tmp").write_bytes(b"1")
    LocalStorage(tmp_path).sweep()
    assert below(tmp_path) == []


# The power goes.


@pytest.mark.parametrize("dies_at", range(CALLS_OF_CREATE))
def test_power_cut_while_creating(dies_at: int, tmp_path: Path) -> None:
    """Whichever call is the last, an object is there whole or not at all."""
    files = PowerCutFileSystem(tmp_path, dies_at=dies_at)
    with pytest.raises(PowerCut):
        LocalStorage(tmp_path / "s", filesystem=files).create(
            "a/x", [b"12", b"34"]
        )
    for aftermath in aftermaths(seeds=10):
        files.cut(aftermath)
        storage = LocalStorage(tmp_path / "s")
        if storage.exists("a/x"):
            assert storage.read("a/x") == b"1234"
        else:
            storage.sweep()
            storage.create("a/x", [b"5"])


@pytest.mark.parametrize("dies_at", range(CALLS_OF_REPLACE))
def test_power_cut_while_replacing(dies_at: int, tmp_path: Path) -> None:
    """Whichever call is the last, the old object is there or the new one."""
    LocalStorage(tmp_path).replace("HEAD", b"old")
    files = PowerCutFileSystem(tmp_path, dies_at=dies_at)
    storage = LocalStorage(tmp_path, filesystem=files)
    with pytest.raises(PowerCut):
        storage.replace("HEAD", b"new")
    for aftermath in aftermaths(seeds=10):
        files.cut(aftermath)
        assert LocalStorage(tmp_path).read("HEAD") in (b"old", b"new")


@pytest.mark.parametrize("aftermath", aftermaths(seeds=5), ids=str)
def test_power_cut_after_the_return(
    aftermath: Aftermath, tmp_path: Path
) -> None:
    """What `create`, `replace` and `delete` have returned from stays done."""
    LocalStorage(tmp_path).create("b/gone", [b"1"])
    files = PowerCutFileSystem(tmp_path)
    storage = LocalStorage(tmp_path / "c" / "d", filesystem=files)
    storage.create("a/x", [b"1"])
    storage.replace("HEAD", b"1")
    storage.replace("HEAD", b"2")
    LocalStorage(tmp_path, filesystem=files).delete("b/gone")
    files.cut(aftermath)
    assert names_in(LocalStorage(tmp_path)) == ["c/d/HEAD", "c/d/a/x"]
    assert storage.read("a/x") == b"1"
    assert storage.read("HEAD") == b"2"


# The disk fails or is full.


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("fails_at", range(CALLS_OF_CREATE))
def test_errors_while_creating(
    fails_at: int, error: int, lasting: bool, tmp_path: Path
) -> None:
    """
    Whichever call fails, the error is raised, is "no space" if it is that,
    and leaves nothing behind; later the same object can be created.
    """
    files = FaultyFileSystem(fails_at=fails_at, error=error, lasting=lasting)
    storage = LocalStorage(tmp_path / "s", filesystem=files)
    kind = StorageError if error == errno.EIO else NoSpaceError
    with pytest.raises(StorageError) as caught:
        storage.create("a/x", [b"12", b"34"])
    assert type(caught.value) is kind
    assert caught.value.__cause__.errno == error
    after = LocalStorage(tmp_path / "s")
    assert names_in(after) == []
    assert not [*tmp_path.rglob("*.tmp")]
    assert not (tmp_path / "s" / "a").exists()
    after.create("a/x", [b"5"])
    assert after.read("a/x") == b"5"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("fails_at", range(CALLS_OF_REPLACE))
def test_errors_while_replacing(
    fails_at: int, error: int, tmp_path: Path
) -> None:
    """
    Whichever call fails, the error is raised; the old object is there, or the
    new one, whole; if there was no space, the old one, and no debris.
    """
    LocalStorage(tmp_path).replace("HEAD", b"old")
    files = FaultyFileSystem(fails_at=fails_at, error=error)
    storage = LocalStorage(tmp_path, filesystem=files)
    with pytest.raises(StorageError):
        storage.replace("HEAD", b"new")
    assert below(tmp_path) == ["HEAD"]
    written = files.calls[fails_at].operation == "fsync_directory"
    expected = b"new" if written and fails_at > 0 else b"old"
    assert expected == storage.read("HEAD")


@pytest.mark.parametrize("fails_at", [0, 1])
def test_errors_while_deleting(fails_at: int, tmp_path: Path) -> None:
    """What cannot be deleted is an error, not a success."""
    LocalStorage(tmp_path).create("a/x", [b"1"])
    files = FaultyFileSystem(fails_at=fails_at, error=errno.EIO)
    with pytest.raises(StorageError, match="Input/output error: 'a/x'"):
        LocalStorage(tmp_path, filesystem=files).delete("a/x")


def test_every_call_is_a_point_of_failure(tmp_path: Path) -> None:
    """The calls above are all that one `create` and one `replace` make."""
    files = PowerCutFileSystem(tmp_path)
    LocalStorage(tmp_path / "s", filesystem=files).create("a/x", [b"12", b"34"])
    assert len(files.calls) == CALLS_OF_CREATE
    files = PowerCutFileSystem(tmp_path)
    LocalStorage(tmp_path, filesystem=files).replace("HEAD", b"new")
    assert len(files.calls) == CALLS_OF_REPLACE


# What file systems answer.


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_sync_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where directories have no sync, objects are created all the same."""
    fsync = os.fsync

    def refuses(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuses)
    LocalStorage(tmp_path).create("a/x", [b"1"])
    assert names_in(LocalStorage(tmp_path)) == ["a/x"]


def test_a_directory_whose_sync_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other answer to a directory's sync is an error."""
    fsync = os.fsync

    def fails(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StorageError, match="Input/output error"):
        LocalStorage(tmp_path).create("x", [])
    assert below(tmp_path) == []


def test_writes_that_are_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that takes a few bytes at a time gets them all."""
    write = os.write
    monkeypatch.setattr(
        os, "write", lambda handle, data: write(handle, data[:3])
    )
    LocalStorage(tmp_path).create("x", [b"12345678", memoryview(b"9")])
    monkeypatch.undo()
    assert LocalStorage(tmp_path).read("x") == b"123456789"


def test_a_parent_that_is_closed_to_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that was there before may lie in one that we may not open."""
    open_ = os.open

    def closed(path: Path, *arguments: int, **more: int) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_(path, *arguments, **more)

    (tmp_path / "s").mkdir()
    monkeypatch.setattr(os, "open", closed)
    LocalStorage(tmp_path / "s").create("x", [b"1"])
    assert names_in(LocalStorage(tmp_path / "s")) == ["x"]
    with pytest.raises(StorageError, match="Permission denied"):
        LocalStorage(tmp_path / "new").create("x", [b"1"])


def test_without_hard_links_a_taken_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where a file cannot have two names, one that came meanwhile is not
    overwritten.
    """

    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "link", no_links)
    storage = LocalStorage(tmp_path)

    def chunks() -> object:
        yield b"new"
        (tmp_path / "x").write_bytes(b"old")

    with pytest.raises(ObjectExistsError):
        storage.create("x", chunks())
    assert storage.read("x") == b"old"
    assert below(tmp_path) == ["x"]


def test_a_name_that_is_taken_meanwhile(tmp_path: Path) -> None:
    """
    Of two writers of one name, the second to finish fails and leaves the
    first one's object.
    """
    storage = LocalStorage(tmp_path)

    def chunks() -> object:
        yield b"slow"
        LocalStorage(tmp_path).create("x", [b"quick"])

    with pytest.raises(ObjectExistsError):
        storage.create("x", chunks())
    assert storage.read("x") == b"quick"
    assert below(tmp_path) == ["x"]


def test_a_taken_name_is_told_before_anything_is_written(
    tmp_path: Path,
) -> None:
    """Chunks of an object whose name is taken are not even asked for."""
    storage = LocalStorage(tmp_path)
    storage.create("x", [b"1"])
    chunks = iter([b"2"])
    with pytest.raises(ObjectExistsError):
        storage.create("x", chunks)
    assert next(chunks) == b"2"


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """A directory that somebody removed while we run is made again."""
    storage = LocalStorage(tmp_path / "s")
    storage.create("a/x", [b"1"])
    (tmp_path / "s" / "a" / "x").unlink()
    (tmp_path / "s" / "a").rmdir()
    storage.create("a/y", [b"1"])
    assert names_in(storage) == ["a/y"]


def test_is_full() -> None:
    """A full disk and a used-up quota are "no space", an I/O error is not."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    found = [LocalStorage.is_full(OSError(code, "")) for code in codes]
    assert found == [True, True, False]
