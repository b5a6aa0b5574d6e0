"""Google Cloud Storage in bad times, through its real client."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import google.auth
import google_crc32c
import pytest
from google.auth.exceptions import DefaultCredentialsError, RefreshError

from colab_keras_bg.errors import (
    BackgroundTrainingError,
    ObjectNotFoundError,
    StorageRefusedError,
    StorageUnavailableError,
)
from colab_keras_bg.storage import Storage, gcs_parts
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.storage.retrying import Backoff, RetryingStorage
from colab_keras_bg.testing.loopback_gcs import Fault, LoopbackGcs

QUICK = Backoff(first_secs=0.0, most_secs=0.0, deadline_secs=20.0)
LARGE_BYTES = 40 << 20


@pytest.fixture
def server() -> Iterator[LoopbackGcs]:
    """A service that is like Google's."""
    with LoopbackGcs(buckets=["bucket"]) as server:
        yield server


_opened: list[GcsStorage] = []


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    """Closes what a test has opened."""
    yield
    while _opened:
        _opened.pop().close()


def opened(server: LoopbackGcs, bucket: str = "bucket") -> GcsStorage:
    """A storage in a bucket."""
    _opened.append(GcsStorage(bucket, "runs/a", endpoint=server.url))
    return _opened[-1]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that goes in parts."""
    path = tmp_path / "large"
    path.write_bytes(random.Random(0).randbytes(LARGE_BYTES))
    return path


CALLS: dict[str, Callable[[Storage], object]] = {
    "create": lambda s: s.create("new", [b"123"]),
    "replace": lambda s: s.replace("old", b"456"),
    "swap": lambda s: s.swap("old", b"456", expected=b"old"),
    "append": lambda s: s.append("old", b"456", at=3),
    "read": lambda s: s.read("old"),
    "read_range": lambda s: s.read_range("old", 1, 1),
    "info": lambda s: s.info("old"),
    "list": lambda s: sorted(i.name for i in s.list()),
    "delete": lambda s: s.delete("old"),
    "upload": lambda s: s.upload("new", Path(__file__)),
}


def contents(server: LoopbackGcs) -> dict[str, bytes]:
    """What is in the bucket, parts aside."""
    return {
        name: found.content
        for name, found in server.objects("bucket").items()
        if "/.parts/" not in name
    }


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "fault",
    [
        Fault("*", "status", status=429, times=2),
        Fault("*", "status", status=503, times=2),
        Fault("*", "status", status=500, times=2),
        Fault("*", "status", status=408, times=2),
        Fault("*", "reset", times=2),
        Fault("*", "lost_answer", times=2),
        Fault("*", "truncated_answer", times=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_what_passes_is_waited_out(
    server: LoopbackGcs, call: str, fault: Fault
) -> None:
    """Whatever happens to a request, in the end it is as if nothing had."""
    plain = opened(server)
    plain.create("old", [b"old"])
    expected_answer = CALLS[call](plain)
    expected = contents(server)
    for name in ("old", "new"):
        if plain.exists(name):
            plain.delete(name)
    plain.create("old", [b"old"])
    server.faults.add(fault)
    found = CALLS[call](RetryingStorage(opened(server), backoff=QUICK))
    assert expected_answer == found
    assert expected == contents(server)
    assert server.faults.struck.total() >= 1


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "cause"),
    [(401, "credentials are not accepted"), (403, "access is denied")],
)
def test_what_is_refused_says_what_to_do(
    server: LoopbackGcs, call: str, status: int, cause: str
) -> None:
    """Who is not let in is told so at once, and how to get in."""
    server.faults.add(Fault(status=status, times=None))
    storage = RetryingStorage(opened(server), backoff=QUICK)
    with pytest.raises(StorageRefusedError) as caught:
        CALLS[call](storage)
    assert cause in str(caught.value)
    assert str(caught.value).startswith("gs://bucket/runs/a cannot be used: ")
    assert ("Log in" if status == 401 else "role") in caught.value.advice


def test_403_of_too_many_requests_passes(server: LoopbackGcs) -> None:
    """Some limits are told of by the status of a refusal."""
    server.faults.add(
        Fault("get.metadata", "status", status=403, reason="rateLimitExceeded")
    )
    with pytest.raises(StorageUnavailableError) as caught:
        opened(server).info("x")
    assert not isinstance(caught.value, StorageRefusedError)


@pytest.mark.parametrize("call", CALLS)
def test_no_bucket_is_not_no_object(server: LoopbackGcs, call: str) -> None:
    """What is there cannot be told if the bucket is not."""
    with pytest.raises(StorageRefusedError, match="no bucket 'buckte'"):
        CALLS[call](opened(server, "buckte"))


@pytest.mark.parametrize("call", CALLS)
def test_no_network_is_not_no_object(server: LoopbackGcs, call: str) -> None:
    """Nor if nobody answers."""
    storage = opened(server)
    server.stop()
    with pytest.raises(StorageUnavailableError) as caught:
        CALLS[call](storage)
    assert not isinstance(caught.value, ObjectNotFoundError)
    assert "cannot be reached" in str(caught.value)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is sent, with what to do."""

    def none(*_: object, **__: object) -> None:
        raise DefaultCredentialsError("none were found")  # type: ignore[no-untyped-call]

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(google.auth, "default", none)
    with pytest.raises(StorageRefusedError) as caught:
        GcsStorage("bucket", "a")
    assert caught.value.cause == "there are no credentials"
    assert "authenticate_user" in caught.value.advice


def test_credentials_that_expire(
    server: LoopbackGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that cannot be renewed waits for a person."""
    storage = opened(server)

    def expired(*_: object, **__: object) -> None:
        raise RefreshError("invalid_grant")  # type: ignore[no-untyped-call]

    monkeypatch.setattr(storage._session, "request", expired)
    with pytest.raises(StorageRefusedError, match="expired"):
        storage.info("x")


def test_large_files_go_in_parts(server: LoopbackGcs, large: Path) -> None:
    """Several at once, put together, and the parts are gone."""
    storage = opened(server)
    info = storage.upload("x", large)
    assert contents(server) == {"runs/a/x": large.read_bytes()}
    assert info.crc32c == f"{google_crc32c.value(large.read_bytes()):08x}"
    assert server.requests["upload.media"] == 5
    assert server.requests["compose"] == 1
    assert list(server.objects("bucket")) == ["runs/a/x"]


def test_hundreds_of_parts(
    server: LoopbackGcs, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than can be composed at once are composed in two turns."""
    monkeypatch.setattr(gcs_parts, "_LEAST_BYTES", 1 << 18)
    monkeypatch.setattr(gcs_parts, "_MOST_BYTES", 1 << 18)
    opened(server).upload("x", large)
    assert contents(server) == {"runs/a/x": large.read_bytes()}
    assert server.requests["upload.media"] == 160
    assert server.requests["compose"] == 6
    assert list(server.objects("bucket")) == ["runs/a/x"]


def test_parts_that_arrived_are_not_sent_again(
    server: LoopbackGcs, large: Path
) -> None:
    """An upload that broke goes on where it was, in another process too."""
    server.faults.add(Fault("compose", "status", status=503, times=1))
    with pytest.raises(StorageUnavailableError):
        opened(server).upload("x", large)
    assert list(opened(server).list()) == []
    before = server.bytes_received
    opened(server).upload("x", large)
    assert contents(server) == {"runs/a/x": large.read_bytes()}
    assert server.bytes_received - before < LARGE_BYTES / 4


def test_another_files_parts_are_not_used(
    server: LoopbackGcs, large: Path
) -> None:
    """Parts of what the file was before are sent anew."""
    server.faults.add(Fault("compose", "status", status=503, times=1))
    with pytest.raises(StorageUnavailableError):
        opened(server).upload("x", large)
    content = bytearray(large.read_bytes())
    content[20 << 20] ^= 1
    large.write_bytes(content)
    opened(server).upload("x", large)
    assert contents(server) == {"runs/a/x": bytes(content)}


def test_sweeping_parts(server: LoopbackGcs, large: Path) -> None:
    """What a process has left that died while it sent is removed."""
    server.faults.add(Fault("compose", "status", status=503, times=1))
    storage = opened(server)
    storage.create("y", [b"1"])
    with pytest.raises(StorageUnavailableError):
        storage.upload("x", large)
    assert len(storage.sweep()) == 5
    assert list(server.objects("bucket")) == ["runs/a/y"]


@pytest.mark.parametrize("seed", range(4))
def test_large_files_under_random_faults(
    server: LoopbackGcs, large: Path, seed: int
) -> None:
    """Whatever strikes whichever request, what arrives is what was sent."""
    server.faults.random(seed, 0.15)
    storage = RetryingStorage(opened(server), backoff=QUICK)
    storage.upload("x", large)
    storage.append("log", b"12", at=0)
    storage.append("log", b"345", at=2)
    storage.swap("HEAD", b"1", expected=None)
    storage.swap("HEAD", b"2", expected=b"1")
    server.faults.clear()
    assert contents(server) == {
        "runs/a/x": large.read_bytes(),
        "runs/a/log": b"12345",
        "runs/a/HEAD": b"2",
    }


def test_a_byte_that_changes_on_its_way(server: LoopbackGcs) -> None:
    """What comes back is compared with its checksum."""
    storage = opened(server)
    storage.create("x", [b"123456"])
    server.faults.add(Fault("get.media", "corrupt_answer"))
    with pytest.raises(StorageUnavailableError):
        storage.read("x")
    assert storage.read("x") == b"123456"


def test_traffic_is_counted(server: LoopbackGcs, large: Path) -> None:
    """Requests, and bytes each way, as the service saw them."""
    storage = opened(server)
    storage.upload("x", large)
    storage.read_range("x", 0, 1000)
    counted = storage.traffic.to_json()
    assert (
        sum(counted["requests"].values())
        == sum(
            count
            for name, count in server.requests.items()
            if not name.startswith("batch.")
        )
        - server.requests["delete"]
    )
    assert LARGE_BYTES < counted["sent_bytes"] < LARGE_BYTES * 1.001
    assert counted["received_bytes"] > 1000


@pytest.mark.parametrize("after_bytes", [0, 1, 20])
@pytest.mark.parametrize("kind", ["truncated_answer", "corrupt_answer"])
@pytest.mark.parametrize("name", sorted(CALLS))
def test_answers_that_are_none(
    name: str, kind: str, after_bytes: int, server: LoopbackGcs
) -> None:
    """
    Whatever comes in place of an answer, what is raised is of our tree, and
    what is returned is right.
    """
    storage = opened(server)
    storage.replace("old", b"old")
    server.faults.add(Fault(kind=kind, after_bytes=after_bytes, times=1))
    with contextlib.suppress(BackgroundTrainingError):
        CALLS[name](storage)
    server.faults.clear()
    if name != "delete":
        assert storage.read("old") in (b"old", b"456", b"old456")


def test_problems_in_few_words(server: LoopbackGcs) -> None:
    """What the client says of any answer is left out of the message."""
    server.faults.add(Fault(status=503, times=None))
    with pytest.raises(StorageUnavailableError) as raised:
        opened(server).upload("new", Path(__file__))
    assert "answers with status 503" in str(raised.value)
    assert "Request failed" not in str(raised.value)
    assert "http://" not in str(raised.value)
