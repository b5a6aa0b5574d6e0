"""How the service describes files.

Invariant: what is a number of 64 bits is told as text; what has no bytes has
neither a size nor a checksum.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from colab_keras_bg.testing.loopback_drive.files import StoredFile

__all__ = ["file_resource"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def file_resource(
    file: StoredFile, *, trashed: bool, drive: str | None
) -> dict[str, Any]:
    """A `File`, as JSON values.

    Args:
        file: The file.
        trashed: Whether it, or a folder that it lies in, is in the trash.
        drive: The shared drive that it lies in; None of none.
    """
    told: dict[str, Any] = {
        "kind": "drive#file",
        "id": file.id,
        "name": file.name,
        "mimeType": file.mime_type,
        "parents": [file.parent] if file.parent else [],
        "createdTime": _time(file.created),
        "modifiedTime": _time(file.modified),
        "version": str(file.version),
        "trashed": trashed,
        "explicitlyTrashed": file.trashed,
        "ownedByMe": not file.shared,
    }
    if drive:
        told["driveId"] = drive
    if file.content is not None:
        told |= {
            "size": str(len(file.content)),
            "md5Checksum": file.md5,
            "headRevisionId": f"{file.id}-{file.version}",
        }
    return told


def _time(secs: float) -> str:
    """To the millisecond."""
    when = _EPOCH + timedelta(milliseconds=round(secs * 1000))
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
