"""Which addresses of a run directory can be meant."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from colab_keras_bg.errors import UsageError
from colab_keras_bg.storage.addresses import local_directory


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("runs/a", "{cwd}/runs/a"),
        ("./runs/../a", "{cwd}/a"),
        (Path("a"), "{cwd}/a"),
        ("/somewhere/a/", "/somewhere/a"),
        ("~/a", "{home}/a"),
        ("a b/ä", "{cwd}/a b/ä"),
        ("12:30", "{cwd}/12:30"),
        ("./a:/b", "{cwd}/a:/b"),
    ],
)
def test_paths(
    address: str | Path,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A path is made absolute, `~` is the home, and nothing is created."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    found = local_directory(address)
    assert found == Path(expected.format(cwd=tmp_path, home="/home/ada"))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("address", "scheme"),
    [
        ("gs://bucket/runs/a", "gs"),
        ("gs:/bucket/a", "gs"),
        (" gs://bucket/a", "gs"),
        ("drive://folder/a", "drive"),
        ("s3://b", "s3"),
        ("file:///tmp/a", "file"),
        ("HTTPS://example.org", "HTTPS"),
    ],
)
def test_urls_are_refused_by_name(address: str, scheme: str) -> None:
    """A URL is never taken for a local folder of that name."""
    with pytest.raises(UsageError, match=f"is a {scheme}:// address") as caught:
        local_directory(address)
    assert repr(address) in str(caught.value)
    assert "give a path" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "is empty: give a path"),
        (" \t", "is empty: give a path"),
        ("a\0b", "holds a NUL"),
        ("x" * 5_000, "cannot be used: File name too long"),
    ],
    ids=["empty", "blank", "NUL", "too long"],
)
def test_addresses_that_cannot_be_meant(address: str, reason: str) -> None:
    """What cannot be a path is refused with the reason."""
    with pytest.raises(UsageError, match=reason):
        local_directory(address)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """A file is refused and left alone; a directory is taken."""
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(UsageError, match="is a file: give a folder"):
        local_directory(tmp_path / "file")
    assert local_directory(tmp_path) == tmp_path


def test_where_we_may_not_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path below a closed folder is refused with the reason."""

    def closed(path: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "stat", closed)
    with pytest.raises(UsageError, match="cannot be used: Permission denied"):
        local_directory(tmp_path / "a")
