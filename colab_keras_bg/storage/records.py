"""Small JSON records of a run: once, or latest-wins.

Invariant: a record is replaced as a whole. Whatever its file holds, reading it
gives what was written under this very name, or a `DamagedRecordError`: the
last field is the crc32c of the name and of all else, and the bytes have to be
the very ones that are written for it. Damage is reported, not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import google_crc32c

from colab_keras_bg.errors import ObjectNotFoundError
from colab_keras_bg.storage.interface import Storage

__all__ = [
    "MAX_BYTES",
    "DamagedRecordError",
    "create_record",
    "decode",
    "encode",
    "read_record",
    "write_record",
]

MAX_BYTES = 16 << 20
_CHECKSUM = "crc32c"


class DamagedRecordError(ValueError):
    """A record is not the JSON object it should be.

    Attributes:
        name: The record's name.
    """

    def __init__(self, name: str, *, reason: str) -> None:
        """Names the record and what is wrong."""
        self.name = name
        super().__init__(f"{name} cannot be read as a record: {reason}.")


def write_record(
    storage: Storage, name: str, record: Mapping[str, Any]
) -> None:
    """Puts a record in place of the one there is, if any.

    Raises:
        StorageError: If it cannot be written.
    """
    storage.replace(name, encode(name, record))


def create_record(
    storage: Storage, name: str, record: Mapping[str, Any]
) -> None:
    """Writes a record that is written once.

    Raises:
        ObjectExistsError: If there is one.
        StorageError: If it cannot be written.
    """
    storage.create(name, [encode(name, record)])


def read_record(storage: Storage, name: str) -> dict[str, Any] | None:
    """Reads a record.

    Returns:
        The record, or None if there is none.

    Raises:
        DamagedRecordError: If it is not a JSON object.
        StorageUnavailableError: If the storage cannot be read.
    """
    try:
        if storage.info(name).size_bytes > MAX_BYTES:
            raise DamagedRecordError(
                name, reason=f"it is larger than {MAX_BYTES} bytes"
            )
        content = storage.read(name)
    except ObjectNotFoundError:
        return None
    return decode(name, content)


def encode(name: str, record: Mapping[str, Any]) -> bytes:
    """The bytes that are written for a record.

    Args:
        name: Its name.
        record: JSON values, with anything but `crc32c` as names.
    """
    body = json.dumps(dict(record), indent=1)
    crc32c = google_crc32c.value(f"{name}\n{body}".encode())
    return (
        json.dumps({**record, _CHECKSUM: f"{crc32c:08x}"}, indent=1).encode()
        + b"\n"
    )


def decode(name: str, content: bytes) -> dict[str, Any]:
    """What `encode` was given.

    Args:
        name: The record's name.
        content: The bytes of its file.

    Raises:
        DamagedRecordError: If they are not what `encode` returns.
    """
    if not content:
        raise DamagedRecordError(name, reason="it is empty")
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise DamagedRecordError(name, reason="it is not JSON") from None
    if not isinstance(record, dict):
        raise DamagedRecordError(name, reason="it is not a JSON object")
    record.pop(_CHECKSUM, None)
    if encode(name, record) != content:
        raise DamagedRecordError(
            name, reason="its content does not match its checksum"
        )
    return record
