"""The loopback server of GCS: bytes going up and coming down."""

from __future__ import annotations

import io
import socket
import tracemalloc
from pathlib import Path

import pytest
import requests
from google.api_core import exceptions
from google.cloud import storage
from google.resumable_media import InvalidResponse
from google.resumable_media.common import RetryStrategy
from google.resumable_media.requests import ResumableUpload

from colab_keras_bg.testing.loopback_gcs import Fault, LoopbackGcs
from colab_keras_bg.testing.loopback_gcs.content import content_of

from .gcs import QUANTUM, QUICK, client_of, raw, reason_of

CONTENT = bytes(range(256)) * 4096 + b"the end"  # A little over 1 MiB.
UPLOAD = "/upload/storage/v1/b/bucket/o"


def begin(server: LoopbackGcs, query: str = "", **headers: str) -> str:
    """Begins a resumable upload of "a", and gives its path and query."""
    status, answered, body = raw(
        server.url,
        "POST",
        f"{UPLOAD}?uploadType=resumable&name=a{query}",
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )
    assert 200 == status, body
    return answered["Location"].removeprefix(server.url)


def send(
    server: LoopbackGcs, session: str, span: str, content: bytes = b""
) -> tuple[int, str | None]:
    """Sends a chunk: the status, and what the server has then."""
    status, headers, _ = raw(
        server.url,
        "PUT",
        session,
        content,
        {"Content-Range": f"bytes {span}"},
    )
    return status, headers["Range"]


# Up.


@pytest.mark.parametrize(
    ("kind", "options", "operations"),
    [
        ("multipart", {}, ["upload.multipart"]),
        (
            "one chunk",
            {"size": None, "chunk_size": 8 * QUANTUM},
            ["upload.resumable.last", "upload.resumable.start"],
        ),
        (
            "chunks",
            {"chunk_size": QUANTUM, "size": None},
            [
                "upload.resumable.chunk",
                "upload.resumable.last",
                "upload.resumable.start",
            ],
        ),
    ],
)
def test_upload(
    kind: str,
    options: dict[str, int | None],
    operations: list[str],
    server: LoopbackGcs,
    bucket: storage.Bucket,
) -> None:
    """
    Each way to upload leaves the content, its type and its metadata.
    """
    blob = bucket.blob("a/b", chunk_size=options.get("chunk_size"))
    blob.metadata = {"x": "ü"}
    size = options.get("size", len(CONTENT))
    blob.upload_from_file(
        io.BytesIO(CONTENT),
        size=size,
        content_type="text/x",
        checksum="crc32c",
        retry=None,
    )
    stored = server.objects()["a/b"]
    assert CONTENT == stored.content
    assert ("text/x", {"x": "ü"}) == (stored.content_type, stored.metadata)
    # The client may look at the bucket from a thread of its own.
    assert operations == sorted(server.requests.keys() - {"bucket.get"})
    assert server.bytes_received >= len(CONTENT)


def test_upload_by_media(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A single request may carry the bytes alone.
    """
    status, _, _ = raw(
        server.url,
        "POST",
        f"{UPLOAD}?uploadType=media&name=a%2Fb&ifGenerationMatch=0",
        CONTENT,
        {"Content-Type": "text/x"},
    )
    assert 200 == status
    assert CONTENT == server.objects()["a/b"].content
    assert "text/x" == bucket.get_blob("a/b").content_type
    assert 1 == server.requests["upload.media"]


def test_upload_in_http_chunks(server: LoopbackGcs) -> None:
    """
    A body may come with Transfer-Encoding: chunked.
    """
    import http.client

    connection = http.client.HTTPConnection(server.url.partition("//")[2])
    connection.request(
        "POST",
        f"{UPLOAD}?uploadType=media&name=a",
        iter([b"1" * 300_000, b"2", b"3"]),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert 200 == connection.getresponse().status
    connection.close()
    assert b"1" * 300_000 + b"23" == server.objects()["a"].content


@pytest.mark.parametrize("size", [0, 1, QUANTUM, 2 * QUANTUM, 2 * QUANTUM + 1])
def test_upload_of_a_stream(
    size: int, server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A resumable upload whose size shows at its end ends all the same.
    """
    blob = bucket.blob("a", chunk_size=QUANTUM)
    with blob.open("wb", ignore_flush=True) as file:
        file.write(CONTENT[:size])
    assert CONTENT[:size] == server.objects()["a"].content


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 10\r\n\r\n12345",
        b"Transfer-Encoding: chunked\r\n\r\na\r\n12345",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ],
)
def test_upload_whose_client_dies(head: bytes, server: LoopbackGcs) -> None:
    """
    A body that ends before it should is no object, and gets no answer.
    """
    address = server.url.rpartition("/")[2].split(":")
    with socket.create_connection((address[0], int(address[1])), 20) as client:
        client.sendall(
            f"POST {UPLOAD}?uploadType=media&name=a HTTP/1.1\r\n".encode()
            + head
        )
        client.shutdown(socket.SHUT_WR)
        assert b"" == client.recv(1)
    assert {} == server.objects()


def test_nothing_shows_before_the_last_byte(server: LoopbackGcs) -> None:
    """
    An object is invisible, and what it replaces visible, until it is whole.
    """
    raw(server.url, "POST", f"{UPLOAD}?uploadType=media&name=a", b"old")
    session, size = begin(server), QUANTUM + 5
    assert (308, f"bytes=0-{QUANTUM - 1}") == send(
        server, session, f"0-{QUANTUM - 1}/{size}", b"1" * QUANTUM
    )
    assert b"old" == server.objects()["a"].content
    assert (200, None) == send(
        server, session, f"{QUANTUM}-{size - 1}/{size}", b"2" * 5
    )
    assert b"1" * QUANTUM + b"2" * 5 == server.objects()["a"].content


def test_state_of_an_upload(server: LoopbackGcs) -> None:
    """
    An upload says what it has: nothing, a beginning, or all.
    """
    session = begin(server)
    assert (308, None) == send(server, session, "*/*")
    assert (308, None) == send(server, session, f"*/{QUANTUM + 1}")
    send(server, session, f"0-{QUANTUM - 1}/{QUANTUM + 1}", b"1" * QUANTUM)
    assert (308, f"bytes=0-{QUANTUM - 1}") == send(server, session, "*/*")
    send(server, session, f"{QUANTUM}-{QUANTUM}/{QUANTUM + 1}", b"2")
    assert (200, None) == send(server, session, "*/*")
    assert (200, None) == send(server, session, "0-0/*", b"3")
    assert QUANTUM + 1 == server.objects()["a"].size_bytes
    assert 1 == server.objects()["a"].metageneration


def test_bytes_sent_again_are_ignored(server: LoopbackGcs) -> None:
    """
    What is there is kept; what comes again for it is thrown away.
    """
    session = begin(server)
    send(server, session, f"0-{2 * QUANTUM - 1}/*", b"1" * 2 * QUANTUM)
    again = b"2" * 2 * QUANTUM + b"34"
    size = len(again)
    assert (200, None) == send(server, session, f"0-{size - 1}/{size}", again)
    assert b"1" * 2 * QUANTUM + b"34" == server.objects()["a"].content


@pytest.mark.parametrize(
    ("span", "size"),
    [
        (f"0-{QUANTUM}/*", QUANTUM + 1),
        ("0-0/2", 1),
        (f"{QUANTUM}-{2 * QUANTUM - 1}/*", QUANTUM),
        (f"0-{QUANTUM - 1}/*", QUANTUM - 1),
        ("0-1/2/3", 2),
        ("1-0/2", 2),
        ("0-2/2", 3),
    ],
    ids=[
        "no multiple",
        "too small",
        "a gap",
        "not the length",
        "no range",
        "backwards",
        "beyond the end",
    ],
)
def test_chunks_that_are_refused(
    span: str, size: int, server: LoopbackGcs
) -> None:
    """
    A chunk that does not fit is 400, and nothing of it is kept.
    """
    session = begin(server)
    assert (400, None) == send(server, session, span, b"1" * size)
    assert (308, None) == send(server, session, "*/*")
    assert {} == server.objects()


def test_size_that_was_announced(server: LoopbackGcs) -> None:
    """
    An upload is as large as it was said to be, or is refused.
    """
    session = begin(server, X_Upload_Content_Length="3")
    assert (400, None) == send(server, session, "0-1/2", b"12")
    status, _, body = raw(server.url, "PUT", session, b"12")
    assert (400, "invalid") == (status, reason_of(body))
    assert {} == server.objects()


def test_cancelled_upload(server: LoopbackGcs) -> None:
    """
    Cancelling is answered with 499, and nothing can be sent any more.
    """
    session = begin(server)
    send(server, session, f"0-{QUANTUM - 1}/*", b"1" * QUANTUM)
    assert 499 == raw(server.url, "DELETE", session)[0]
    assert (410, None) == send(server, session, "*/*")
    assert (410, None) == send(server, session, "0-0/1", b"1")
    assert 410 == raw(server.url, "DELETE", session)[0]
    assert {} == server.objects()
    unknown = f"{UPLOAD}?uploadType=resumable&upload_id=x"
    assert (404, None) == send(server, unknown, "*/*")


def test_precondition_at_the_end_of_an_upload(server: LoopbackGcs) -> None:
    """
    A resumable upload's preconditions are looked at when it begins, and
    again when it ends: what came in between wins.
    """
    session = begin(server, "&ifGenerationMatch=0")
    raw(server.url, "POST", f"{UPLOAD}?uploadType=media&name=a", b"other")
    assert (412, None) == send(server, session, "0-0/1", b"1")
    assert b"other" == server.objects()["a"].content
    status, _, body = raw(
        server.url,
        "POST",
        f"{UPLOAD}?uploadType=resumable&name=a&ifGenerationMatch=0",
    )
    assert (412, "conditionNotMet") == (status, reason_of(body))


def test_interrupted_chunk_is_sent_again(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    The client sends a broken chunk again, all of it: what was kept of the
    first is not doubled.
    """
    server.faults.add(
        Fault("upload.resumable.chunk", "reset", after_bytes=700_000, skip=1),
        Fault("upload.resumable.chunk", after_bytes=QUANTUM),
    )
    blob = bucket.blob("a", chunk_size=4 * QUANTUM)
    content = CONTENT * 4
    blob.upload_from_file(io.BytesIO(content), size=None, retry=QUICK)
    assert content == server.objects()["a"].content
    assert 1 == server.requests["upload.resumable.start"]
    assert {"reset": 1, "status": 1} == server.faults.struck


@pytest.mark.parametrize("kind", ["reset", "status"])
def test_interrupted_upload_goes_on(
    kind: str, server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A client that asks what arrived of a broken chunk needs to send no more
    than the rest: whole multiples of 256 KiB were kept.
    """
    server.faults.add(Fault("upload.resumable.last", kind, after_bytes=700_000))
    transport = requests.Session()
    upload = ResumableUpload(
        f"{server.url}{UPLOAD}?uploadType=resumable", 8 * QUANTUM
    )
    upload._retry_strategy = RetryStrategy(max_retries=0)
    upload.initiate(transport, io.BytesIO(CONTENT), {"name": "a"}, "text/x")
    with pytest.raises((requests.ConnectionError, InvalidResponse)):
        upload.transmit_next_chunk(transport)
    assert {} == server.objects()
    upload._make_invalid()
    upload.recover(transport)
    assert 2 * QUANTUM == upload.bytes_uploaded
    before = server.bytes_received
    upload.transmit_next_chunk(transport)
    transport.close()
    assert upload.finished
    assert CONTENT == server.objects()["a"].content
    assert len(CONTENT) - 2 * QUANTUM == server.bytes_received - before


# Checksums.


@pytest.mark.parametrize("checksum", ["crc32c", "md5"])
@pytest.mark.parametrize("chunk_size", [None, QUANTUM])
def test_content_that_changes_on_its_way(
    checksum: str,
    chunk_size: int | None,
    server: LoopbackGcs,
    bucket: storage.Bucket,
) -> None:
    """
    A checksum among the metadata that is not the content's is 400, and
    nothing is stored.
    """
    blob = bucket.blob("a", chunk_size=chunk_size)
    wrong = "AAAAAA==" if checksum == "crc32c" else "A" * 22 + "=="
    setattr(blob, "crc32c" if checksum == "crc32c" else "md5_hash", wrong)
    content = CONTENT if chunk_size else b"1"
    with pytest.raises(exceptions.BadRequest, match="doesn't match"):
        blob.upload_from_file(
            io.BytesIO(content), checksum=None, retry=None, size=len(content)
        )
    assert {} == server.objects()


@pytest.mark.parametrize("wrong", ["crc32c=AAAAAA==", f"md5={'A' * 22}=="])
def test_checksum_in_a_header(wrong: str, server: LoopbackGcs) -> None:
    """
    The same of a checksum in x-goog-hash, of which there may be two; the
    upload cannot be ended then.
    """
    content = content_of([b"1"])
    right = f"crc32c={content.stated_crc32c},md5={content.stated_md5()}"
    media = f"{UPLOAD}?uploadType=media&name=a"
    hashes = {"x-goog-hash": wrong}
    assert 400 == raw(server.url, "POST", media, b"1", hashes)[0]
    session = begin(server)
    whole = {"Content-Range": "bytes 0-0/1"}
    assert 400 == raw(server.url, "PUT", session, b"1", whole | hashes)[0]
    assert 410 == raw(server.url, "PUT", session, b"1", whole)[0]
    assert 400 == raw(server.url, "PUT", begin(server, **hashes), b"1")[0]
    assert {} == server.objects()
    hashes = {"x-goog-hash": right}
    assert 200 == raw(server.url, "POST", media, b"1", hashes)[0]


def test_multipart_that_is_none(server: LoopbackGcs) -> None:
    """
    A multipart body that is torn is 400.
    """
    for kind, body in [
        ("multipart/related", b"x"),
        ("multipart/related; boundary=b", b"--b\r\n\r\n{}\r\n--b--"),
        ("multipart/related; boundary=b", b"--b\r\n\r\n{\r\n--b\r\n\r\n1"),
    ]:
        status, _, _ = raw(
            server.url,
            "POST",
            f"{UPLOAD}?uploadType=multipart&name=a",
            body,
            {"Content-Type": kind},
        )
        assert 400 == status
    assert {} == server.objects()


def test_multipart_content_may_hold_anything(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    Line ends, dashes and the like in content are content.
    """
    for content in (b"", b"\r\n", b"\r\n--", b"--\r\n\r\n--=\r\n", b"\0\r"):
        bucket.blob("a").upload_from_string(content, retry=None)
        assert content == server.objects()["a"].content


# Down.


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 0), (5, 9), (300_000, None), (0, 10**9), (None, 3), (-3, None)],
)
def test_range(
    start: int | None, end: int | None, bucket: storage.Bucket
) -> None:
    """
    A range has its first and its last byte, as far as they are there.
    """
    blob = bucket.blob("a", chunk_size=QUANTUM)
    blob.upload_from_file(io.BytesIO(CONTENT))
    plain = bucket.blob("a")
    stop = None if end is None else end + 1
    assert CONTENT[start:stop] == plain.download_as_bytes(
        start=start, end=end, retry=None
    )


def test_range_beyond_the_end(bucket: storage.Bucket) -> None:
    """
    A range that begins after the end is 416.
    """
    blob = bucket.blob("a")
    blob.upload_from_string(b"123")
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=3, retry=None)


def test_ranges_on_the_wire(server: LoopbackGcs) -> None:
    """
    Status and Content-Range of a range, of the whole, and of nothing.
    """
    raw(server.url, "POST", f"{UPLOAD}?uploadType=media&name=a", b"0123")
    raw(server.url, "POST", f"{UPLOAD}?uploadType=media&name=b", b"")
    found = []
    for name, asked in [
        ("a", "bytes=1-2"),
        ("a", "bytes=2-"),
        ("a", "bytes=-1"),
        ("a", "bytes=-9"),
        ("a", "bytes=-0"),
        ("a", "bytes=4-"),
        ("a", "bytes=2-1"),
        ("a", "lines=1-2"),
        ("b", "bytes=0-"),
    ]:
        status, headers, body = raw(
            server.url,
            "GET",
            f"/storage/v1/b/bucket/o/{name}?alt=media",
            headers={"Range": asked},
        )
        content = body if status < 400 else b""
        found.append((status, headers["Content-Range"], content))
    assert found == [
        (206, "bytes 1-2/4", b"12"),
        (206, "bytes 2-3/4", b"23"),
        (206, "bytes 3-3/4", b"3"),
        (206, "bytes 0-3/4", b"0123"),
        (416, "bytes */4", b""),
        (416, "bytes */4", b""),
        (200, None, b"0123"),
        (200, None, b"0123"),
        (416, "bytes */0", b""),
    ]


def test_headers_of_a_download(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    Content comes with its checksums, generation and type.
    """
    blob = bucket.blob("a b")
    blob.upload_from_string(b"123", content_type="text/x")
    status, headers, _ = raw(
        server.url, "GET", "/download/storage/v1/b/bucket/o/a%20b?alt=media"
    )
    assert 200 == status
    assert f"crc32c={blob.crc32c},md5={blob.md5_hash}" == headers["x-goog-hash"]
    assert str(blob.generation) == headers["x-goog-generation"]
    assert ("text/x", "3") == (
        headers["Content-Type"],
        headers["x-goog-stored-content-length"],
    )


def test_missing_object_on_the_wire(server: LoopbackGcs) -> None:
    """
    A missing object is said in JSON, but in plain text where content was
    asked for.
    """
    target = "/storage/v1/b/bucket/o/a"
    status, _, body = raw(server.url, "GET", target)
    assert (404, "notFound") == (status, reason_of(body))
    status, _, body = raw(server.url, "GET", f"{target}?alt=media")
    assert (404, b"No such object: bucket/a") == (status, body)


def test_download_of_a_generation(bucket: storage.Bucket) -> None:
    """
    A client that has seen one generation does not get another's content.
    """
    blob = bucket.blob("a")
    blob.upload_from_string(b"1")
    bucket.blob("a").upload_from_string(b"2")
    with pytest.raises(exceptions.NotFound):
        blob.download_as_bytes()


def test_download_to_a_file(
    server: LoopbackGcs, bucket: storage.Bucket, tmp_path: Path
) -> None:
    """
    Files go up and come down whole, in one piece or in chunks.
    """
    (tmp_path / "up").write_bytes(CONTENT)
    bucket.blob("a").upload_from_filename(tmp_path / "up")
    for chunk_size in (None, QUANTUM):
        blob = bucket.blob("a", chunk_size=chunk_size)
        blob.download_to_filename(tmp_path / "down")
        assert CONTENT == (tmp_path / "down").read_bytes()
    assert server.bytes_sent >= 2 * len(CONTENT)


# Cost.


def test_memory_of_uploads_is_their_content(server: LoopbackGcs) -> None:
    """
    The server holds an upload once, and composing holds nothing more.
    """
    size = 64 * QUANTUM  # 16 MiB.
    client = client_of(server.url)
    bucket = client.bucket("bucket")
    content = bytes(size)
    tracemalloc.start()
    try:
        raw(server.url, "POST", f"{UPLOAD}?uploadType=media&name=a", content)
        raw(server.url, "PUT", begin(server, "2"), content)
        bucket.blob("b").compose([bucket.blob("a"), bucket.blob("a2")])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {"a", "a2", "b"} == set(server.objects())
    assert peak < 2 * size + 8 * QUANTUM


def test_memory_of_what_was_replaced_is_given_back(
    server: LoopbackGcs,
) -> None:
    """
    The server holds what is there, not what was there.
    """
    size = 16 * QUANTUM  # 4 MiB.
    content = bytes(size)
    tracemalloc.start()
    try:
        for _ in range(4):
            raw(server.url, "PUT", begin(server), content)
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == server.objects()["a"].size_bytes
    assert now < size + 8 * QUANTUM
