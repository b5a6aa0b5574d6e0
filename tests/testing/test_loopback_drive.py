"""The loopback Drive answers the real client as the real service does."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httplib2
import pytest
from googleapiclient.discovery import build_from_document
from googleapiclient.discovery_cache import get_static_doc
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaIoBaseUpload

from colab_keras_bg.testing.loopback_drive import Fault, LoopbackDrive

FOLDER = "application/vnd.google-apps.folder"
CHUNK = 256 << 10


def client_of(url: str) -> Any:
    """The real client, led to a server."""
    document = json.loads(get_static_doc("drive", "v3"))
    document["rootUrl"] = f"{url}/"
    document["baseUrl"] = f"{url}/drive/v3/"
    http = httplib2.Http(timeout=20)
    http.redirect_codes = frozenset({301, 302, 303, 307})
    return build_from_document(document, http=http)


@pytest.fixture
def server() -> Iterator[LoopbackDrive]:
    """A Drive with one folder."""
    with LoopbackDrive(["runs"], shared=["theirs"], drives=["Team"]) as server:
        yield server


@pytest.fixture
def drive(server: LoopbackDrive) -> Any:
    """A client of it."""
    return client_of(server.url)


def media(content: bytes, *, resumable: bool = False) -> MediaIoBaseUpload:
    """Something to upload."""
    return MediaIoBaseUpload(
        io.BytesIO(content), "text/plain", chunksize=CHUNK, resumable=resumable
    )


def created(drive: Any, name: str, content: bytes, **fields: Any) -> Any:
    """A new file."""
    body = {"name": name, **fields}
    return drive.files().create(body=body, media_body=media(content)).execute()


def listed(drive: Any, q: str = "", **options: Any) -> list[str]:
    """The names of what a list shows."""
    told = drive.files().list(q=q, **options).execute()
    return sorted(file["name"] for file in told["files"])


def reason_of(error: HttpError) -> str:
    """Google's word for it."""
    (one,) = json.loads(error.content)["error"]["errors"]
    return str(one["reason"])


def test_a_file(drive: Any, server: LoopbackDrive) -> None:
    """It is made, told, read in parts, changed and deleted."""
    made = created(drive, "a", b"123456")
    assert made["size"] == "6"
    assert made["md5Checksum"] == "e10adc3949ba59abbe56e057f20f883e"
    assert made["mimeType"] == "text/plain"
    files = drive.files()
    assert files.get(fileId=made["id"]).execute() == made
    request = files.get_media(fileId=made["id"])
    request.headers["Range"] = "bytes=2-3"
    assert request.execute() == b"34"
    request = files.get_media(fileId=made["id"])
    request.headers["Range"] = "bytes=6-9"
    with pytest.raises(HttpError) as caught:
        request.execute()
    assert caught.value.resp.status == 416
    changed = files.update(
        fileId=made["id"], body={"name": "b"}, media_body=media(b"new")
    ).execute()
    assert (changed["name"], changed["size"]) == ("b", "3")
    assert int(changed["version"]) > int(made["version"])
    assert changed["createdTime"] == made["createdTime"]
    assert server.files()["b"].content == b"new"
    files.delete(fileId=made["id"]).execute()
    with pytest.raises(HttpError) as caught:
        files.get(fileId=made["id"]).execute()
    assert (caught.value.resp.status, reason_of(caught.value)) == (
        404,
        "notFound",
    )


def test_names_are_not_unique_and_ids_are(drive: Any) -> None:
    """Two files of one name are two; an id that was used is refused."""
    ids = drive.files().generateIds(count=3).execute()["ids"]
    assert len(set(ids)) == 3
    created(drive, "a", b"1", id=ids[0])
    created(drive, "a", b"2")
    assert listed(drive, "name = 'a'") == ["a", "a"]
    for again in range(2):
        with pytest.raises(HttpError) as caught:
            created(drive, "c", b"3", id=ids[0])
        assert caught.value.resp.status == 409
        if not again:  # Not even when it is gone.
            drive.files().delete(fileId=ids[0]).execute()


def test_lists(drive: Any, server: LoopbackDrive) -> None:
    """Every term, escapes, pages, and no term that is not known."""
    (runs,) = server.at("runs")
    created(drive, r"it's \ a", b"1", parents=[runs.id])
    created(drive, "b", b"1", parents=[runs.id])
    assert listed(drive, f"'{runs.id}' in parents") == ["b", r"it's \ a"]
    assert listed(drive, r"name = 'it\'s \\ a'") == [r"it's \ a"]
    assert listed(drive, "name contains 'IT'") == [r"it's \ a"]
    assert listed(drive, "'root' in parents") == ["runs"]
    assert listed(drive, f"mimeType != '{FOLDER}' and trashed = false") == [
        "b",
        r"it's \ a",
    ]
    either = f"('{runs.id}' in parents or 'root' in parents)"
    assert len(listed(drive, f"{either} and trashed = false")) == 3
    assert listed(drive, "sharedWithMe") == ["theirs"]
    first = drive.files().list(pageSize=2).execute()
    rest = (
        drive.files()
        .list(pageSize=2, pageToken=first["nextPageToken"])
        .execute()
    )
    names = [f["name"] for f in (*first["files"], *rest["files"])]
    assert sorted(names) == sorted(listed(drive))
    assert "nextPageToken" not in rest
    for wrong in ("name", "name = b", "size > 3", "name = 'b' or", "'x' in"):
        with pytest.raises(HttpError) as caught:
            listed(drive, wrong)
        assert caught.value.resp.status in (400, 404)


def test_the_trash(drive: Any, server: LoopbackDrive) -> None:
    """What lies in a folder in the trash is there, too, and keeps its bytes."""
    folder = server.add_folder("sub", parent=server.at("runs")[0].id)
    made = created(drive, "a", b"12345", parents=[folder.id])
    drive.files().update(fileId=folder.id, body={"trashed": True}).execute()
    told = drive.files().get(fileId=made["id"]).execute()
    assert (told["trashed"], told["explicitlyTrashed"]) == (True, False)
    assert listed(drive, "name = 'a' and trashed = false") == []
    assert listed(drive, "name = 'a' and trashed = true") == ["a"]
    assert server.at("runs/sub/a") == []
    usage = drive.about().get(fields="*").execute()["storageQuota"]["usage"]
    assert usage == "5"
    drive.files().delete(fileId=folder.id).execute()
    with pytest.raises(HttpError):
        drive.files().get(fileId=made["id"]).execute()


@pytest.mark.parametrize("kind", ["status", "reset"])
def test_a_resumable_upload_goes_on(
    drive: Any, server: LoopbackDrive, kind: str
) -> None:
    """After an error the client asks how much is there, and sends the rest."""
    content = bytes(range(256)) * 4096
    request = drive.files().create(
        body={"name": "a"}, media_body=media(content, resumable=True)
    )
    request.next_chunk()
    assert server.at("a") == []
    server.faults.add(
        Fault("upload.resumable.chunk", kind, after_bytes=100_000)
    )
    with pytest.raises((HttpError, OSError)):
        request.next_chunk()
    answer = None
    while answer is None:
        _, answer = request.next_chunk()
    assert server.requests["upload.resumable.status"] == 1
    assert server.files()["a"].content == content


def test_an_upload_is_cancelled(drive: Any, server: LoopbackDrive) -> None:
    """Nothing of it is kept."""
    request = drive.files().create(
        body={"name": "a"}, media_body=media(bytes(3 * CHUNK), resumable=True)
    )
    request.next_chunk()
    ended, _ = httplib2.Http().request(request.resumable_uri, "DELETE")
    assert ended.status == 499
    with pytest.raises(HttpError) as caught:
        request.next_chunk()
    assert caught.value.resp.status == 410
    assert server.at("a") == []


def test_quota(drive: Any, server: LoopbackDrive) -> None:
    """What is too much is refused, and changes nothing."""
    server.quota_bytes = 5
    created(drive, "a", b"123")
    with pytest.raises(HttpError) as caught:
        created(drive, "b", b"456")
    assert reason_of(caught.value) == "storageQuotaExceeded"
    assert sorted(server.files()) == ["a"]


def test_what_is_shared_cannot_be_deleted(
    drive: Any, server: LoopbackDrive
) -> None:
    """Nor is it in My Drive."""
    (theirs,) = drive.files().list(q="sharedWithMe").execute()["files"]
    with pytest.raises(HttpError) as caught:
        drive.files().delete(fileId=theirs["id"]).execute()
    assert caught.value.resp.status == 403
    drives = drive.drives().list().execute()["drives"]
    assert [one["name"] for one in drives] == ["Team"]


def test_tokens(server: LoopbackDrive) -> None:
    """Who does not carry one that is accepted, is refused."""
    server.accept("a token")
    with pytest.raises(HttpError) as caught:
        listed(client_of(server.url))
    assert caught.value.resp.status == 401


def test_a_process_of_its_own() -> None:
    """It can be stopped, started, and made to fail."""
    with LoopbackDrive.spawn("--folder=runs") as spawned:
        drive = client_of(spawned.url)
        assert listed(drive) == ["runs"]
        spawned.faults.add(Fault("list", status=503))
        with pytest.raises(HttpError):
            listed(drive)
        assert spawned.requests["list"] == 2
        spawned.stop()
        with pytest.raises(ConnectionError):
            listed(drive)
        spawned.start()
        assert listed(drive) == ["runs"]
