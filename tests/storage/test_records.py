"""Small JSON records: whole, or reported as damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.errors import (
    ObjectExistsError,
    StorageUnavailableError,
)
from colab_keras_bg.storage import LocalStorage, MemoryStorage, records
from colab_keras_bg.storage.records import (
    DamagedRecordError,
    create_record,
    encode,
    read_record,
    write_record,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
    max_leaves=10,
)


# The one name that is ours.
NAMES = st.text().filter(lambda name: name != "crc32c")


@given(record=st.dictionaries(NAMES, JSON))
def test_records_are_read_as_written(record: dict[str, object]) -> None:
    """What was written is read, to the last digit, NaN included."""
    storage = MemoryStorage()
    write_record(storage, "a", record)
    assert repr(record) == repr(read_record(storage, "a"))


def test_a_record_is_replaced_as_a_whole() -> None:
    """The later record is in the place of the earlier one."""
    storage = MemoryStorage()
    assert read_record(storage, "a") is None
    write_record(storage, "a", {"long": "x" * 1_000})
    write_record(storage, "a", {"b": 1})
    assert read_record(storage, "a") == {"b": 1}


def test_a_record_that_is_written_once() -> None:
    """`create_record` never overwrites."""
    storage = MemoryStorage()
    create_record(storage, "a", {"b": 1})
    with pytest.raises(ObjectExistsError):
        create_record(storage, "a", {"b": 2})
    assert read_record(storage, "a") == {"b": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"{", "it is not JSON"),
        (b'{"a": 1', "it is not JSON"),
        (b'{"a": 1}{', "it is not JSON"),
        (b"\0" * 50, "it is not JSON"),
        (b"\xff\xfe\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"9" * 5_000, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"7", "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_damaged_records(content: bytes, reason: str) -> None:
    """A record that is not a JSON object is damage, with the reason."""
    storage = MemoryStorage()
    storage.replace("a/b", content)
    with pytest.raises(DamagedRecordError) as caught:
        read_record(storage, "a/b")
    assert caught.value.name == "a/b"
    assert str(caught.value) == f"a/b cannot be read as a record: {reason}."


def test_a_record_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A record larger than any of ours is damage, and is not even read: this one
    claims a terabyte.
    """
    storage = LocalStorage(tmp_path)
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedRecordError, match="larger than 16777216 bytes"):
        read_record(storage, "a")
    content = encode("a", {})
    monkeypatch.setattr(records, "MAX_BYTES", len(content))
    storage.replace("a", content)
    assert read_record(storage, "a") == {}


def test_any_change_of_a_record_is_seen() -> None:
    """Each flipped bit, each missing byte, and another record's content."""
    storage = MemoryStorage()
    write_record(storage, "a", {"step": 55, "state": "done"})
    content = storage.read("a")
    assert storage.read("a") == encode("a", {"step": 55, "state": "done"})
    for place in range(len(content)):
        for damaged in (
            *(
                content[:place]
                + bytes([content[place] ^ (1 << bit)])
                + content[place + 1 :]
                for bit in range(8)
            ),
            content[:place],
            content[:place] + content[place + 1 :],
        ):
            storage.replace("a", damaged)
            with pytest.raises(DamagedRecordError):
                read_record(storage, "a")
    storage.replace("b", content)
    with pytest.raises(DamagedRecordError, match="match its checksum"):
        read_record(storage, "b")


def test_a_storage_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that cannot be read is not one without records."""
    storage = LocalStorage(tmp_path)

    def fails(name: str) -> None:
        raise StorageUnavailableError(5, "no")

    monkeypatch.setattr(storage, "info", fails)
    with pytest.raises(StorageUnavailableError):
        read_record(storage, "a")
