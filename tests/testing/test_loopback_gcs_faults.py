"""The loopback server of GCS: what goes wrong, and what stays right."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable

import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from waiting import until

from colab_keras_bg.testing.loopback_gcs import Fault, Faults, LoopbackGcs

from .gcs import QUANTUM, QUICK, client_of, raw, reason_of

CONTENT = bytes(range(256)) * 4096  # 1 MiB.


def put(bucket: storage.Bucket, name: str = "a", **options: object) -> None:
    """Creates an object by a multipart upload; one try unless said."""
    options.setdefault("retry", None)
    bucket.blob(name).upload_from_string(
        CONTENT, if_generation_match=0, **options
    )


def put_resumably(bucket: storage.Bucket, **options: object) -> None:
    """Creates an object by a resumable upload; one try unless said."""
    options.setdefault("retry", None)
    bucket.blob("a", chunk_size=2 * QUANTUM).upload_from_file(
        io.BytesIO(CONTENT), if_generation_match=0, **options
    )


# Refused.


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, GoogleAuthError),  # The client tries to get a new token.
        (403, exceptions.Forbidden),
        (404, exceptions.NotFound),
        (429, exceptions.TooManyRequests),
        (500, exceptions.InternalServerError),
        (503, exceptions.ServiceUnavailable),
    ],
)
def test_status(
    status: int,
    error: type[Exception],
    server: LoopbackGcs,
    bucket: storage.Bucket,
) -> None:
    """
    A request is answered with the status, and not carried out; the next is.
    """
    server.faults.add(Fault("upload.*", status=status))
    with pytest.raises(error):
        put(bucket)
    assert {} == server.objects()
    put(bucket)
    assert CONTENT == server.objects()["a"].content
    assert {"status": 1} == server.faults.struck


def test_body_of_a_quota(server: LoopbackGcs) -> None:
    """
    The body of an error gives the reason that was asked for.
    """
    server.faults.add(
        Fault(status=403, reason="quotaExceeded"), Fault(status=429)
    )
    for expected in ((403, "quotaExceeded"), (429, "rateLimitExceeded")):
        status, _, body = raw(server.url, "GET", "/storage/v1/b/bucket")
        assert expected == (status, reason_of(body))
        error = json.loads(body)["error"]
        assert status == error["code"]
        assert "usageLimits" == error["errors"][0]["domain"]


def test_where_and_how_often(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A fault strikes the operations and names it is meant for, after those
    it lets pass, as often as it says.
    """
    server.faults.add(Fault("upload.*", name="x/*", skip=1, times=2))
    outcomes = []
    for name in ["a", "x/1", "x/2", "b", "x/3", "x/4"]:
        try:
            put(bucket, name)
        except exceptions.ServiceUnavailable:
            outcomes.append(name)
    assert ["x/2", "x/3"] == outcomes
    assert "a" in [blob.name for blob in bucket.list_blobs()]


def test_name_in_a_resumable_upload(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    Each request of a resumable upload is known by the object's name.
    """
    for operation in ("start", "chunk"):
        server.faults.add(
            Fault(f"upload.resumable.{operation}", name="other"),
            Fault(f"upload.resumable.{operation}", name="a"),
        )
        with pytest.raises(exceptions.ServiceUnavailable):
            put_resumably(bucket)
        server.faults.clear()


def test_fault_without_end(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A fault without a number strikes until it is cleared.
    """
    server.faults.add(Fault(times=None))
    for _ in range(5):
        with pytest.raises(exceptions.ServiceUnavailable):
            put(bucket)
    server.faults.clear()
    put(bucket)


def test_unknown_fault() -> None:
    """
    A kind that there is not is refused, with those that there are.
    """
    with pytest.raises(ValueError, match=r"'nope'.*lost_answer"):
        Fault(kind="nope")


def test_refused_in_the_middle_of_a_body(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    503 after some bytes of the body: of an upload in one request, nothing
    is kept.
    """
    server.faults.add(Fault("upload.*", after_bytes=300_000))
    with pytest.raises(exceptions.ServiceUnavailable):
        put(bucket)
    assert {} == server.objects()
    put(bucket)


def test_part_of_a_batch_is_struck(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    One part of a batch may fail.
    """
    for name in "abc":
        put(bucket, name)
    server.faults.add(
        Fault("delete", "reset"), Fault("delete", status=503, name="b")
    )
    with bucket.client.batch(raise_exception=False) as batch:
        for name in "abc":
            bucket.blob(name).delete()
    assert [204, 503, 204] == [part.status_code for part in batch._responses]
    assert ["b"] == list(server.objects())


# Broken connections.


@pytest.mark.parametrize("upload", [put, put_resumably])
@pytest.mark.parametrize("after_bytes", [None, 0, 300_000, 10**9])
def test_reset(
    after_bytes: int | None,
    upload: Callable[..., None],
    server: LoopbackGcs,
    bucket: storage.Bucket,
) -> None:
    """
    The connection is reset before the request is carried out, whenever;
    another try succeeds.
    """
    server.faults.add(Fault("upload.*", "reset", after_bytes=after_bytes))
    with pytest.raises(requests.ConnectionError):
        upload(bucket)
    assert {} == server.objects()
    server.faults.add(Fault("upload.*", "reset", after_bytes=after_bytes))
    upload(bucket, retry=QUICK)
    assert CONTENT == server.objects()["a"].content


def test_lost_answer(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    Carried out, but nobody hears of it: the client's second try gets 412,
    although the object is there and its own.
    """
    server.faults.add(Fault("upload.*", "lost_answer"))
    with pytest.raises(exceptions.PreconditionFailed):
        put(bucket, retry=QUICK)
    assert CONTENT == server.objects()["a"].content
    assert 2 == server.requests["upload.multipart"]


def test_lost_answer_of_other_verbs(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A deletion whose answer is lost is 404 the second time, and a
    composition 412.
    """
    put(bucket)
    blob, whole = bucket.blob("a"), bucket.blob("whole")
    server.faults.add(Fault("compose", "lost_answer"))
    with pytest.raises(exceptions.PreconditionFailed):
        whole.compose([blob, blob], if_generation_match=0, retry=QUICK)
    assert 2 * CONTENT == server.objects()["whole"].content
    server.faults.add(Fault("delete", "lost_answer"))
    with pytest.raises(exceptions.NotFound):
        blob.delete(retry=QUICK)
    assert ["whole"] == list(server.objects())


def test_lost_last_answer_of_a_resumable_upload(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A resumable upload remembers that it has ended: the second try is told
    of the object.
    """
    server.faults.add(Fault("upload.resumable.last", "lost_answer"))
    blob = bucket.blob("a", chunk_size=8 * QUANTUM)
    blob.upload_from_file(
        io.BytesIO(CONTENT), if_generation_match=0, retry=QUICK
    )
    assert server.objects()["a"].generation == blob.generation
    assert 2 == server.requests["upload.resumable.last"]


@pytest.mark.parametrize("upload", [put, put_resumably])
def test_truncated_answer(
    upload: Callable[..., None], server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    An answer that ends early, unnoticed by HTTP, is no JSON; the object is
    there.
    """
    server.faults.add(
        Fault("upload.multipart", "truncated_answer"),
        Fault("upload.resumable.last", "truncated_answer"),
        Fault("upload.resumable.status", "truncated_answer"),
    )
    with pytest.raises(requests.exceptions.JSONDecodeError):
        upload(bucket, retry=QUICK)
    assert CONTENT == server.objects()["a"].content


def test_broken_answer(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    An answer that is shorter than it said is noticed; the object is there.
    """
    server.faults.add(Fault("upload.*", "broken_answer", after_bytes=9))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        put(bucket)
    assert CONTENT == server.objects()["a"].content


# Downloads.


def test_broken_download(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A download that breaks after some bytes goes on where it broke.
    """
    put(bucket)
    server.faults.add(Fault("get.media", "broken_answer", after_bytes=600_000))
    file = io.BytesIO()
    before = server.bytes_sent
    bucket.blob("a").download_to_file(file, retry=QUICK)
    assert CONTENT == file.getvalue()
    assert 2 == server.requests["get.media"]
    assert server.bytes_sent - before < len(CONTENT) + 200_000


def test_corrupt_download(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    One wrong byte of a download is found by its checksum, but not in a
    range.
    """
    put(bucket)
    corrupt = Fault("get.media", "corrupt_answer", after_bytes=700_001)
    server.faults.add(corrupt)
    blob = bucket.blob("a")
    with pytest.raises(Exception, match="Checksum mismatch"):
        blob.download_as_bytes(checksum="crc32c")
    server.faults.add(corrupt)
    found = blob.download_as_bytes(start=0, end=len(CONTENT) - 1)
    wrong = [i for i in range(len(CONTENT)) if found[i] != CONTENT[i]]
    assert [700_001] == wrong
    assert CONTENT == blob.download_as_bytes()


# Stalls.


@pytest.mark.parametrize("kind", ["stall", "stalled_answer"])
def test_stall(kind: str, server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A request is held before it is carried out, or its answer after that,
    until it is released.
    """
    server.faults.add(Fault("upload.*", kind))
    thread = threading.Thread(target=put, args=(bucket,))
    thread.start()
    assert server.faults.wait_until_held(within_secs=20)
    assert ("a" in server.objects()) == (kind == "stalled_answer")
    assert thread.is_alive()
    server.faults.release()
    thread.join(20)
    assert not thread.is_alive()
    assert CONTENT == server.objects()["a"].content


def test_stall_that_passes(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A stall may be over by itself, or with the faults.
    """
    server.faults.add(Fault("upload.*", "stall", secs=0.01))
    put(bucket)
    server.faults.add(Fault("delete", "stall"))
    thread = threading.Thread(target=bucket.blob("a").delete)
    thread.start()
    assert server.faults.wait_until_held(within_secs=20)
    server.faults.clear()
    thread.join(20)
    assert {} == server.objects()


def test_client_that_gives_up(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    What a client has given up waiting for may happen later, and the answer
    to it is lost.
    """
    server.faults.add(Fault("upload.*", "stall"))
    with pytest.raises(requests.exceptions.Timeout):
        put(bucket, timeout=0.05)
    assert {} == server.objects()
    server.faults.release()
    until(lambda: "a" in server.objects(), what="the late upload")
    with pytest.raises(exceptions.PreconditionFailed):
        put(bucket)
    assert CONTENT == server.objects()["a"].content


# The network.


def test_network_that_goes(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    Without network connections are refused; with it everything is there,
    at the same port, and the client goes on.
    """
    put(bucket)
    url = server.url
    server.stop()
    with pytest.raises(requests.ConnectionError, match="refused"):
        bucket.blob("a").download_as_bytes(retry=None)
    server.stop()  # Again, to no effect.
    server.start()
    assert url == server.url
    assert CONTENT == bucket.blob("a").download_as_bytes(retry=None)


@pytest.mark.parametrize("operation", ["upload.multipart", "delete"])
def test_network_that_goes_while_somebody_waits(
    operation: str, server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A connection that is open breaks, and what was held is not carried out.
    """
    put(bucket, "there")
    before = server.objects()
    server.faults.add(Fault(operation, "stall"))
    errors: list[Exception] = []

    def try_once() -> None:
        try:
            if operation == "delete":
                bucket.blob("there").delete(retry=None)
            else:
                put(bucket)
        except requests.ConnectionError as error:
            errors.append(error)

    thread = threading.Thread(target=try_once)
    thread.start()
    assert server.faults.wait_until_held(within_secs=20)
    server.stop()
    thread.join(20)
    assert 1 == len(errors)
    assert before == server.objects()
    server.start()
    put(bucket)


def test_two_servers(server: LoopbackGcs) -> None:
    """
    Servers know nothing of each other, and a port is taken by one.
    """
    with LoopbackGcs() as other:
        put(client_of(other.url).bucket("bucket"))
        assert {} == server.objects()
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        LoopbackGcs(port=port)
    server.stop()
    with pytest.raises(OSError, match="in use"):
        LoopbackGcs(port=port).start()


# At random.


def outcomes_of(seed: int, rate: float) -> list[str]:
    """What strikes 200 requests."""
    faults = Faults.random(seed, rate)
    return [
        fault.kind if (fault := faults.take("upload.media", "a")) else ""
        for _ in range(200)
    ]


def test_random_faults_are_drawn_from_the_seed() -> None:
    """
    The same seed strikes the same, another seed others, and about as many
    as the rate says; all kinds come.
    """
    assert outcomes_of(1, 0.3) == outcomes_of(1, 0.3)
    assert outcomes_of(1, 0.3) != outcomes_of(2, 0.3)
    struck = Counter(outcomes_of(1, 0.3))
    assert 40 < 200 - struck[""] < 80
    assert {
        "",
        "status",
        "reset",
        "lost_answer",
        "truncated_answer",
        "broken_answer",
    } == struck.keys()
    assert [""] * 200 == outcomes_of(1, 0.0)


def test_random_faults_do_not_depend_on_the_order() -> None:
    """
    What strikes an object's requests does not depend on other requests.
    """
    faults = Faults.random(1, 0.3)
    struck = []
    for i in range(200):
        faults.take("list", f"{i}")
        fault = faults.take("upload.media", "a")
        struck.append(fault.kind if fault else "")
    assert outcomes_of(1, 0.3) == struck


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_torn_by_random_faults(seed: int) -> None:
    """
    Whatever strikes, an object is whole or not there, and in the end it is
    there.
    """
    with LoopbackGcs(faults=Faults.random(seed, 0.3)) as server:
        bucket = client_of(server.url).bucket("bucket")
        for i in range(6):
            upload = put_resumably if i % 2 else put
            while "a" not in server.objects():
                try:
                    upload(bucket, retry=QUICK)
                except (
                    exceptions.PreconditionFailed,
                    requests.exceptions.JSONDecodeError,
                ):
                    assert "a" in server.objects()
                except (
                    exceptions.GoogleAPICallError,
                    requests.RequestException,
                ):
                    pass
            assert CONTENT == server.objects()["a"].content
            server.faults.strike_randomly(seed, 0)
            bucket.blob("a").delete()
            server.faults.strike_randomly(seed + i, 0.3)
        assert sum(server.faults.struck.values()) >= 3


# In a process of its own.


def test_process_of_its_own() -> None:
    """
    A server in another process does the same, with the same faults, and its
    network goes and comes.
    """
    with LoopbackGcs.spawn("--bucket=other", "--forbidden=secret") as server:
        bucket = client_of(server.url).bucket("other")
        server.faults.add(Fault("upload.*", "lost_answer"))
        with pytest.raises(exceptions.PreconditionFailed):
            put(bucket, retry=QUICK)
        assert {"lost_answer": 1} == server.faults.struck
        assert 2 == server.requests["upload.multipart"]
        assert server.bytes_received > 2 * len(CONTENT)
        server.faults.add(Fault(times=None))
        with pytest.raises(exceptions.ServiceUnavailable):
            put(bucket)
        server.faults.clear()
        server.stop()
        with pytest.raises(requests.ConnectionError):
            put(bucket, "b")
        server.start()
        assert CONTENT == bucket.blob("a").download_as_bytes()
        assert server.bytes_sent > len(CONTENT)
        server.faults.strike_randomly(1, 1.0)
        with pytest.raises((exceptions.GoogleAPICallError, OSError)):
            put(bucket, "c")
        server.faults.strike_randomly(1, 0.0)
        with pytest.raises(exceptions.Forbidden):
            bucket.client.bucket("secret").reload()


def test_orders_that_make_no_sense(server: LoopbackGcs) -> None:
    """
    An order from another process that is not understood is 400.
    """
    for order in (
        b"x",
        b"[]",
        b'{"ad": []}',
        b'{"add": [{"kind": "nope"}]}',
        b'{"add": [{"nope": 1}]}',
        b'{"random": {"nope": 1}}',
    ):
        assert 400 == raw(server.url, "POST", "/_faults", order)[0]
    assert 404 == raw(server.url, "GET", "/_nope")[0]
    assert {} == server.requests


def started() -> subprocess.Popen[str]:
    """The program, once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "colab_keras_bg.testing.loopback_gcs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    return process


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, None])
def test_program_ends(sent: signal.Signals | None) -> None:
    """
    The program ends well at SIGTERM, at SIGINT, and when its standard input
    is closed.
    """
    process = started()
    if sent:
        process.send_signal(sent)
        assert 0 == process.wait(20)
    process.communicate(timeout=20)
    assert 0 == process.returncode


def test_program_ends_with_its_parent() -> None:
    """
    The program ends when the process that started it is killed, even if
    somebody still holds its standard input.
    """
    reading, writing = os.pipe()
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-m',\n"
            "    'colab_keras_bg.testing.loopback_gcs'],\n"
            "    stdin=sys.stdin)\n"
            "child.wait()\n",
        ],
        stdin=reading,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(reading)
    assert parent.stdout
    assert parent.stdout.readline().startswith("http://")
    parent.kill()
    parent.wait(20)
    assert "" == parent.stdout.read()  # The child has ended, too.
    parent.stdout.close()
    os.close(writing)
