"""Google Drive in bad times, through its real client."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import google.auth
import google.oauth2.credentials
import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError

from colab_keras_bg.errors import (
    ConflictError,
    NoSpaceError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage import Storage, drive_http
from colab_keras_bg.storage.drive import DriveStorage
from colab_keras_bg.storage.pace import Pace
from colab_keras_bg.storage.retrying import Backoff, RetryingStorage
from colab_keras_bg.testing.loopback_drive import Fault, LoopbackDrive

QUICK = Backoff(first_secs=0.0, most_secs=0.0, deadline_secs=20.0)
LARGE_BYTES = 20 << 20


class Clock:
    """The service's time, which a test moves on."""

    def __init__(self) -> None:
        self.secs = 1_700_000_000.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            self.secs += 0.001  # No two files are of one age.
            return self.secs


@pytest.fixture
def clock() -> Clock:
    """The service's time."""
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[LoopbackDrive]:
    """A service that is like Google's."""
    with LoopbackDrive(["runs"], clock=clock) as server:
        yield server


@pytest.fixture
def late(clock: Clock) -> Iterator[LoopbackDrive]:
    """A service whose lists show nothing younger than a minute."""
    with LoopbackDrive(clock=clock, visible_after_secs=60.0) as server:
        server.add_folder("runs")
        clock.secs += 100.0
        yield server


_opened: list[DriveStorage] = []


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    """Closes what a test has opened."""
    yield
    while _opened:
        _opened.pop().close()


def opened(
    server: LoopbackDrive,
    folder: str = "runs",
    path: str = "a/b",
    **more: object,
) -> DriveStorage:
    """A storage in a folder of Drive."""
    _opened.append(DriveStorage(folder, path, endpoint=server.url, **more))
    return _opened[-1]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that goes in chunks."""
    path = tmp_path / "large"
    path.write_bytes(random.Random(0).randbytes(LARGE_BYTES))
    return path


CALLS: dict[str, Callable[[Storage], object]] = {
    "create": lambda s: s.create("x/new", [b"123"]),
    "replace": lambda s: s.replace("old", b"456"),
    "swap": lambda s: s.swap("old", b"456", expected=b"old"),
    "append": lambda s: s.append("old", b"456", at=3),
    "read": lambda s: s.read("old"),
    "read_range": lambda s: s.read_range("old", 1, 1),
    "info": lambda s: s.info("old"),
    "list": lambda s: sorted(i.name for i in s.list()),
    "delete": lambda s: s.delete("old"),
    "upload": lambda s: s.upload("x/new", Path(__file__)),
}


def contents(server: LoopbackDrive) -> dict[str, bytes]:
    """What is in the run's folder; of several of one name, the oldest."""
    return {
        path.removeprefix("runs/a/b/"): file.content or b""
        for path, file in server.files().items()
    }


def in_the_trash(server: LoopbackDrive) -> int:
    """How many bytes lie in the trash."""
    return server._files.usage_bytes() - sum(
        len(f.content or b"") for f in server.files().values()
    )


# Answers that are lost, and services that fail for a moment.


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429),
        Fault(status=500),
        Fault(status=503),
        Fault(status=403, reason="rateLimitExceeded"),
        Fault(status=403, reason="userRateLimitExceeded"),
        Fault(kind="reset"),
        Fault(kind="lost_answer"),
        Fault(kind="truncated_answer"),
        Fault(kind="broken_answer"),
    ],
    ids=lambda f: f"{f.kind}-{f.status}-{f.reason}",
)
def test_each_request_may_fail_once(
    server: LoopbackDrive, call: str, fault: Fault
) -> None:
    """
    Whichever request of a call fails, the call succeeds in the end, does what
    it says once, and leaves no second file.
    """
    before = opened(server)
    before.create("old", [b"old"])
    for skip in range(12):
        server.faults.add(
            Fault(
                fault.operation,
                fault.kind,
                fault.status,
                fault.reason,
                skip=skip,
            )
        )
        storage = RetryingStorage(opened(server), backoff=QUICK)
        CALLS[call](storage)
        struck = bool(server.faults.struck)
        server.faults.clear()
        server.faults.struck.clear()
        for path in (
            "runs",
            "runs/a",
            "runs/a/b",
            "runs/a/b/x",
            "runs/a/b/old",
        ):
            assert len(server.at(path)) <= 1, path
        assert len(server.at("runs/a/b/x/new")) == (
            call in ("create", "upload")
        )
        if server.at("runs/a/b/x"):
            server.delete(server.at("runs/a/b/x")[0].id)
        if server.at("runs/a/b/old"):
            server.delete(server.at("runs/a/b/old")[0].id)
        server.add_file("old", b"old", parent=server.at("runs/a/b")[0].id)
        if not struck:
            break
    else:
        raise AssertionError("the call takes more requests than twelve")


@pytest.mark.parametrize("kind", ["lost_answer", "truncated_answer"])
def test_a_create_without_retries_knows_its_own(
    server: LoopbackDrive, kind: str
) -> None:
    """
    A file whose answer was lost is there once, and asked for again it is
    success, though lists do not show it.
    """
    storage = opened(server)
    storage.create("first", [b"1"])  # Makes the folders.
    server.faults.add(Fault("upload.*", kind))
    try:
        storage.create("new", [b"123"])
    except StorageUnavailableError:
        storage.create("new", [b"123"])
    assert [f.content for f in server.at("runs/a/b/new")] == [b"123"]
    with pytest.raises(ObjectExistsError):
        storage.create("new", [b"123"])


def test_a_lost_answer_and_other_content(server: LoopbackDrive) -> None:
    """
    What was created, though its answer was lost, is not replaced by a second
    create with other content.
    """
    storage = opened(server)
    server.faults.add(
        Fault("upload.*", "lost_answer"), Fault("get.*", times=None)
    )
    with pytest.raises(StorageUnavailableError):
        storage.create("new", [b"123"])
    server.faults.clear()
    with pytest.raises(ObjectExistsError):
        storage.create("new", [b"456"])
    assert [f.content for f in server.at("runs/a/b/new")] == [b"123"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("upload.resumable.*", status=503, after_bytes=3 << 20),
        Fault("upload.resumable.chunk", "reset", after_bytes=3 << 20),
        Fault("upload.resumable.chunk", "reset", after_bytes=3 << 20, skip=1),
        Fault("upload.resumable.chunk", "lost_answer"),
        Fault("upload.resumable.chunk", "lost_answer", skip=1),
        Fault("upload.resumable.chunk", "truncated_answer"),
        Fault("upload.resumable.chunk", status=503, times=2),
        Fault("upload.resumable.last", status=503),
        Fault("upload.resumable.last", "reset", after_bytes=1 << 20),
        Fault("upload.resumable.last", "lost_answer"),
        Fault("upload.resumable.last", "truncated_answer"),
        Fault("upload.resumable.last", "broken_answer"),
        Fault("upload.resumable.start", status=503),
        Fault("upload.resumable.start", "lost_answer"),
    ],
    ids=lambda f: f"{f.operation}-{f.kind}-{f.status}-{f.skip}",
)
def test_an_upload_that_breaks_in_the_middle(
    server: LoopbackDrive, large: Path, fault: Fault
) -> None:
    """
    A large file arrives whole and once, and no more than a chunk or two of it
    are sent again.
    """
    server.faults.add(fault)
    storage = opened(server)
    RetryingStorage(storage, backoff=QUICK).upload("large", large)
    assert server.faults.struck
    [stored] = server.at("runs/a/b/large")
    assert stored.content == large.read_bytes()
    assert server.bytes_received < LARGE_BYTES + (20 << 20)
    assert storage.read("large") == large.read_bytes()


def test_an_upload_whose_session_is_gone(
    server: LoopbackDrive, large: Path
) -> None:
    """
    An upload that the service has forgotten is begun anew.
    """
    server.faults.add(
        Fault("upload.resumable.*", status=404, reason="notFound", skip=1)
    )
    storage = RetryingStorage(opened(server), backoff=QUICK)
    storage.upload("large", large)
    assert len(server.at("runs/a/b/large")) == 1


def test_bytes_are_counted(server: LoopbackDrive, large: Path) -> None:
    """
    What was sent and received is counted, requests by their method, and the
    bytes of large files with them.
    """
    storage = opened(server)
    storage.upload("large", large)
    storage.read("large")
    told = storage.traffic.to_json()
    assert sum(server.requests.values()) == sum(told["requests"].values())
    assert LARGE_BYTES <= told["sent_bytes"] < LARGE_BYTES + 100_000
    assert LARGE_BYTES <= told["received_bytes"] < LARGE_BYTES + 100_000


def test_a_file_that_shrinks_while_it_is_sent(
    server: LoopbackDrive, tmp_path: Path
) -> None:
    """
    What has not arrived as it was read is not left there.
    """
    storage = opened(server)
    server.faults.add(Fault("upload.multipart", "stall"))
    path = tmp_path / "file"
    path.write_bytes(b"1" * 6_000_000)
    server.faults.clear()
    server.faults.add(Fault("upload.resumable.start", "stalled_answer"))
    failed: list[BaseException] = []

    def upload() -> None:
        try:
            storage.upload("x", path)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    thread = threading.Thread(target=upload)
    thread.start()
    assert server.faults.wait_until_held(within_secs=20)
    path.write_bytes(b"2" * 6_000_000)
    server.faults.release()
    thread.join(20)
    assert [type(error) for error in failed] == [StorageUnavailableError]
    assert server.at("runs/a/b/x") == []


# Several of one name.


def test_of_several_the_oldest_counts(server: LoopbackDrive) -> None:
    """
    Of several files of one name all readers take the oldest, and a delete
    takes all of them.
    """
    storage = opened(server)
    storage.create("x", [b"oldest"])
    parent = server.at("runs/a/b")[0].id
    for content in (b"younger", b"youngest"):
        server.add_file("x", content, parent=parent)
    for reader in (storage, opened(server)):
        assert reader.read("x") == b"oldest"
        assert reader.info("x").size_bytes == 6
        assert [i.size_bytes for i in reader.list()] == [6]
    storage.replace("x", b"new")
    assert opened(server).read("x") == b"new"
    storage.delete("x")
    assert server.at("runs/a/b/x") == []


@pytest.mark.parametrize("size_bytes", [5, 6 << 20])
def test_a_create_that_was_overtaken(
    server: LoopbackDrive, size_bytes: int
) -> None:
    """
    Who has created a name a moment later than another takes its own back, and
    says that the name is taken.
    """
    failed, thread, quick = overtaken(
        server, lambda s: s.create("x", [b"s" * size_bytes])
    )
    quick.create("x", [b"quick"])
    server.faults.release()
    thread.join(20)
    assert [type(error) for error in failed] == [ObjectExistsError]
    assert [f.content for f in server.at("runs/a/b/x")] == [b"quick"]


def test_a_swap_that_was_overtaken(server: LoopbackDrive) -> None:
    """
    Of two that put an object where there was none, the later one knows that
    it has lost, and has changed nothing.
    """
    failed, thread, quick = overtaken(
        server, lambda s: s.swap("x", b"slow", expected=None)
    )
    quick.swap("x", b"quick", expected=None)
    server.faults.release()
    thread.join(20)
    assert [type(error) for error in failed] == [ConflictError]
    assert [f.content for f in server.at("runs/a/b/x")] == [b"quick"]


def test_a_replace_that_was_overtaken(server: LoopbackDrive) -> None:
    """
    Of two that replace what was not there, the later one wins, in one file.
    """
    failed, thread, quick = overtaken(server, lambda s: s.replace("x", b"slow"))
    quick.replace("x", b"quick")
    server.faults.release()
    thread.join(20)
    assert failed == []
    assert [f.content for f in server.at("runs/a/b/x")] == [b"slow"]


def overtaken(
    server: LoopbackDrive, call: Callable[[DriveStorage], object]
) -> tuple[list[BaseException], threading.Thread, DriveStorage]:
    """A call that has seen that there is nothing, and is held there.

    Returns:
        What it raises, once it has; its thread; a storage to overtake it by.
    """
    slow, quick = opened(server), opened(server)
    for one in (slow, quick):
        one.replace("there", b"1")  # Folders are made and known.
    slow._files._ids.clear()
    server.faults.add(Fault("ids", "stall"))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call(slow)
        except StorageError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert server.faults.wait_until_held(within_secs=20)
    return failed, thread, quick


def test_folders_made_at_once(server: LoopbackDrive) -> None:
    """
    Of many that make the same folders at the same moment, all write into the
    same ones.
    """
    start = threading.Barrier(8)

    def write(number: int) -> None:
        storage = opened(server, path="p/q")
        start.wait(20)
        storage.create(f"d/{number}", [b"%d" % number])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = opened(server, path="p/q")
    assert sorted(i.name for i in found.list()) == [f"d/{n}" for n in range(8)]
    for number in range(8):
        assert found.read(f"d/{number}") == b"%d" % number


# Lists that are late.


def test_what_lists_do_not_show_yet(late: LoopbackDrive) -> None:
    """
    What a storage has written it reads, replaces and deletes, though no list
    shows it yet.
    """
    storage = opened(late)
    storage.create("d/x", [b"1"])
    assert storage.read("d/x") == b"1"
    assert storage.info("d/x").size_bytes == 1
    with pytest.raises(ObjectExistsError):
        storage.create("d/x", [b"2"])
    storage.replace("d/x", b"22")
    storage.swap("d/x", b"333", expected=b"22")
    storage.append("d/x", b"4", at=3)
    assert storage.read("d/x") == b"3334"
    assert len(late.at("runs/a/b/d/x")) == 1
    storage.delete("d/x")
    assert late.at("runs/a/b/d/x") == []
    with pytest.raises(ObjectNotFoundError):
        storage.read("d/x")


def test_a_writer_that_comes_back_before_lists_do(
    late: LoopbackDrive, clock: Clock
) -> None:
    """
    A process that goes on where another has died, before lists show what that
    one has made, loses nothing of either, nor does a reader later.
    """
    opened(late).create("d/1", [b"1"])
    again = opened(late, clock=clock)
    again.create("d/2", [b"2"])
    clock.secs += 100.0
    for storage in (again, opened(late)):
        assert storage.read("d/1") == b"1"
        assert storage.read("d/2") == b"2"
        assert sorted(i.name for i in storage.list()) == ["d/1", "d/2"]
    again.create("d/3", [b"3"])
    clock.secs += 100.0
    assert opened(late).read("d/3") == b"3"
    with pytest.raises(ObjectExistsError):
        again.create("d/1", [b"other"])
    again.delete("d/1")
    assert sorted(i.name for i in opened(late).list()) == ["d/2", "d/3"]


def test_writers_that_do_not_see_each_other_yet(
    late: LoopbackDrive, clock: Clock
) -> None:
    """
    Two that have made files of one name, before lists showed them, agree on
    the older one as soon as they do, however often they have written.
    """
    one, other = (opened(late, clock=clock) for _ in range(2))
    one.replace("HEAD", b"1")
    other.replace("HEAD", b"2")
    for _ in range(10):
        clock.secs += 10.0
        other.replace("HEAD", b"3")
    for storage in (one, other, opened(late)):
        assert storage.read("HEAD") == b"3"
    assert contents(late)["HEAD"] == b"3"


# What people do in the browser meanwhile.


@pytest.mark.parametrize("remove", ["trash", "delete"])
@pytest.mark.parametrize("call", ["create", "replace", "upload"])
@pytest.mark.parametrize("which", ["runs/a", "runs/a/b", "runs/a/b/x"])
def test_a_folder_that_goes_away_under_a_writer(
    server: LoopbackDrive, call: str, remove: str, which: str
) -> None:
    """
    A folder that somebody removes is made anew, and what is written then is
    there, and not in the trash.
    """
    storage = opened(server)
    storage.create("x/first", [b"1"])
    storage.create("old", [b"old"])
    getattr(server, remove)(server.at(which)[0].id)
    CALLS[call](RetryingStorage(storage, backoff=QUICK))
    found = contents(server)
    if call == "replace":
        assert found["old"] == b"456"
    else:
        assert found["x/new"]


@pytest.mark.parametrize("remove", ["trash", "delete"])
@pytest.mark.parametrize("call", CALLS)
def test_the_folder_of_the_address_goes_away(
    server: LoopbackDrive, call: str, remove: str
) -> None:
    """
    Without the folder that has to be there everything is refused: nothing
    says that there is nothing.
    """
    storage = opened(server)
    storage.create("old", [b"old"])
    storage.create("x/first", [b"old"])
    getattr(server, remove)(server.at("runs")[0].id)
    with pytest.raises(StorageRefusedError, match="'runs'"):
        CALLS[call](RetryingStorage(storage, backoff=QUICK))


@pytest.mark.parametrize("remove", ["trash", "delete"])
def test_a_folder_that_was_made_anew(
    server: LoopbackDrive, remove: str
) -> None:
    """
    A reader finds what another has written after a folder was removed and
    made anew.
    """
    reader = opened(server)
    reader.create("d/x", [b"1"])
    assert [i.name for i in reader.list()] == ["d/x"]
    getattr(server, remove)(server.at("runs/a/b/d")[0].id)
    opened(server).create("d/y", [b"2"])
    assert reader.read("d/y") == b"2"
    assert [i.name for i in reader.list()] == ["d/y"]
    with pytest.raises(ObjectNotFoundError):
        reader.info("d/x")


def test_a_file_that_was_trashed(server: LoopbackDrive) -> None:
    """
    What lies in the trash is not there, and its name is free.
    """
    storage = opened(server)
    storage.create("x", [b"1"])
    server.trash(server.at("runs/a/b/x")[0].id)
    assert not storage.exists("x")
    assert list(storage.list()) == []
    storage.create("x", [b"2"])
    assert storage.read("x") == b"2"


def test_deleting_is_for_good(server: LoopbackDrive) -> None:
    """
    What is deleted does not fill the trash, which counts.
    """
    storage = opened(server)
    storage.create("x", [b"1"])
    storage.delete("x")
    assert in_the_trash(server) == 0


def test_foreign_files_are_passed_over(server: LoopbackDrive) -> None:
    """
    What has no name of ours, and what has no bytes, is neither listed nor
    found.
    """
    storage = opened(server)
    storage.create("x", [b"1"])
    parent = server.at("runs/a/b")[0].id
    for name in ("my notes.txt", ".hidden", "a/b", "ä", "x' or name = 'y"):
        server.add_file(name, b"1", parent=parent)
    server.add_file(
        "doc",
        None,
        parent=parent,
        mime_type="application/vnd.google-apps.document",
    )
    odd = server.add_folder("odd folder", parent=parent)
    server.add_file("y", b"1", parent=odd.id)
    assert [i.name for i in storage.list()] == ["x"]
    assert not storage.exists("doc")
    assert not storage.exists("a/b")


def test_names_differ_in_their_case(server: LoopbackDrive) -> None:
    """
    Names that differ in their case are different names.
    """
    storage = opened(server)
    storage.create("x", [b"1"])
    assert not storage.exists("X")
    storage.create("X", [b"2"])
    assert storage.read("x") == b"1"
    assert storage.read("X") == b"2"


def test_lists_come_in_pages(server: LoopbackDrive) -> None:
    """
    A list of more files than a page holds is all of them.
    """
    storage = opened(server)
    storage.create("x", [b"1"])
    parent = server.at("runs/a/b")[0].id
    for number in range(1, 2500):
        server.add_file(f"{number}", b"", parent=parent)
    assert len(list(storage.list())) == 2500


def test_many_folders(server: LoopbackDrive) -> None:
    """
    Folders are listed many at once, and each file has its own name.
    """
    storage = opened(server)
    storage.create("d-0/x", [b"1"])
    parent = server.at("runs/a/b")[0].id
    for number in range(1, 50):
        folder = server.add_folder(f"d-{number}", parent=parent)
        server.add_file("x", b"1", parent=folder.id)
    before = server.requests["list"]
    names = sorted(i.name for i in storage.list())
    assert names == sorted(f"d-{n}/x" for n in range(50))
    assert server.requests["list"] - before <= 6


def test_what_head_costs(server: LoopbackDrive) -> None:
    """
    Of a small file that is replaced again and again a replace is one request,
    and a read two: that it is not in the trash, and what is in it.
    """
    storage = opened(server)
    storage.replace("HEAD", b"1")
    for read in (True, False):
        before = sum(server.requests.values())
        for number in range(3):
            if read:
                assert storage.read("HEAD") == b"1"
            else:
                storage.replace("HEAD", b"%d" % number)
        asked = sum(server.requests.values()) - before
        assert asked == (6 if read else 3)


def test_what_another_has_changed_is_read(server: LoopbackDrive) -> None:
    """
    What was remembered is never told in place of what is there.
    """
    one, other = opened(server), opened(server)
    one.replace("HEAD", b"1")
    assert other.read("HEAD") == b"1"
    one.replace("HEAD", b"22")
    assert other.read("HEAD") == b"22"
    assert other.info("HEAD").size_bytes == 2
    assert other.read_range("HEAD", 0, 10) == b"22"
    one.delete("HEAD")
    assert not other.exists("HEAD")
    one.create("HEAD", [b"333"])
    assert other.read("HEAD") == b"333"
    with pytest.raises(ConflictError):
        other.swap("HEAD", b"4", expected=b"22")


# What waits for a person.


def test_a_folder_that_is_not_there(server: LoopbackDrive) -> None:
    """
    Without the folder of the address all is refused, with what to do.
    """
    for call in CALLS.values():
        with pytest.raises(StorageRefusedError) as caught:
            call(opened(server, "Runs of Ada"))
        assert "no folder 'Runs of Ada'" in caught.value.cause
        assert caught.value.advice
    assert server.files() == {}


def test_folders_by_id_and_from_elsewhere() -> None:
    """
    The folder of an address may be named, given by its id, shared by another,
    or a shared drive.
    """
    with LoopbackDrive(["it's"], shared=["theirs"], drives=["team"]) as server:
        id = server.at("it's")[0].id
        opened(server, "it's").create("x", [b"1"])
        assert opened(server, id).read("x") == b"1"
        for folder in ("theirs", "team"):
            opened(server, folder).create("x", [b"2"])
            assert opened(server, folder).read("x") == b"2"
            assert [i.name for i in opened(server, folder).list()] == ["x"]
        assert list(server.files()) == ["it's/a/b/x"]


def test_no_space(server: LoopbackDrive) -> None:
    """
    A full Drive is an error of its own, which says that the trash counts.
    """
    storage = opened(server)
    storage.replace("x", b"1")
    server.quota_bytes = 10
    assert opened(server).free_bytes() == 9
    for call in (
        lambda: storage.create("new", [bytes(20)]),
        lambda: storage.replace("x", bytes(20)),
    ):
        with pytest.raises(NoSpaceError, match="trash") as caught:
            call()
        assert caught.value.errno == errno.ENOSPC
    assert contents(server) == {"x": b"1"}
    server.quota_bytes = 100
    storage.create("new", [bytes(20)])
    assert contents(server)["new"] == bytes(20)


def test_no_space_for_a_large_file(server: LoopbackDrive, large: Path) -> None:
    """
    A large file that does not fit is not there, and is refused as such.
    """
    server.quota_bytes = 10
    with pytest.raises(NoSpaceError):
        opened(server).upload("large", large)
    assert contents(server) == {}


def test_free_space_is_not_always_known(server: LoopbackDrive) -> None:
    """
    Without a limit, or an answer, it is not known how much is free.
    """
    assert opened(server).free_bytes() is None
    server.quota_bytes = 100
    server.faults.add(Fault("about"))
    storage = opened(server)
    assert storage.free_bytes() is None


def test_a_service_account_has_no_space() -> None:
    """
    What a service account cannot keep of its own it is told to keep in a
    shared drive, and there it can.
    """
    with LoopbackDrive(["runs"], drives=["team"], owns_space=False) as server:
        with pytest.raises(NoSpaceError, match="shared drive"):
            opened(server).create("x", [b"1"])
        opened(server, "team").create("x", [b"1"])
        assert opened(server, "team").read("x") == b"1"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401, times=None), "Log in"),
        (Fault(status=403, times=None), "edit the folder"),
        (
            Fault(status=403, reason="insufficientFilePermissions", times=None),
            "edit the folder",
        ),
    ],
)
def test_refusals(
    server: LoopbackDrive, call: str, fault: Fault, words: str
) -> None:
    """
    What waits for a person is not tried again, and says what to do.
    """
    opened(server).create("old", [b"old"])
    server.faults.add(fault)
    with pytest.raises(StorageRefusedError) as caught:
        CALLS[call](opened(server))
    assert words in caught.value.advice
    server.faults.clear()


def test_404_is_not_a_refusal(server: LoopbackDrive) -> None:
    """
    That a file is not there is only said of a folder that answers.
    """
    storage = opened(server)
    with pytest.raises(ObjectNotFoundError):
        storage.read("x")
    server.faults.add(Fault(status=503, times=None))
    with pytest.raises(StorageUnavailableError):
        storage.read("x")
    server.faults.clear()
    server.faults.add(Fault("list", status=404, times=None))
    with pytest.raises(StorageUnavailableError):
        opened(server).read("x")


def test_tokens(server: LoopbackDrive) -> None:
    """
    Tokens are sent; one that is not accepted is a refusal, and stands in no
    message.
    """
    credentials = google.oauth2.credentials.Credentials("secret-token")
    server.accept("secret-token")
    storage = opened(server, credentials=credentials)
    storage.create("x", [b"1"])
    server.accept("another")
    with pytest.raises(StorageRefusedError) as caught:
        storage.read("x")
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret-token" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without credentials nothing is sent, and the error says how to log in.
    """

    def none(**_: object) -> None:
        raise DefaultCredentialsError("nothing found")

    monkeypatch.delenv("COLAB_KERAS_BG_DRIVE_ENDPOINT", raising=False)
    monkeypatch.setattr(google.auth, "default", none)
    with pytest.raises(StorageRefusedError) as caught:
        DriveStorage("runs", "a")
    assert "authenticate_user" in caught.value.advice


class Expired(google.oauth2.credentials.Credentials):
    """Credentials that cannot be refreshed."""

    def __init__(self, retryable: bool) -> None:
        super().__init__("token")
        self._retryable = retryable

    def before_request(self, *_: object) -> None:
        raise RefreshError("no", retryable=self._retryable)


@pytest.mark.parametrize("passing", [True, False])
def test_credentials_that_expire(server: LoopbackDrive, passing: bool) -> None:
    """
    Credentials that cannot be renewed wait for a person, unless only the
    service that renews them is away.
    """
    storage = opened(server, credentials=Expired(passing))
    with pytest.raises(StorageUnavailableError) as caught:
        storage.read("x")
    assert isinstance(caught.value, StorageRefusedError) != passing


def test_the_environment_leads_elsewhere(
    server: LoopbackDrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The environment may name another server, to which nobody logs in.
    """
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    storage = DriveStorage("runs", "a")
    storage.create("x", [b"1"])
    storage.close()
    assert server.at("runs/a/x")


def test_shared_files_go_to_the_trash() -> None:
    """
    What may not be deleted is put in the trash, and is then not there.
    """
    with LoopbackDrive(["runs"]) as server:
        storage = opened(server)
        storage.create("x", [b"1"])
        server.faults.add(
            Fault("delete", status=403, reason="insufficientFilePermissions")
        )
        storage.delete("x")
        assert server.at("runs/a/b/x") == []
        assert in_the_trash(server) == 1
        assert not storage.exists("x")


def test_without_the_library() -> None:
    """
    Without the client's package the error says what to install.
    """
    script = (
        "import sys\n"
        "sys.modules['googleapiclient'] = None\n"
        "from colab_keras_bg.errors import StorageRefusedError\n"
        "try:\n"
        "    from colab_keras_bg.storage.drive import DriveStorage\n"
        "    DriveStorage('runs', 'a')\n"
        "except StorageRefusedError as error:\n"
        "    print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 'pip install "colab_keras_bg[drive]"' in ended.stdout


def test_nothing_stays_open(server: LoopbackDrive) -> None:
    """
    A storage that is closed holds no connection, whichever thread used it.
    """
    storage = opened(server)
    storage.create("x", [b"1"])
    threads = [
        threading.Thread(target=storage.read, args=("x",)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    storage.close()
    deadline = 2000
    while server._front._connections and deadline:
        threading.Event().wait(0.005)
        deadline -= 1
    assert not server._front._connections


def test_a_name_that_several_share() -> None:
    """
    A folder that two others share under one name is not guessed: anybody may
    share one with anybody.
    """
    with LoopbackDrive(shared=["theirs", "theirs"]) as server:
        with pytest.raises(StorageRefusedError) as caught:
            opened(server, "theirs").create("x", [b"1"])
        assert "2 folders 'theirs'" in caught.value.cause
        assert "Give the id" in caught.value.advice
        mine = server.add_folder("theirs")
        opened(server, "theirs").create("x", [b"1"])
        assert list(server.files()) == ["theirs/a/b/x"]
        assert opened(server, mine.id).read("x") == b"1"


def test_sweeping(server: LoopbackDrive) -> None:
    """
    What a writer that died has made beside an older file is removed, and
    never the file that counts.
    """
    storage = opened(server)
    for name in ("x", "d/y"):
        storage.create(name, [b"oldest"])
    top, inner = server.at("runs/a/b")[0].id, server.at("runs/a/b/d")[0].id
    server.add_file("x", b"younger", parent=top)
    server.add_file("y", b"younger", parent=inner)
    assert storage.sweep("d") == ("d/y",)
    assert [f.content for f in server.at("runs/a/b/d/y")] == [b"oldest"]
    assert storage.sweep() == ("x",)
    assert storage.sweep() == ()
    assert contents(server) == {"x": b"oldest", "d/y": b"oldest"}


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("insufficientPermissions", "auth/drive"),
        ("accessNotConfigured", "switched on"),
    ],
)
def test_credentials_that_do_not_suffice(
    server: LoopbackDrive, reason: str, words: str
) -> None:
    """
    Credentials that are not for Drive, and a project without it, are told
    apart from a folder that is closed.
    """
    server.faults.add(Fault(status=403, reason=reason, times=None))
    with pytest.raises(StorageRefusedError) as caught:
        opened(server).read("x")
    assert words in caught.value.advice


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_was_closed_meanwhile(
    server: LoopbackDrive, call: str
) -> None:
    """
    That the service has closed an idle connection is nobody's failure.
    """
    storage = opened(server)
    storage.create("old", [b"old"])
    server.stop()
    server.start()
    CALLS[call](storage)


def test_a_service_that_says_nothing(
    server: LoopbackDrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A request that is not answered is given up, and may be tried again.
    """
    monkeypatch.setattr(drive_http, "_TIMEOUT_SECS", 0.2)
    storage = opened(server)
    server.faults.add(Fault("list", "stall"))
    with pytest.raises(StorageUnavailableError, match="TimeoutError"):
        storage.read("x")
    server.faults.release()


def test_what_is_sent_is_paced(server: LoopbackDrive, large: Path) -> None:
    """
    All that is sent is asked for first, a block at a time.
    """

    class Counted(Pace):
        def __init__(self) -> None:
            self.taken: list[int] = []

        def take(self, size_bytes: int) -> None:
            self.taken.append(size_bytes)

    pace = Counted()
    storage = opened(server, pace=pace)
    storage.upload("large", large)
    storage.create("small", [b"123"])
    assert sum(pace.taken) == server.bytes_received
    assert max(pace.taken) <= 64 << 10


def test_the_memory_that_it_takes(
    server: LoopbackDrive, tmp_path: Path
) -> None:
    """
    A process that ships a large file keeps no more than a few chunks of it,
    and loads nothing heavy.
    """
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(160 << 20)
    script = (
        "import pathlib, sys\n"
        "from colab_keras_bg.storage.drive import DriveStorage\n"
        "storage = DriveStorage('runs', 'a')\n"
        "storage.upload('x', pathlib.Path(sys.argv[1]))\n"
        "storage.close()\n"
        "assert not {'numpy', 'tensorflow', 'keras'} & sys.modules.keys()\n"
        # Not getrusage's, which begins with that of who has started it.
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(status.partition('VmHWM:')[2].split()[0])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={
            **os.environ,
            **server.environment,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    assert int(ended.stdout) < 80_000  # KiB
    assert server.at("runs/a/x")[0].content == bytes(160 << 20)
