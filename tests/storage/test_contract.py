"""What the interface promises, held against every storage."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colab_keras_bg.errors import (
    ConflictError,
    NoSpaceError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
    UsageError,
)
from colab_keras_bg.storage import LocalStorage, MemoryStorage, Storage
from colab_keras_bg.storage.drive import DriveStorage
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.storage.interface import ObjectInfo, check_prefix
from colab_keras_bg.storage.mounted import MountedStorage
from colab_keras_bg.storage.retrying import RetryingStorage
from colab_keras_bg.storage.segments import SegmentedStorage
from colab_keras_bg.testing.loopback_drive import LoopbackDrive
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs

BAD_NAMES = (
    "",
    "/",
    "/etc/passwd",
    "..",
    "../a",
    "a/../b",
    "a/..",
    ".",
    "./a",
    "a/./b",
    ".hidden",
    "a/.hidden",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\n",
    "a b",
    "a\\b",
    "a:b",
    "~",
    "ä",
    "\u0661",
    "x" * 201,
)
GOOD_NAMES = (
    "a",
    "A-b_c.d..e",
    "0",
    "-",
    "_",
    "a/b/c/d/e/f",
    "x" * 200,
)


@pytest.fixture(scope="module")
def gcs() -> Iterator[LoopbackGcs]:
    """A service that is like Google's."""
    with LoopbackGcs(buckets=["bucket"]) as server:
        yield server


@pytest.fixture(scope="module")
def drive() -> Iterator[LoopbackDrive]:
    """A Drive that is like Google's."""
    with LoopbackDrive(["runs"]) as server:
        yield server


@pytest.fixture(
    params=[
        "memory",
        "local",
        "local without hard links",
        "gcs",
        "retrying",
        "segmented",
        "segmented local",
        "mounted",
        "segmented mounted",
        "drive",
        "segmented drive",
    ]
)
def storage(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gcs: LoopbackGcs,
    drive: LoopbackDrive,
) -> Iterator[Storage]:
    """One of the storages, empty."""
    if request.param == "local without hard links":
        monkeypatch.setattr(os, "link", no_links)
    with contextlib.closing(
        made(request.param, gcs, drive, tmp_path / "not" / "there yet")
    ) as storage:
        yield storage


def made(
    kind: str, gcs: LoopbackGcs, drive: LoopbackDrive, path: Path
) -> Storage:
    """A storage of a kind."""
    if kind == "memory":
        return MemoryStorage()
    if kind.startswith("local"):
        return LocalStorage(path)
    if kind == "segmented":
        return SegmentedStorage(MemoryStorage())
    if kind == "segmented local":
        return SegmentedStorage(LocalStorage(path))
    if "mounted" in kind:
        mounted = MountedStorage(path, is_there=lambda: True)
        return mounted if kind == "mounted" else SegmentedStorage(mounted)
    if "drive" in kind:
        place = f"a/{secrets.token_hex(8)}"
        files = DriveStorage("runs", place, endpoint=drive.url)
        return files if kind == "drive" else SegmentedStorage(files)
    storage = GcsStorage(
        "bucket", f"runs/{secrets.token_hex(8)}", endpoint=gcs.url
    )
    return storage if kind == "gcs" else RetryingStorage(storage)


def no_links(source: object, target: object) -> None:
    """What mounted Drives answer."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def names_in(storage: Storage, prefix: str = "") -> list[str]:
    """The names of all objects, sorted."""
    return sorted(info.name for info in storage.list(prefix))


def test_what_is_created_is_read_back(storage: Storage) -> None:
    """An object is what its chunks were, whichever way it is read."""
    info = storage.create("a/b", [b"12", memoryview(b"345"), b"", b"6"])
    assert info == ObjectInfo("a/b", size_bytes=6)
    assert storage.info("a/b") == info
    assert list(storage.list()) == [info]
    assert storage.read("a/b") == b"123456"
    assert bytes(storage.map("a/b")) == b"123456"
    assert storage.exists("a/b")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=30,
    deadline=None,
)
@given(chunks=st.lists(st.binary(max_size=50), max_size=20))
def test_any_chunks(storage: Storage, chunks: list[bytes]) -> None:
    """However content is cut into chunks, it is their concatenation."""
    storage.create("x", chunks)
    try:
        assert storage.read("x") == b"".join(chunks)
        assert storage.info("x").size_bytes == len(b"".join(chunks))
    finally:
        storage.delete("x")


@pytest.mark.parametrize("chunks", [[], [b""], [b"", memoryview(b"")]])
def test_an_object_without_content(
    storage: Storage, chunks: list[bytes]
) -> None:
    """An object of zero bytes is an object."""
    storage.create("empty", chunks)
    assert storage.read("empty") == b""
    assert bytes(storage.map("empty")) == b""
    assert storage.info("empty").size_bytes == 0
    assert names_in(storage) == ["empty"]
    with pytest.raises(ObjectExistsError):
        storage.create("empty", [b"1"])
    storage.delete("empty")
    assert names_in(storage) == []


def test_many_chunks(storage: Storage) -> None:
    """Ten thousand chunks are as good as one."""
    storage.create("many", (bytes([n % 251]) for n in range(10_000)))
    expected = bytes(n % 251 for n in range(10_000))
    assert expected == storage.read("many")


def test_chunks_are_not_kept(storage: Storage) -> None:
    """A chunk may be overwritten as soon as the next one is asked for."""
    buffer = bytearray(1)

    def chunks() -> Iterator[memoryview]:
        for letter in b"abc":
            buffer[0] = letter
            yield memoryview(buffer)

    storage.create("x", chunks())
    assert storage.read("x") == b"abc"


def test_create_never_replaces(storage: Storage) -> None:
    """A name that is taken stays what it is, and the error says whose it is."""
    storage.create("a/b", [b"old"])
    with pytest.raises(ObjectExistsError) as caught:
        storage.create("a/b", [b"new"])
    assert caught.value.name == "a/b"
    assert isinstance(caught.value, FileExistsError)
    assert str(caught.value) == (
        f"The object 'a/b' exists already in {storage.describe()}; it was left "
        "as it is."
    )
    assert storage.read("a/b") == b"old"
    assert names_in(storage) == ["a/b"]


class Boom(BaseException):
    """Not an Exception: a cleanup must not depend on that."""


@pytest.mark.parametrize("error", [ValueError("boom"), Boom("boom")])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_chunks_that_raise(
    storage: Storage, error: BaseException, after: int
) -> None:
    """
    What the chunks raise comes through, and then there is no object, nor
    anything in the way of creating it.
    """

    def chunks() -> Iterator[bytes]:
        yield from [b"x"] * after
        raise error

    with pytest.raises(type(error)) as caught:
        storage.create("a/b", chunks())
    assert caught.value is error
    assert not storage.exists("a/b")
    assert names_in(storage) == []
    storage.create("a/b", [b"better"])
    assert storage.read("a/b") == b"better"


def test_replace_puts_a_whole_object_in_place(storage: Storage) -> None:
    """
    `replace` makes an object where there is none, and otherwise leaves only
    the new content, be it shorter or longer; who read the old keeps it.
    """
    assert storage.replace("a/r", b"12345") == ObjectInfo("a/r", 5)
    before = storage.map("a/r")
    assert storage.replace("a/r", b"1") == ObjectInfo("a/r", 1)
    assert storage.read("a/r") == b"1"
    storage.replace("a/r", b"")
    assert storage.read("a/r") == b""
    storage.replace("a/r", b"123456789")
    assert storage.read("a/r") == b"123456789"
    assert bytes(before) == b"12345"
    assert names_in(storage) == ["a/r"]


def test_what_is_created_can_be_replaced(storage: Storage) -> None:
    """Created or replaced, it is the same kind of object."""
    storage.create("x", [b"1"])
    storage.replace("x", b"2")
    assert storage.read("x") == b"2"


def test_views_cannot_be_written_to(storage: Storage) -> None:
    """What `map` gives is read-only, and outlives the object's name."""
    storage.create("x", [b"123"])
    view = storage.map("x")
    with pytest.raises(TypeError):
        view[0] = 0
    storage.delete("x")
    assert bytes(view) == b"123"


def test_swapping(storage: Storage) -> None:
    """`swap` replaces what the caller has seen, and nothing else."""
    assert storage.swap("a/HEAD", b"1", expected=None) == ObjectInfo(
        "a/HEAD", 1
    )
    assert storage.swap("a/HEAD", b"22", expected=b"1").size_bytes == 2
    for stale in (None, b"1", b"2", b""):
        with pytest.raises(ConflictError) as caught:
            storage.swap("a/HEAD", b"3", expected=stale)
        assert caught.value.name == "a/HEAD"
    assert str(caught.value) == (
        f"The object 'a/HEAD' in {storage.describe()} was changed by another "
        "writer; it was left as it is."
    )
    with pytest.raises(ConflictError):
        storage.swap("a/other", b"3", expected=b"1")
    assert storage.read("a/HEAD") == b"22"
    assert names_in(storage) == ["a/HEAD"]
    storage.delete("a/HEAD")
    with pytest.raises(ConflictError):
        storage.swap("a/HEAD", b"3", expected=b"22")
    storage.swap("a/HEAD", b"", expected=None)
    storage.swap("a/HEAD", b"4", expected=b"")
    assert storage.read("a/HEAD") == b"4"


def test_swapping_what_another_put(storage: Storage) -> None:
    """What a storage has put itself, it does not take for what is there."""
    storage.swap("HEAD", b"1", expected=None)
    storage.replace("HEAD", b"2")
    with pytest.raises(ConflictError):
        storage.swap("HEAD", b"3", expected=b"1")
    storage.swap("HEAD", b"3", expected=b"2")
    assert storage.read("HEAD") == b"3"


def test_a_swap_whose_answer_was_lost(storage: Storage) -> None:
    """Asked for again, a swap that has happened is success."""
    storage.swap("HEAD", b"1", expected=None)
    storage.swap("HEAD", b"1", expected=None)
    storage.swap("HEAD", b"2", expected=b"1")
    storage.swap("HEAD", b"2", expected=b"1")
    assert storage.read("HEAD") == b"2"


def test_of_many_that_swap_one_wins(storage: Storage) -> None:
    """Sixteen take over the same object at once: one has, the others know."""
    if not storage.capabilities.swaps:
        pytest.skip("what it admits: two at the same moment may both succeed")
    storage.replace("HEAD", b"free")

    def take(number: int) -> bool:
        try:
            storage.swap("HEAD", b"%d" % number, expected=b"free")
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(take, range(16)))
    assert taken.count(True) == 1
    assert storage.read("HEAD") == b"%d" % taken.index(True)


def test_of_many_that_create_one_wins(storage: Storage) -> None:
    """Of many that create one name, one does; it is not overwritten."""

    def create(number: int) -> bool:
        try:
            storage.create("x", [b"%d" % number])
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        created = list(pool.map(create, range(16)))
    assert created.count(True) == 1
    assert storage.read("x") == b"%d" % created.index(True)


def test_appending(storage: Storage) -> None:
    """What is appended stands behind what was there."""
    assert storage.append("a/log", b"12", at=0) == ObjectInfo("a/log", 2)
    assert storage.append("a/log", b"345", at=2) == ObjectInfo("a/log", 5)
    assert storage.read("a/log") == b"12345"
    for at in (0, 1, 2, 4, 6):
        with pytest.raises(ConflictError):
            storage.append("a/log", b"6", at=at)
    with pytest.raises(ConflictError):
        storage.append("a/other", b"6", at=3)
    assert storage.read("a/log") == b"12345"
    assert names_in(storage) == ["a/log"]


def test_an_append_whose_answer_was_lost(storage: Storage) -> None:
    """Asked for again, an append that has happened is success."""
    for _ in range(2):
        storage.append("log", b"12", at=0)
    for _ in range(2):
        storage.append("log", b"345", at=2)
    with pytest.raises(ConflictError):
        storage.append("log", b"346", at=2)
    assert storage.read("log") == b"12345"


def test_many_appends(storage: Storage) -> None:
    """A log of a hundred appends is all of them in order."""
    at = 0
    for number in range(100):
        line = b"line %d\n" % number
        storage.append("log", line, at=at)
        at += len(line)
    expected = b"".join(b"line %d\n" % number for number in range(100))
    assert expected == storage.read("log")


def test_ranges(storage: Storage) -> None:
    """A range is a slice, and ends where the object does."""
    content = bytes(range(200))
    storage.create("x", [content])
    for start, size_bytes in [
        *[(0, 200), (0, 1), (199, 1), (10, 20), (150, 500)],
        *[(0, 0), (7, 0), (200, 1), (201, 5), (10**9, 1)],
    ]:
        expected = content[start : start + size_bytes]
        assert expected == storage.read_range("x", start, size_bytes)
    storage.create("empty", [])
    assert storage.read_range("empty", 0, 10) == b""
    with pytest.raises(ObjectNotFoundError):
        storage.read_range("y", 0, 1)


@pytest.mark.parametrize("size_bytes", [0, 1, 3 << 20, 20 << 20])
def test_uploading(storage: Storage, tmp_path: Path, size_bytes: int) -> None:
    """A file becomes an object, whole, and never replaces one."""
    path = tmp_path / "file"
    path.write_bytes(random.Random(size_bytes).randbytes(size_bytes))
    assert storage.upload("a/x", path) == ObjectInfo("a/x", size_bytes)
    assert storage.read("a/x") == path.read_bytes()
    assert names_in(storage) == ["a/x"]
    path.write_bytes(b"other")
    with pytest.raises(ObjectExistsError):
        storage.upload("a/x", path)
    assert storage.info("a/x").size_bytes == size_bytes
    with pytest.raises(FileNotFoundError):
        storage.upload("a/y", tmp_path / "no file")
    assert names_in(storage) == ["a/x"]


def test_checksums(storage: Storage, tmp_path: Path) -> None:
    """A storage that tells checksums tells those of what it holds."""
    path = tmp_path / "file"
    path.write_bytes(bytes(20 << 20))
    storage.upload("large", path)
    storage.create("small", [b"123456789"])
    storage.append("log", b"12345", at=0)
    storage.append("log", b"6789", at=5)
    if not storage.capabilities.checksums:
        assert storage.info("small").crc32c is None
        return
    listed = {info.name: info.crc32c for info in storage.list()}
    for name in ("large", "small", "log"):
        content, found = storage.read(name), storage.info(name)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert listed[name] == found.crc32c
        assert found.crc32c in (None, f"{google_crc32c.value(content):08x}")
        assert found.md5 in (None, md5)
        assert (found.crc32c or found.md5) or name == "log"
    # The check value of CRC-32C.
    assert listed["small"] in (None, "e3069283")


@pytest.mark.parametrize("method", ["read", "map", "info", "delete"])
@pytest.mark.parametrize("name", ["nothing", "a/nothing", "a", "a/b/below"])
def test_missing_objects(storage: Storage, method: str, name: str) -> None:
    """What is missing, a folder, or below an object is an error of its own."""
    storage.create("a/b", [b"1"])
    with pytest.raises(ObjectNotFoundError) as caught:
        getattr(storage, method)(name)
    assert caught.value.name == name
    assert isinstance(caught.value, FileNotFoundError)
    assert str(caught.value) == (
        f"There is no object {name!r} in {storage.describe()}."
    )
    assert not storage.exists(name)
    assert names_in(storage) == ["a/b"]


def test_listing_by_prefix(storage: Storage) -> None:
    """A prefix is the beginning of a name, wherever in it that ends."""
    names = ["ab", "abc/1", "abc/2", "abd/1", "b/abc", "step-1/x", "step-10/x"]
    for name in names:
        storage.create(name, [b"1"])
    assert names_in(storage) == names
    for prefix in ["a", "ab", "abc", "abc/", "abc/1", "step-1", "step-1/", "q"]:
        expected = [name for name in names if name.startswith(prefix)]
        assert expected == names_in(storage, prefix)
    assert names_in(storage, "q/q/q") == []


def test_listing_nothing(storage: Storage) -> None:
    """An empty storage, or one that was never written to, lists nothing."""
    assert names_in(storage) == []
    assert names_in(storage, "a/b") == []
    assert storage.sweep() == ()
    assert storage.sweep("a") == ()


def test_deleting_while_listing(storage: Storage) -> None:
    """Whoever reads a listing may delete what it names."""
    for number in range(20):
        storage.create(f"folder-{number % 3}/{number}", [b"1"])
    for info in storage.list():
        storage.delete(info.name)
    assert names_in(storage) == []


def test_a_name_is_free_after_delete(storage: Storage) -> None:
    """What was deleted can be created anew, its neighbours stay."""
    storage.create("a/b", [b"1"])
    storage.create("a/c", [b"2"])
    storage.delete("a/b")
    assert not storage.exists("a/b")
    assert storage.read("a/c") == b"2"
    storage.delete("a/c")
    storage.create("a/b", [b"3"])
    assert storage.read("a/b") == b"3"


USES: dict[str, Callable[[Storage, str], object]] = {
    "create": lambda storage, name: storage.create(name, [b"1"]),
    "replace": lambda storage, name: storage.replace(name, b"1"),
    "upload": lambda storage, name: storage.upload(name, Path(__file__)),
    "swap": lambda storage, name: storage.swap(name, b"1", expected=b"1"),
    "append": lambda storage, name: storage.append(name, b"", at=1),
    "range": lambda storage, name: storage.read_range(name, 0, 1),
    "read": lambda storage, name: storage.read(name),
    "map": lambda storage, name: storage.map(name),
    "info": lambda storage, name: storage.info(name),
    "delete": lambda storage, name: storage.delete(name),
    "exists": lambda storage, name: storage.exists(name),
}


@pytest.mark.parametrize("method", USES)
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_names(storage: Storage, method: str, name: str) -> None:
    """Every method refuses names that climb, are absolute, hidden or odd."""
    with pytest.raises(UsageError, match="cannot name an object"):
        USES[method](storage, name)
    assert names_in(storage) == []


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(storage: Storage, name: str) -> None:
    """Every method takes a plain name."""
    for method in ("create", "replace", "read", "map", "info", "exists"):
        USES[method](storage, name)
    assert names_in(storage) == [name]
    storage.delete(name)


@pytest.mark.parametrize(
    "prefix", [name for name in BAD_NAMES if name not in ("", "a/")], ids=ascii
)
def test_bad_prefixes(storage: Storage, prefix: str) -> None:
    """A prefix that no name can begin with is refused, not searched for."""
    with pytest.raises(UsageError):
        list(storage.list(prefix))
    with pytest.raises(UsageError):
        storage.sweep(prefix)


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/b.c-"])
def test_good_prefixes(prefix: str) -> None:
    """What a name can begin with is a prefix."""
    assert check_prefix(prefix) == prefix


def test_what_storages_say_of_themselves(storage: Storage) -> None:
    """What outlives this machine says so, and each has a name for people."""
    inner = getattr(storage, "_storage", storage)
    told = storage.capabilities
    mounted = isinstance(inner, MountedStorage)
    weak = mounted or isinstance(inner, DriveStorage)
    remote = isinstance(inner, GcsStorage) or weak
    assert told.survives_machine == remote
    assert told.mapped_reads == isinstance(inner, LocalStorage)
    assert (told.confirms, told.swaps) == (not mounted, not weak)
    assert told.checksums == isinstance(inner, GcsStorage | DriveStorage)
    assert told.appends == (storage is not inner or not weak)
    assert storage.describe()


def test_storage_errors_are_of_the_standard_kinds() -> None:
    """Whoever catches OSError catches them, and they can be told apart."""
    for kind in (NoSpaceError, StorageUnavailableError, ObjectNotFoundError):
        assert issubclass(kind, StorageError)
        assert issubclass(kind, OSError)
    assert not issubclass(StorageUnavailableError, FileNotFoundError)
    error = NoSpaceError("a/b", where="here")
    assert error.errno == errno.ENOSPC
    assert error.name == "a/b"
    assert str(error) == (
        "No space left while writing 'a/b' in here. Free some space, or keep "
        "fewer checkpoints (--keep_last, --keep_every)."
    )
