"""The loopback server of GCS: objects, seen through the real client."""

from __future__ import annotations

import base64
import hashlib
import threading

import google_crc32c
import pytest
from google.api_core import exceptions
from google.cloud import storage

from colab_keras_bg.testing.loopback_gcs import Fault, LoopbackGcs
from colab_keras_bg.testing.loopback_gcs.content import combined_crc32c

from .gcs import QUICK, client_of, raw, reason_of

NAMES = ["a", "a b", "a/b/c", "ü/日本", "100%", "x?y#z&=+", "a%2Fb", "~'\"*"]


def put(
    bucket: storage.Bucket, name: str, content: bytes = b"1", **options: object
) -> storage.Blob:
    """Uploads an object, with one try."""
    blob = bucket.blob(name)
    blob.upload_from_string(content, retry=None, **options)
    return blob


def crc32c_of(content: bytes) -> str:
    """Its CRC-32C as the service states it."""
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def md5_of(content: bytes) -> str:
    """Its MD5 as the service states it."""
    return base64.b64encode(hashlib.md5(content).digest()).decode()  # noqa: S324


# Buckets.


def test_bucket_is_found(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A bucket that is there can be got, looked up, and listed.
    """
    client = bucket.client
    assert "bucket" == client.get_bucket("bucket").name
    assert "bucket" == client.lookup_bucket("bucket").name
    assert ["bucket"] == [found.name for found in client.list_buckets()]
    assert ["storage.objects.get"] == bucket.test_iam_permissions(
        ["storage.objects.get"]
    )
    assert 2 == server.requests["bucket.get"]


def test_missing_bucket(bucket: storage.Bucket) -> None:
    """
    Whatever is asked of a bucket that is not there is 404 and says so.
    """
    missing = bucket.client.bucket("missing")
    said = "The specified bucket does not exist"
    assert not missing.exists()
    with pytest.raises(exceptions.NotFound, match=said):
        missing.reload()
    with pytest.raises(exceptions.NotFound, match=said):
        put(missing, "a")
    with pytest.raises(exceptions.NotFound, match=said):
        list(missing.list_blobs())
    with pytest.raises(exceptions.NotFound):
        missing.blob("a").download_as_bytes()


def test_forbidden_bucket(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    Whatever is asked of a forbidden bucket is 403.
    """
    secret = bucket.client.bucket("secret")
    with pytest.raises(exceptions.Forbidden):
        secret.reload()
    with pytest.raises(exceptions.Forbidden):
        put(secret, "a")
    _, _, body = raw(server.url, "GET", "/storage/v1/b/secret")
    assert "forbidden" == reason_of(body)


def test_environment_leads_here(
    server: LoopbackGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With the server's environment a plain client needs no credentials.
    """
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    client = storage.Client(project="none")
    client._bucket_metadata_cache = None  # See gcs.py.
    put(client.bucket("bucket"), "a", b"12")
    assert b"12" == client.bucket("bucket").blob("a").download_as_bytes()
    assert b"12" == server.objects("bucket")["a"].content


# Objects.


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    An object may be called anything: every verb finds it.
    """
    blob = put(bucket, name, b"12")
    assert [name] == list(server.objects())
    assert b"12" == blob.download_as_bytes()
    blob.reload()
    assert name == blob.name
    composed = bucket.blob(f"{name} twice")
    composed.compose([blob, blob])
    assert b"1212" == composed.download_as_bytes()
    copy = bucket.copy_blob(blob, bucket, f"{name} copied")
    assert [name, *sorted([copy.name, composed.name])] == [
        found.name for found in bucket.list_blobs(prefix=name)
    ]
    blob.delete()
    assert name not in server.objects()


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "x" * 1025])
def test_names_that_are_refused(name: str, server: LoopbackGcs) -> None:
    """
    Some names the service does not take.
    """
    status, _, body = raw(
        server.url,
        "POST",
        "/upload/storage/v1/b/bucket/o?uploadType=media&name="
        + name.replace("\n", "%0A"),
    )
    assert (400, "invalid") == (status, reason_of(body))
    assert {} == server.objects()


def test_what_is_said_of_an_object(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    Size, checksums, media type and custom metadata are those of the upload,
    and the snapshot says the same.
    """
    blob = bucket.blob("a")
    blob.metadata = {"attempt": "3", "ключ": "ü"}
    blob.cache_control = "no-store"
    blob.upload_from_string(b"123", content_type="text/x")
    found = bucket.get_blob("a")
    assert (3, crc32c_of(b"123"), md5_of(b"123")) == (
        found.size,
        found.crc32c,
        found.md5_hash,
    )
    assert ("text/x", "no-store") == (found.content_type, found.cache_control)
    assert {"attempt": "3", "ключ": "ü"} == found.metadata
    assert found.time_created.tzinfo
    stored = server.objects()["a"]
    assert (b"123", found.generation, 1, found.crc32c, found.md5_hash) == (
        stored.content,
        stored.generation,
        stored.metageneration,
        stored.crc32c,
        stored.md5,
    )
    assert found.metadata == stored.metadata
    assert ("text/x", None) == (stored.content_type, stored.component_count)


def test_generations_grow(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    New content has a greater generation, even after a deletion; its
    metageneration is 1 again.
    """
    first = put(bucket, "a")
    first.metadata = {"x": "1"}
    first.patch()
    assert 2 == first.metageneration
    second = put(bucket, "a")
    second.delete()
    third = put(bucket, "a")
    assert first.generation < second.generation < third.generation
    assert 1 == third.metageneration
    assert bucket.get_blob("a", generation=second.generation) is None
    assert bucket.get_blob("a", generation=third.generation) is not None


def test_patch_and_update(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A patch merges custom metadata and a null removes a pair; an update
    replaces all.
    """
    blob = bucket.blob("a")
    blob.metadata = {"x": "1", "y": "1"}
    blob.upload_from_string(b"1", content_type="text/x")
    blob.metadata = {"x": "2", "y": None}
    blob.patch()
    assert {"x": "2"} == bucket.get_blob("a").metadata
    assert "text/x" == bucket.get_blob("a").content_type
    raw(server.url, "PUT", "/storage/v1/b/bucket/o/a", b'{"metadata":{}}')
    assert not bucket.get_blob("a").metadata
    assert bucket.get_blob("a").content_type is None
    assert 3 == bucket.get_blob("a").metageneration


def test_deletion(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A deleted object is gone, and to delete it again is 404.
    """
    blob = put(bucket, "a")
    blob.delete()
    assert {} == server.objects()
    assert not blob.exists()
    with pytest.raises(exceptions.NotFound, match="No such object: bucket/a"):
        blob.delete()


# Preconditions.


def verbs(bucket: storage.Bucket) -> dict[str, object]:
    """Each verb that takes an object's preconditions, as a function."""
    blob, other = bucket.blob("a"), bucket.blob("b")
    big = bucket.blob("a", chunk_size=QUANTUM_AND_MORE)
    return {
        "media": lambda **o: put(bucket, "a", **o),
        "resumable": lambda **o: _upload_resumably(big, **o),
        "compose": lambda **o: blob.compose([other], **o),
        "rewrite": lambda **o: blob.rewrite(other, **o),
        "copy": lambda **o: bucket.copy_blob(other, bucket, "a", **o),
        "reload": lambda **o: blob.reload(**o),
        "download": lambda **o: blob.download_as_bytes(**o),
        "patch": lambda **o: blob.patch(**o),
        "delete": lambda **o: blob.delete(**o),
    }


QUANTUM_AND_MORE = 512 << 10
ALL_VERBS = list(verbs(storage.Bucket(None, "bucket")))
# The client takes no more than these for the others.
READS = ["reload", "download"]


def _upload_resumably(blob: storage.Blob, **options: object) -> None:
    import io

    blob.upload_from_file(io.BytesIO(b"1" * 600_000), retry=None, **options)


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_generation_must_match(
    verb: str, server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    Each verb is refused with 412 under a generation that is not the
    object's, changes nothing then, and is carried out under the right one.
    """
    put(bucket, "b", b"2")
    generation = put(bucket, "a", b"1").generation
    before = server.objects()
    carry_out = verbs(bucket)[verb]
    for wrong in (generation + 1, 0):
        with pytest.raises(exceptions.PreconditionFailed):
            carry_out(if_generation_match=wrong)
    assert before == server.objects()
    carry_out(if_generation_match=generation)
    assert (before == server.objects()) == (verb in READS)


@pytest.mark.parametrize("verb", ALL_VERBS)
def test_metageneration_must_match(
    verb: str, server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    The same of the metageneration.
    """
    put(bucket, "b", b"2")
    put(bucket, "a", b"1").patch()
    before = server.objects()
    metageneration = before["a"].metageneration
    carry_out = verbs(bucket)[verb]
    with pytest.raises(exceptions.PreconditionFailed):
        carry_out(if_metageneration_match=metageneration + 1)
    assert before == server.objects()
    carry_out(if_metageneration_match=metageneration)
    assert (before == server.objects()) == (verb in READS)


@pytest.mark.parametrize(
    ("verb", "key"),
    [
        (verb, key)
        for verb in ALL_VERBS
        for key in ("if_generation_not_match", "if_metageneration_not_match")
        # Compose knows neither, and the client misspells the second in
        # uploads: ifMetaGenerationNotMatch.
        if verb != "compose"
        and (verb, key[3:7]) not in [("media", "meta"), ("resumable", "meta")]
    ],
)
def test_generation_must_not_match(
    verb: str, key: str, server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    What must differ and does not is 304 for a read and 412 for a change.
    """
    put(bucket, "b", b"2")
    put(bucket, "a", b"1")
    before = server.objects()
    stored = before["a"]
    same = (
        stored.generation
        if key == "if_generation_not_match"
        else stored.metageneration
    )
    carry_out = verbs(bucket)[verb]
    expected = (
        exceptions.NotModified
        if verb in READS
        else exceptions.PreconditionFailed
    )
    with pytest.raises(expected):
        carry_out(**{key: same})
    assert before == server.objects()
    carry_out(**{key: same + 1})
    assert (before == server.objects()) == (verb in READS)


@pytest.mark.parametrize(
    "verb", ["media", "resumable", "compose", "rewrite", "copy"]
)
def test_creation_only(
    verb: str, server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    Under generation 0 an object is created, and never replaced.
    """
    put(bucket, "b", b"2")
    carry_out = verbs(bucket)[verb]
    carry_out(if_generation_match=0)
    before = server.objects()
    with pytest.raises(exceptions.PreconditionFailed):
        carry_out(if_generation_match=0)
    assert before == server.objects()


@pytest.mark.parametrize("verb", ["media", "resumable"])
def test_sixteen_racing_creators(
    verb: str, server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    Of 16 that create one object at once, one wins and the others get 412.
    """
    outcomes: list[str] = []
    # All are held before they are carried out, and let go at once.
    server.faults.add(
        Fault("upload.multipart", "stall", times=16),
        Fault("upload.resumable.last", "stall", times=16),
        Fault("upload.resumable.status", "stall", times=16),
    )

    def create() -> None:
        client = client_of(server.url)
        carry_out = verbs(client.bucket("bucket"))[verb]
        try:
            carry_out(if_generation_match=0)
        except exceptions.PreconditionFailed:
            outcomes.append("lost")
        else:
            outcomes.append("won")
        client.close()

    threads = [threading.Thread(target=create) for _ in range(16)]
    for thread in threads:
        thread.start()
    assert server.faults.wait_until_held(16, within_secs=20)
    server.faults.release()
    for thread in threads:
        thread.join()
    assert ["lost"] * 15 + ["won"] == sorted(outcomes)
    assert ["a"] == list(server.objects())


def test_precondition_that_is_no_number(server: LoopbackGcs) -> None:
    """
    A precondition that makes no sense is 400, not ignored.
    """
    status, _, body = raw(
        server.url, "GET", "/storage/v1/b/bucket/o/a?ifGenerationMatch=x"
    )
    assert (400, "invalid") == (status, reason_of(body))


# Composing and copying.


@pytest.mark.parametrize("sizes", [(0, 0), (1, 0), (0, 5), (3, 70_001), (1, 1)])
def test_combined_crc32c(sizes: tuple[int, int]) -> None:
    """
    The checksum of two strings of bytes follows from theirs.
    """
    first, second = (bytes(range(256)) * 300)[: sizes[0]], b"x" * sizes[1]
    assert google_crc32c.value(first + second) == combined_crc32c(
        google_crc32c.value(first), google_crc32c.value(second), len(second)
    )


def test_composition(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A composed object holds its sources in order, has a CRC-32C, a count of
    components, no MD5, and the metadata that was asked for.
    """
    parts = [put(bucket, f"part{i}", b"%d" % i * 1000) for i in range(32)]
    whole = bucket.blob("whole")
    whole.metadata = {"attempt": "3"}
    whole.content_type = "text/x"
    whole.compose(parts, if_generation_match=0)
    content = b"".join(b"%d" % i * 1000 for i in range(32))
    assert content == whole.download_as_bytes(checksum="crc32c")
    assert crc32c_of(content) == whole.crc32c
    assert (None, 32) == (whole.md5_hash, whole.component_count)
    found = bucket.get_blob("whole")
    assert ({"attempt": "3"}, "text/x") == (found.metadata, found.content_type)
    assert server.objects()["whole"].md5 is None
    twice = bucket.blob("twice")
    twice.compose([whole, whole])
    assert 64 == twice.component_count


def test_composition_of_too_many(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    More than 32 sources are refused.
    """
    part = put(bucket, "part")
    with pytest.raises(exceptions.BadRequest, match="33"):
        bucket.blob("whole").compose([part] * 33)
    assert ["part"] == list(server.objects())


def test_composition_of_what_is_missing(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A source that is not there is 404, and nothing is made.
    """
    part = put(bucket, "part")
    with pytest.raises(exceptions.NotFound):
        bucket.blob("whole").compose([part, bucket.blob("missing")])
    assert ["part"] == list(server.objects())


def test_composition_of_what_has_changed(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A source whose generation must be another is 412; one of which another
    generation is meant is 404.
    """
    old = put(bucket, "part").generation
    new = put(bucket, "part", b"2").generation
    whole, unpinned = bucket.blob("whole"), bucket.blob("part")
    with pytest.raises(exceptions.PreconditionFailed):
        whole.compose([unpinned], if_source_generation_match=[old])
    with pytest.raises(exceptions.NotFound):
        whole.compose([bucket.blob("part", generation=old)])
    assert ["part"] == list(server.objects())
    whole.compose([unpinned], if_source_generation_match=[new])
    assert b"2" == whole.download_as_bytes()


def test_appending(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    Composing an object with itself and a new part appends, under the
    generation that it had; a second that appends to the same gets 412.
    """
    log = put(bucket, "log", b"0")
    for i in range(1, 50):
        before = log.generation
        part = put(bucket, "part", b"%d" % i)
        log.compose([log, part], if_generation_match=before)
    with pytest.raises(exceptions.PreconditionFailed):
        log.compose([log, part], if_generation_match=before)
    content = "".join(map(str, range(50))).encode()
    assert content == server.objects()["log"].content
    assert crc32c_of(content) == log.crc32c


def test_rewrite_in_one_call(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A rewrite copies content and metadata, under the source's generation.
    """
    source = bucket.blob("a")
    source.metadata = {"x": "1"}
    source.upload_from_string(b"12", content_type="text/x")
    target = bucket.blob("b")
    with pytest.raises(exceptions.PreconditionFailed):
        target.rewrite(source, if_source_generation_match=1)
    assert (None, 2, 2) == target.rewrite(
        source, if_source_generation_match=source.generation
    )
    found = bucket.get_blob("b")
    assert (md5_of(b"12"), {"x": "1"}) == (found.md5_hash, found.metadata)


def test_rewrite_in_several_calls() -> None:
    """
    A rewrite that takes several calls gives a token each time, and the
    object is there after the last.
    """
    with LoopbackGcs(rewrite_bytes_per_call=1 << 20) as server:
        bucket = client_of(server.url).bucket("bucket")
        source = put(bucket, "a", b"1" * 2_500_000)
        target = bucket.blob("b")
        token, *sizes = target.rewrite(source)
        assert [1 << 20, 2_500_000] == sizes
        token, *sizes = target.rewrite(source, token=token)
        assert [2 << 20, 2_500_000] == sizes
        assert ["a"] == list(server.objects())
        assert (None, 2_500_000, 2_500_000) == target.rewrite(
            source, token=token
        )
        assert server.objects()["a"].content == server.objects()["b"].content
        with pytest.raises(exceptions.BadRequest):
            target.rewrite(source, token="x")


# Lists.


def names_of(found: object) -> list[str]:
    """The names in a list."""
    return [blob.name for blob in found]


@pytest.fixture
def tree(bucket: storage.Bucket) -> storage.Bucket:
    """A bucket with folders, as far as there are such."""
    for name in ["b", "a/x/1", "a/y", "a/x/2", "a", "a/x", "c/", "a-"]:
        put(bucket, name)
    return bucket


def test_list_is_sorted(tree: storage.Bucket) -> None:
    """
    All objects are listed, in the order of their names.
    """
    assert ["a", "a-", "a/x", "a/x/1", "a/x/2", "a/y", "b", "c/"] == names_of(
        tree.list_blobs()
    )


def test_list_of_a_prefix(tree: storage.Bucket) -> None:
    """
    A prefix is a beginning of the name, not a folder.
    """
    assert ["a/x", "a/x/1", "a/x/2"] == names_of(tree.list_blobs(prefix="a/x"))
    assert [] == names_of(tree.list_blobs(prefix="z"))


@pytest.mark.parametrize("page_size", [None, 1, 2, 3])
def test_list_with_a_delimiter(
    page_size: int | None, tree: storage.Bucket
) -> None:
    """
    With a delimiter each folder shows once, whatever the pages.
    """
    found = tree.list_blobs(delimiter="/", page_size=page_size)
    assert ["a", "a-", "b"] == names_of(found)
    assert {"a/", "c/"} == found.prefixes
    found = tree.list_blobs(prefix="a/", delimiter="/", page_size=page_size)
    assert ["a/x", "a/y"] == names_of(found)
    assert {"a/x/"} == found.prefixes
    found = tree.list_blobs(
        delimiter="/", include_trailing_delimiter=True, page_size=page_size
    )
    assert ["a", "a-", "b", "c/"] == names_of(found)


def test_list_between_offsets(tree: storage.Bucket) -> None:
    """
    The start belongs to the list, the end does not.
    """
    assert ["a/x", "a/x/1", "a/x/2", "a/y"] == names_of(
        tree.list_blobs(start_offset="a/x", end_offset="b")
    )


@pytest.mark.parametrize("page_size", [1, 3, 8])
def test_list_in_pages(
    page_size: int, server: LoopbackGcs, tree: storage.Bucket
) -> None:
    """
    Pages hold no more than was asked for, and all of them hold all.
    """
    pages = [
        names_of(page) for page in tree.list_blobs(page_size=page_size).pages
    ]
    assert page_size == max(map(len, pages))
    assert -(-8 // page_size) == len(pages) == server.requests["list"]
    assert names_of(tree.list_blobs()) == [
        name for page in pages for name in page
    ]


def test_list_with_fields_and_limit(tree: storage.Bucket) -> None:
    """
    Fields and projection are taken without effect; a limit is kept.
    """
    found = tree.list_blobs(
        fields="items(name),nextPageToken", projection="full", max_results=2
    )
    assert ["a", "a-"] == names_of(found)


def test_list_that_is_not_served(server: LoopbackGcs) -> None:
    """
    A filter that is not known is refused, so that nobody believes in it.
    """
    for query in ("matchGlob=*", "softDeleted=true", "pageToken=%"):
        status, _, _ = raw(server.url, "GET", f"/storage/v1/b/bucket/o?{query}")
        assert 400 == status, query


# Batches.


def test_batch(server: LoopbackGcs, bucket: storage.Bucket) -> None:
    """
    A batch deletes, patches and gets, each part by itself.
    """
    for name in NAMES:
        put(bucket, name)
    patched, got = bucket.blob("a"), bucket.blob("a b")
    patched.metadata = {"x": "ü"}
    with bucket.client.batch():
        patched.patch()
        got.reload()
        for name in NAMES[2:]:
            bucket.blob(name).delete()
    assert ["a", "a b"] == sorted(server.objects())
    assert {"x": "ü"} == server.objects()["a"].metadata
    assert 1 == got.size
    assert 1 == server.requests["batch"]
    assert len(NAMES) - 2 == server.requests["delete"]


def test_batch_of_which_a_part_fails(
    server: LoopbackGcs, bucket: storage.Bucket
) -> None:
    """
    A part that is refused does not keep the others from being carried out.
    """
    put(bucket, "a")
    generation = put(bucket, "b").generation
    with bucket.client.batch(raise_exception=False) as batch:
        bucket.blob("missing").delete()
        bucket.blob("b").delete(if_generation_match=generation + 1)
        bucket.blob("a").delete()
    assert [404, 412, 204] == [part.status_code for part in batch._responses]
    assert ["b"] == list(server.objects())
    with pytest.raises(exceptions.NotFound), bucket.client.batch():
        bucket.blob("missing").delete()


# Limits.


def test_writes_of_one_name_are_limited() -> None:
    """
    Where it is asked for, a name takes one write a second, and says 429 to
    a faster one.
    """
    now = [1e9]
    with LoopbackGcs(write_interval_secs=1, clock=lambda: now[0]) as server:
        bucket = client_of(server.url).bucket("bucket")
        put(bucket, "a", b"1")
        put(bucket, "b", b"1")
        with pytest.raises(exceptions.TooManyRequests):
            put(bucket, "a", b"2")
        assert b"1" == server.objects()["a"].content
        _, _, body = raw(server.url, "DELETE", "/storage/v1/b/bucket/o/a")
        assert "rateLimitExceeded" == reason_of(body)
        now[0] += 1
        put(bucket, "a", b"3")
        assert b"3" == server.objects()["a"].content


def test_what_is_not_served(server: LoopbackGcs) -> None:
    """
    An unknown path is 404, with the body of an error.
    """
    status, _, body = raw(server.url, "POST", "/storage/v1/b")
    assert (404, "notFound") == (status, reason_of(body))


def test_no_md5_where_none_is_wanted() -> None:
    """
    Without MD5 an upload has none, but one that is stated is still checked.
    """
    with LoopbackGcs(md5=False) as server:
        bucket = client_of(server.url).bucket("bucket")
        assert put(bucket, "a").md5_hash is None
        put(bucket, "b", b"2", checksum="md5")
        blob = bucket.blob("c")
        blob.md5_hash = md5_of(b"4")
        with pytest.raises(exceptions.BadRequest, match="MD5"):
            blob.upload_from_string(b"3", retry=QUICK)
        assert ["a", "b"] == sorted(server.objects())
