"""The rules of Drive that are easily overlooked, through the real client."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from googleapiclient.errors import HttpError

from colab_keras_bg.testing.loopback_drive import Fault, LoopbackDrive

from .test_loopback_drive import (
    FOLDER,
    client_of,
    created,
    listed,
    media,
    reason_of,
)

EVERYWHERE = {"supportsAllDrives": True, "includeItemsFromAllDrives": True}


@pytest.fixture
def server() -> Iterator[LoopbackDrive]:
    """A Drive with one folder, and a shared drive."""
    with LoopbackDrive(["runs"], drives=["Team"]) as server:
        yield server


@pytest.fixture
def drive(server: LoopbackDrive) -> Any:
    """A client of it."""
    return client_of(server.url)


def test_shared_drives_are_for_those_who_ask(drive: Any) -> None:
    """
    A file of a shared drive is there only for a client that says that it
    knows of shared drives, and listed only if it asks for it.
    """
    (team,) = drive.drives().list().execute()["drives"]
    parents = [team["id"]]
    with pytest.raises(HttpError) as caught:
        created(drive, "a", b"1", parents=parents)
    assert caught.value.resp.status == 404
    files = drive.files()
    made = files.create(
        body={"name": "a", "parents": parents},
        media_body=media(b"1"),
        supportsAllDrives=True,
    ).execute()
    assert made["driveId"] == team["id"]
    for call in (
        files.get(fileId=made["id"]),
        files.get_media(fileId=made["id"]),
        files.update(fileId=made["id"], body={"trashed": True}),
        files.update(fileId=made["id"], media_body=media(b"2")),
        files.delete(fileId=made["id"]),
    ):
        with pytest.raises(HttpError) as caught:
            call.execute()
        assert caught.value.resp.status == 404
    assert files.get(fileId=made["id"], supportsAllDrives=True).execute() == (
        made
    )
    assert listed(drive) == ["runs"]
    assert listed(drive, supportsAllDrives=True) == ["runs"]
    assert listed(drive, **EVERYWHERE) == ["a", "runs"]
    here = {"corpora": "drive", "driveId": team["id"]}
    assert listed(drive, **here, **EVERYWHERE) == ["a"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, "userRateLimitExceeded"), (403, "rateLimitExceeded"), (404, None)],
)
def test_errors_of_contents_have_a_reason(
    drive: Any, server: LoopbackDrive, status: int, reason: str | None
) -> None:
    """
    Who asks for content is told in JSON what is wrong.
    """
    made = created(drive, "a", b"1")
    server.faults.add(Fault("get.media", status=status, reason=reason))
    with pytest.raises(HttpError) as caught:
        drive.files().get_media(fileId=made["id"]).execute()
    assert caught.value.resp.status == status
    assert reason_of(caught.value) == (reason or "notFound")


@pytest.mark.parametrize("resumable", [False, True])
def test_an_id_is_used_once_though_lists_are_late(resumable: bool) -> None:
    """
    A file that lists do not show yet is there by its id, and its id is used.
    """
    now = 1000.0
    with LoopbackDrive(
        ["runs"], clock=lambda: now, visible_after_secs=60.0
    ) as server:
        drive = client_of(server.url)
        assert listed(drive) == []
        now += 61.0
        assert listed(drive) == ["runs"]
        (id,) = drive.files().generateIds(count=1).execute()["ids"]
        made = created(drive, "a", b"1", id=id)
        assert listed(drive) == ["runs"]
        assert drive.files().get(fileId=id).execute() == made
        content = media(bytes(1 << 20), resumable=resumable)
        with pytest.raises(HttpError) as caught:
            drive.files().create(
                body={"id": id, "name": "b"}, media_body=content
            ).execute()
        assert caught.value.resp.status == 409
        assert reason_of(caught.value) == "fileIdInUse"
        assert server.requests["upload.resumable.chunk"] == 0
        now += 61.0
        assert listed(drive) == ["a", "runs"]


def test_what_a_service_account_may() -> None:
    """
    It makes folders where it likes, and files in shared drives only.
    """
    with LoopbackDrive(drives=["Team"], owns_space=False) as server:
        drive = client_of(server.url)
        drive.files().create(body={"name": "f", "mimeType": FOLDER}).execute()
        with pytest.raises(HttpError) as caught:
            created(drive, "a", b"1")
        assert reason_of(caught.value) == "storageQuotaExceeded"
        (team,) = drive.drives().list().execute()["drives"]
        drive.files().create(
            body={"name": "a", "parents": [team["id"]]},
            media_body=media(b"1"),
            supportsAllDrives=True,
        ).execute()


def test_moving(drive: Any, server: LoopbackDrive) -> None:
    """
    A file is moved by naming both parents, and a wrong one changes nothing.
    """
    (runs,) = server.at("runs")
    made = created(drive, "a", b"1")
    (root,) = made["parents"]
    move = drive.files().update
    with pytest.raises(HttpError) as caught:
        move(
            fileId=made["id"], addParents=runs.id, removeParents=runs.id
        ).execute()
    assert caught.value.resp.status == 400
    assert list(server.files()) == ["a"]
    move(fileId=made["id"], addParents=runs.id, removeParents=root).execute()
    assert list(server.files()) == ["runs/a"]


def test_age_is_told_to_the_millisecond() -> None:
    """
    Which of two is older is the same by what is told and by what is there.
    """
    microseconds = itertools.count(5_000_000)
    with LoopbackDrive(clock=lambda: next(microseconds) / 1e6) as server:
        drive = client_of(server.url)
        made = [created(drive, "a", b"%d" % n) for n in range(50)]
        first = min(made, key=lambda f: (f["createdTime"], f["id"]))
        assert server.files()["a"].id == first["id"]
        order = drive.files().list(orderBy="createdTime").execute()["files"]
        assert order[0]["id"] == first["id"]
