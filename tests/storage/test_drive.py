"""A storage on Google Drive, by its own client, against our server."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google.oauth2.credentials
import pytest

from colab_keras_bg.errors import (
    NoSpaceError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage.drive import DriveStorage
from colab_keras_bg.storage.retrying import Backoff, RetryingStorage
from colab_keras_bg.testing.loopback_drive import (
    PASSING_FAULTS,
    Fault,
    LoopbackDrive,
)

LARGE = os.urandom(20 << 20)


@pytest.fixture
def server() -> Iterator[LoopbackDrive]:
    """A Drive."""
    with LoopbackDrive(["runs"], shared=["theirs"], drives=["Team"]) as server:
        yield server


@pytest.fixture
def storage(server: LoopbackDrive) -> DriveStorage:
    """A run on it."""
    return DriveStorage("runs", "a", endpoint=server.url)


def retrying(storage: DriveStorage) -> RetryingStorage:
    """Tries again at once."""
    return RetryingStorage(storage, backoff=Backoff(0.0, 0.0, 20.0))


def test_a_person_sees_it_in_the_browser(
    server: LoopbackDrive, storage: DriveStorage
) -> None:
    """Folders and files are called as the objects are."""
    storage.create("checkpoints/step-1/manifest.json", [b"1"])
    storage.replace("HEAD", b"2")
    assert {name: file.content for name, file in server.files().items()} == {
        "runs/a/checkpoints/step-1/manifest.json": b"1",
        "runs/a/HEAD": b"2",
    }
    storage.delete("HEAD")
    assert list(server.files()) == ["runs/a/checkpoints/step-1/manifest.json"]


@pytest.mark.parametrize("operation", ["upload.*", "create", "ids", "list"])
@pytest.mark.parametrize(
    "fault", PASSING_FAULTS, ids=lambda f: f"{f.kind}-{f.status}"
)
def test_what_passes_leaves_one_file(
    server: LoopbackDrive, storage: DriveStorage, operation: str, fault: Fault
) -> None:
    """Whichever answer is lost or cut: one file, as it was sent."""
    storage.create("there", [b"1"])
    for skip in range(3):
        again = Fault(operation, fault.kind, fault.status, skip=skip)
        server.faults.add(again)
        name = f"x-{skip}"
        retrying(storage).create(name, [b"12", b"3"])
        server.faults.clear()
        assert len(server.at(f"runs/a/{name}")) == 1
        assert storage.read(name) == b"123"


@pytest.mark.parametrize("kind", ["reset", "status", "lost_answer"])
@pytest.mark.parametrize("skip", range(4))
def test_an_upload_goes_on_where_it_broke(
    server: LoopbackDrive,
    storage: DriveStorage,
    tmp_path: Path,
    kind: str,
    skip: int,
) -> None:
    """What Drive has kept of a large file is not sent again."""
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    storage.create("there", [b"1"])
    before = server.bytes_received
    after = None if kind == "lost_answer" else 3 << 20
    server.faults.add(
        Fault("upload.resumable.*", kind, after_bytes=after, skip=skip)
    )
    found = retrying(storage).upload("large", path)
    assert found.size_bytes == len(LARGE)
    assert len(server.at("runs/a/large")) == 1
    assert storage.read("large") == LARGE
    assert server.bytes_received - before < 1.6 * len(LARGE)


def test_a_byte_that_is_wrong_on_the_way_back(
    server: LoopbackDrive, storage: DriveStorage
) -> None:
    """It is noticed, by the MD5 that Drive tells."""
    storage.create("x", [b"123"])
    server.faults.add(Fault("get.media", "corrupt_answer", times=None))
    with pytest.raises(StorageUnavailableError, match="not sent 'x' as"):
        storage.read("x")
    server.faults.clear()
    server.faults.add(Fault("get.media", "truncated_answer"))
    assert retrying(storage).read_range("x", 0, 3) == b"123"


@pytest.fixture
def ticking() -> Iterator[LoopbackDrive]:
    """A Drive on which no two files are made at the same moment."""
    ticks = itertools.count(1_000_000.0)
    with LoopbackDrive(["runs"], clock=lambda: next(ticks)) as server:
        yield server


def test_of_two_that_create_the_older_counts(ticking: LoopbackDrive) -> None:
    """Sixteen at once: one object, for everybody, and no folder twice."""
    server = ticking
    storages = [
        DriveStorage("runs", "deep/er", endpoint=server.url) for _ in range(16)
    ]

    def create(number: int) -> bool:
        try:
            storages[number].create("a/x", [b"%d" % number])
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(create, range(16)))
    seen = {storage.read("a/x") for storage in storages}
    assert len(seen) == 1
    assert made.count(True) == 1
    assert len(server.at("runs/deep/er/a/x")) == 1
    assert len(server.at("runs/deep/er")) == 1


def test_duplicates_that_others_have_left(ticking: LoopbackDrive) -> None:
    """The oldest is the object; deleting it leaves none."""
    server = ticking
    storage = DriveStorage("runs", "a", endpoint=server.url)
    storage.create("x", [b"oldest"])
    (folder,) = server.at("runs/a")
    for content in (b"second", b"third"):
        server.add_file("x", content, parent=folder.id)
    other = DriveStorage("runs", "a", endpoint=server.url)
    assert other.read("x") == b"oldest"
    assert [info.name for info in other.list()] == ["x"]
    assert other.info("x").size_bytes == 6
    other.delete("x")
    assert server.at("runs/a/x") == []
    with pytest.raises(ObjectNotFoundError):
        storage.read("x")


def test_what_is_not_ours_is_passed_over(
    server: LoopbackDrive, storage: DriveStorage
) -> None:
    """Names that we do not write, documents, and what is in the trash."""
    storage.create("a/x", [b"1"])
    (folder,) = server.at("runs/a/a")
    server.add_file("my notes.txt", b"?", parent=folder.id)
    server.add_file(
        "doc",
        None,
        parent=folder.id,
        mime_type="application/vnd.google-apps.document",
    )
    trashed = server.add_file("gone", b"?", parent=folder.id)
    server.trash(trashed.id)
    assert [info.name for info in storage.list()] == ["a/x"]
    for name in ("a/doc", "a/gone"):
        with pytest.raises(ObjectNotFoundError):
            storage.read(name)


def test_names_with_quotes() -> None:
    """A folder's name ends no query."""
    name = r"it's \ mine' and trashed = true or '"
    with LoopbackDrive([name]) as server:
        storage = DriveStorage(name, "a", endpoint=server.url)
        storage.create("x", [b"1"])
        assert storage.read("x") == b"1"


def test_many_files_and_folders(
    server: LoopbackDrive, storage: DriveStorage
) -> None:
    """Lists of several pages, and more folders than one query takes."""
    names = {f"c/step-{n}/file-{k}" for n in range(25) for k in range(2)}
    for name in names:
        storage.create(name, [b"1"])
    (folder,) = server.at("runs/a/c")
    for number in range(1001):
        server.add_file(f"f{number}", b"", parent=folder.id)
    other = DriveStorage("runs", "a", endpoint=server.url)
    before = server.requests["list"]
    found = {info.name for info in other.list()}
    assert names <= found
    assert len(found) == 50 + 1001
    assert server.requests["list"] - before < 12
    assert {i.name for i in other.list("c/step-1")} == {
        name for name in names if name.startswith("c/step-1")
    }


@pytest.mark.parametrize("how", ["trash", "delete"])
def test_a_folder_that_somebody_removes(
    server: LoopbackDrive, storage: DriveStorage, how: str
) -> None:
    """Nothing is written into the trash; it is made anew."""
    storage.create("a/x", [b"1"])
    (folder,) = server.at("runs/a")
    getattr(server, how)(folder.id)
    with pytest.raises(ObjectNotFoundError):
        storage.read("a/x")
    retrying(storage).create("a/y", [b"2"])
    assert set(server.files()) == {"runs/a/a/y"}


def test_a_folder_that_is_removed_while_we_write(
    server: LoopbackDrive, storage: DriveStorage
) -> None:
    """What lands in the trash is not taken for stored."""
    storage.create("a/x", [b"1"])
    (folder,) = server.at("runs/a/a")
    storage._find("a/y")
    server.trash(folder.id)
    storage._folders.know("a", folder.id)
    retrying(storage).create("a/y", [b"2"])
    assert [f.content for f in server.at("runs/a/a/y")] == [b"2"]


def test_lists_that_lag_behind(server: LoopbackDrive) -> None:
    """A file that we have made is there for us, whatever lists say yet."""
    with LoopbackDrive(["runs"]) as late:
        storage = DriveStorage("runs", "a", endpoint=late.url)
        storage.create("x", [b"1"])
        late._files.visible_after_secs = 1e9
        storage.create("y", [b"2"])
        assert storage.read("y") == b"2"
        storage.replace("y", b"3")
        assert storage.read("y") == b"3"
        assert len(late.at("runs/a/y")) == 1


@pytest.mark.parametrize("folder", ["theirs", "Team", "id"])
def test_other_places(server: LoopbackDrive, folder: str) -> None:
    """What is shared with us, a shared drive, or a folder by its id."""
    if folder == "id":
        folder = server.at("runs")[0].id
    storage = DriveStorage(folder, "a", endpoint=server.url)
    storage.create("b/x", [b"1"])
    other = DriveStorage(folder, "a", endpoint=server.url)
    assert other.read("b/x") == b"1"


def test_a_folder_that_is_not_there(server: LoopbackDrive) -> None:
    """It is not made, nor taken for an empty one."""
    storage = DriveStorage("rusn", "a", endpoint=server.url)
    for call in (
        lambda: storage.read("x"),
        lambda: list(storage.list()),
        lambda: storage.create("x", [b"1"]),
    ):
        with pytest.raises(StorageRefusedError, match="no folder 'rusn'"):
            call()
    assert server.at("rusn") == []


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault(status=401), StorageRefusedError, "Log in"),
        (Fault(status=403), StorageRefusedError, "edit the folder"),
        (
            Fault(status=403, reason="userRateLimitExceeded"),
            StorageUnavailableError,
            "status 403",
        ),
        (Fault(status=429), StorageUnavailableError, "status 429"),
        (
            Fault(status=403, reason="storageQuotaExceeded"),
            NoSpaceError,
            "Empty the trash",
        ),
        (Fault(kind="reset", times=9), StorageUnavailableError, "reached"),
    ],
    ids=lambda value: getattr(value, "reason", None),
)
def test_what_drive_answers(
    server: LoopbackDrive,
    storage: DriveStorage,
    fault: Fault,
    kind: type[Exception],
    words: str,
) -> None:
    """What waits for a person is told apart from what passes."""
    storage.create("x", [b"1"])
    server.faults.add(fault)
    with pytest.raises(kind, match=words) as caught:
        storage.replace("x", b"2")
    refused = issubclass(kind, StorageRefusedError | NoSpaceError)
    assert isinstance(caught.value, StorageRefusedError | NoSpaceError) == (
        refused
    )


def test_there_is_no_space(server: LoopbackDrive) -> None:
    """The trash counts; what was there stays; what is freed can be used."""
    storage = DriveStorage("runs", "a", endpoint=server.url)
    server.quota_bytes = 10
    storage.create("x", [b"12345"])
    with pytest.raises(NoSpaceError, match="Empty the trash"):
        storage.create("y", [b"123456"])
    assert [info.name for info in storage.list()] == ["x"]
    assert storage.free_bytes() == 5
    storage.delete("x")
    storage.create("y", [b"123456"])


def test_a_service_account_has_no_space() -> None:
    """That is said; in a shared drive it has."""
    with LoopbackDrive(["runs"], drives=["Team"], owns_space=False) as server:
        storage = DriveStorage("runs", "a", endpoint=server.url)
        with pytest.raises(NoSpaceError, match="shared drive"):
            storage.create("x", [b"1"])
        team = DriveStorage("Team", "a", endpoint=server.url)
        team.create("x", [b"1"])


def test_tokens_that_expire(server: LoopbackDrive) -> None:
    """They are sent; when they are accepted no more, nothing tells them."""
    server.accept("the-secret")
    credentials = google.oauth2.credentials.Credentials("the-secret")
    storage = DriveStorage(
        "runs", "a", endpoint=server.url, credentials=credentials
    )
    storage.create("x", [b"1"])
    server.accept("another")
    with pytest.raises(StorageRefusedError) as caught:
        storage.read("x")
    assert "Log in" in str(caught.value)
    assert "the-secret" not in str(caught.value)


def test_without_the_extra(tmp_path: Path) -> None:
    """Who lacks the client is told what to install, not a traceback."""
    program = (
        "import sys; sys.modules['googleapiclient'] = None\n"
        "from colab_keras_bg.storage.addresses import open_remote\n"
        "open_remote('drive://runs/a')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'pip install "colab_keras_bg[drive]"' in done.stderr
