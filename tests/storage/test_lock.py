"""One live writer, told apart from dead ones by the kernel."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colab_keras_bg.errors import (
    RunHeldError,
    StorageError,
    StorageUnavailableError,
)
from colab_keras_bg.storage.lock import DirectoryLock

HOLDER = """
import sys
from pathlib import Path
from colab_keras_bg.storage.lock import DirectoryLock
lock = DirectoryLock.acquire(Path(sys.argv[1]), holder="the other one")
print("held", flush=True)
sys.stdin.read()
"""
HEIR = """
import sys
from colab_keras_bg.storage.lock import DirectoryLock
lock = DirectoryLock.inherit(int(sys.argv[1]))
print("shared", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def process(
    code: str, *arguments: object, pass_fds: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which has said that it is ready; killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=pass_fds,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() in (b"held\n", b"shared\n")
            yield child
        finally:
            child.kill()


def acquire(directory: Path, **more: object) -> DirectoryLock:
    """Takes the lock, or fails at once."""
    return DirectoryLock.acquire(
        directory, holder="we", patience_secs=0, **more
    )


def test_a_held_directory_is_refused(tmp_path: Path) -> None:
    """A second one is refused and told who holds it; then it is free."""
    lock = acquire(tmp_path)
    assert DirectoryLock.holder_of(tmp_path) == "we"
    with pytest.raises(RunHeldError) as caught:
        acquire(tmp_path)
    assert caught.value.holder == "we"
    assert caught.value.run_dir == str(tmp_path)
    assert str(caught.value) == (
        f"The run in {tmp_path} is held by another live attempt (we). Wait "
        "for it, stop it, or use another run directory."
    )
    lock.release()
    assert DirectoryLock.holder_of(tmp_path) is None
    acquire(tmp_path).release()


def test_releasing_twice_is_releasing_once(tmp_path: Path) -> None:
    """A lock that was released has no descriptor, and harms no other's."""
    lock = acquire(tmp_path)
    lock.release()
    other = acquire(tmp_path)
    lock.release()
    assert DirectoryLock.holder_of(tmp_path) == "we"
    with pytest.raises(ValueError, match="released"):
        _ = lock.handle
    other.release()


def test_nobody_holds_what_was_never_locked(tmp_path: Path) -> None:
    """Asking for the holder makes no lock, nor a directory."""
    assert DirectoryLock.holder_of(tmp_path) is None
    assert DirectoryLock.holder_of(tmp_path / "nowhere") is None
    assert [*tmp_path.iterdir()] == []


def test_asking_for_the_holder_takes_nothing(tmp_path: Path) -> None:
    """Who asks neither keeps the lock nor changes what it says."""
    acquire(tmp_path).release()
    assert DirectoryLock.holder_of(tmp_path) is None
    acquire(tmp_path).release()


def test_another_process_is_told_apart(tmp_path: Path) -> None:
    """
    The lock of another process keeps us out until it is killed, by SIGKILL,
    which lets nobody clear up; then the directory is free at once.
    """
    with process(HOLDER, tmp_path) as child:
        assert DirectoryLock.holder_of(tmp_path) == "the other one"
        with pytest.raises(RunHeldError, match="the other one"):
            acquire(tmp_path)
        child.kill()
        child.wait()
        assert DirectoryLock.holder_of(tmp_path) is None
        acquire(tmp_path).release()


def test_an_inherited_descriptor_shares_the_lock(tmp_path: Path) -> None:
    """
    A child that was given the descriptor holds the run with us, and alone
    when we let go; the run is free when it, too, has ended.
    """
    lock = acquire(tmp_path)
    with process(HEIR, lock.handle, pass_fds=(lock.handle,)) as child:
        lock.release()
        assert DirectoryLock.holder_of(tmp_path) == "we"
        with pytest.raises(RunHeldError):
            acquire(tmp_path)
        child.kill()
        child.wait()
    assert DirectoryLock.holder_of(tmp_path) is None


def test_programs_we_start_do_not_hold_the_run(tmp_path: Path) -> None:
    """Neither a lock nor an inherited one is passed on without asking."""
    lock = acquire(tmp_path)
    assert not os.get_inheritable(lock.handle)
    handle = os.dup(lock.handle)
    os.set_inheritable(handle, True)
    heir = DirectoryLock.inherit(handle)
    assert not os.get_inheritable(heir.handle)
    heir.release()
    lock.release()


def test_a_forked_child_lets_go(tmp_path: Path) -> None:
    """
    A data worker that was forked and outlives its trainer does not hold the
    run; and its letting go does not release ours.
    """
    lock = acquire(tmp_path)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        with contextlib.suppress(ValueError):
            _ = lock.handle
            os.write(ready[1], b"held")
            os._exit(1)
        os.write(ready[1], b"free")
        os.read(done[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 4) == b"free"
        assert DirectoryLock.holder_of(tmp_path) == "we"
        lock.release()
        assert DirectoryLock.holder_of(tmp_path) is None
        acquire(tmp_path).release()
    finally:
        os.write(done[1], b"x")
        _, status = os.waitpid(child, 0)
        for handle in (*ready, *done):
            os.close(handle)
    assert status == 0


def test_patience_with_one_that_is_just_dying(tmp_path: Path) -> None:
    """A holder that goes within the patience is waited for, without a word."""
    dying = acquire(tmp_path)
    now = 0.0

    def sleep(secs: float) -> None:
        nonlocal now
        now += secs
        if now > 1:
            dying.release()

    lock = DirectoryLock.acquire(
        tmp_path, holder="we", clock=lambda: now, sleep=sleep
    )
    assert 1 < now < 2
    assert DirectoryLock.holder_of(tmp_path) == "we"
    lock.release()


def test_patience_ends(tmp_path: Path) -> None:
    """One that lives on is not waited for longer than that."""
    lock = acquire(tmp_path)
    now = 0.0

    def sleep(secs: float) -> None:
        nonlocal now
        now += secs

    with pytest.raises(RunHeldError):
        DirectoryLock.acquire(
            tmp_path,
            holder="x",
            patience_secs=3,
            clock=lambda: now,
            sleep=sleep,
        )
    assert 3 <= now < 3.2
    lock.release()


def test_a_shorter_name_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    """Who holds the lock says so in place of who held it before."""
    DirectoryLock.acquire(tmp_path, holder="x" * 500).release()
    lock = acquire(tmp_path)
    assert json.loads((tmp_path / ".lock").read_bytes()) == {"holder": "we"}
    lock.release()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"7", b"\xff", b"[" * 4096, b"\0" * 100_000],
)
def test_a_lock_that_says_nothing(tmp_path: Path, content: bytes) -> None:
    """What the lock's file holds is only for people: it locks all the same."""
    lock = acquire(tmp_path)
    (tmp_path / ".lock").write_bytes(content)
    assert DirectoryLock.holder_of(tmp_path) == "unknown"
    with pytest.raises(RunHeldError, match="unknown"):
        acquire(tmp_path)
    lock.release()


def test_a_long_story_is_cut(tmp_path: Path) -> None:
    """Whoever holds it does not fill our screen."""
    lock = DirectoryLock.acquire(tmp_path, holder="x" * 1_000)
    assert DirectoryLock.holder_of(tmp_path) == "x" * 200
    lock.release()


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    """Somebody's file is not emptied because a link leads to it."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"1")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".lock").symlink_to(precious)
    with pytest.raises(StorageError, match="the lock"):
        acquire(tmp_path / "s")
    with pytest.raises(StorageUnavailableError, match="the lock"):
        DirectoryLock.holder_of(tmp_path / "s")
    assert precious.read_bytes() == b"1"


@pytest.mark.parametrize("kind", ["folder", "pipe", "no directory"])
def test_a_lock_that_cannot_be_opened(tmp_path: Path, kind: str) -> None:
    """Anything else in its place is an error, and is not waited for."""
    directory = tmp_path
    if kind == "folder":
        (tmp_path / ".lock").mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / ".lock")
    else:
        directory = tmp_path / "nowhere"
    with pytest.raises(StorageError, match="the lock"):
        acquire(directory)
    assert DirectoryLock.holder_of(directory) is None


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_file_systems_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where nothing can be locked nothing can be told, and work goes on."""

    def no_locks(handle: int, kind: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock = acquire(tmp_path)
    assert DirectoryLock.holder_of(tmp_path) is None
    lock.release()


def test_an_error_of_locking_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other answer is neither "free" nor "held"."""

    def fails(handle: int, kind: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    acquire(tmp_path).release()
    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(StorageError, match="Input/output error"):
        acquire(tmp_path)
    with pytest.raises(StorageUnavailableError, match="Input/output error"):
        DirectoryLock.holder_of(tmp_path)


def test_a_failed_attempt_leaves_no_descriptor(tmp_path: Path) -> None:
    """Being refused a hundred times costs no descriptor."""
    lock = acquire(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        with pytest.raises(RunHeldError):
            acquire(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
    lock.release()
