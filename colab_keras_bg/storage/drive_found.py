"""What Google Drive tells of files, and how it is asked for them.

Invariant: nothing here asks Drive; a text never ends a query that it stands in.

Source: https://developers.google.com/workspace/drive/api/guides/search-files
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import google_crc32c

__all__ = ["FOLDER", "Found", "Sums", "any_of", "quoted"]

FOLDER = "application/vnd.google-apps.folder"

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Found:
    """A file or a folder, as Drive tells it.

    Attributes:
        id: What it is known by.
        name: What it is called; not unique.
        parent: The folder that it lies in.
        is_folder: Whether others lie in it.
        size_bytes: Its size; None of what has no bytes.
        md5: Its MD5 in hexadecimal digits, if it has bytes.
        created: When it was made.
        trashed: Whether it, or a folder that it lies in, is in the trash.
        drive: The id of the shared drive that it lies in; None of none.
        crc32c: Of what we have sent, and Drive has confirmed by its MD5.
    """

    id: str
    name: str
    parent: str
    is_folder: bool
    size_bytes: int | None
    md5: str | None
    created: str
    trashed: bool
    drive: str | None = None
    crc32c: str | None = None

    @classmethod
    def of(cls, told: Any) -> Found:
        """Takes what Drive has answered.

        Args:
            told: A `File`, as JSON values.
        """
        parents = told.get("parents") or [""]
        size = told.get("size")
        return cls(
            id=str(told["id"]),
            name=str(told.get("name", "")),
            parent=str(parents[0]),
            is_folder=told.get("mimeType") == FOLDER,
            size_bytes=None if size is None else int(size),
            md5=told.get("md5Checksum"),
            created=str(told.get("createdTime", "")),
            trashed=told.get("trashed") is True,
            drive=told.get("driveId"),
        )

    @property
    def age(self) -> tuple[str, str]:
        """The least of those of one name is the one that counts."""
        return self.created, self.id


@dataclass(frozen=True)
class Sums:
    """What a file has to arrive as.

    Attributes:
        size_bytes: Its size.
        md5: Its MD5, in hexadecimal digits.
        crc32c: Its CRC-32C, in hexadecimal digits.
    """

    size_bytes: int
    md5: str
    crc32c: str

    @classmethod
    def of(cls, file: BinaryIO) -> Sums:
        """Reads a file from its beginning to its end.

        Args:
            file: The file.
        """
        file.seek(0)
        md5, crc32c, size_bytes = hashlib.md5(usedforsecurity=False), 0, 0
        while block := file.read(_BLOCK_BYTES):
            md5.update(block)
            crc32c = google_crc32c.extend(crc32c, block)
            size_bytes += len(block)
        return cls(size_bytes, md5.hexdigest(), f"{crc32c:08x}")


def quoted(text: str) -> str:
    """A text as it stands in a query."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def any_of(parents: Sequence[str]) -> str:
    """A term that is true of what lies in one of some folders."""
    return f"({' or '.join(f'{quoted(one)} in parents' for one in parents)})"
