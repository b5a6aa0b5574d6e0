"""Files that grow, where nothing can be appended to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_keras_bg.errors import (
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageUnavailableError,
    UsageError,
)
from colab_keras_bg.storage import MemoryStorage
from colab_keras_bg.storage.segments import SegmentedStorage
from colab_keras_bg.testing.faulty_storage import FaultyStorage

NAME = "metrics.jsonl"


@pytest.fixture
def inner() -> MemoryStorage:
    """What does the work."""
    return MemoryStorage()


def grown(inner: MemoryStorage) -> SegmentedStorage:
    """A file of a base and two segments."""
    storage = SegmentedStorage(inner)
    storage.replace(NAME, b"12")
    storage.append(NAME, b"34", at=2)
    storage.append(NAME, b"56", at=4)
    return storage


def test_each_byte_is_sent_once(inner: MemoryStorage) -> None:
    """What was there is neither read, nor written again."""
    counted = FaultyStorage(inner)
    storage = SegmentedStorage(counted)
    for at in range(20):
        storage.append(NAME, b"x", at=at)
    calls = [call.partition(" ")[0] for call in counted.calls]
    assert calls.count("create") == 20
    assert not {"replace", "append", "read", "read_range"} & set(calls)
    sizes = [info.size_bytes for info in inner.list()]
    assert sizes == [1] * 20
    assert SegmentedStorage(inner).read(NAME) == b"x" * 20


def test_it_is_one_file(inner: MemoryStorage) -> None:
    """Nobody sees the pieces, and another reader sees the same."""
    grown(inner)
    storage = SegmentedStorage(inner)
    assert [info.name for info in storage.list()] == [NAME]
    assert storage.info(NAME).size_bytes == 6
    assert storage.read(NAME) == bytes(storage.map(NAME)) == b"123456"
    for start in range(8):
        for size in range(8):
            expected = b"123456"[start : start + size]
            assert storage.read_range(NAME, start, size) == expected
    with pytest.raises(ObjectExistsError):
        storage.create(NAME, [b"1"])
    with pytest.raises(UsageError, match="files that grow"):
        storage.read(f"{NAME}.segments/00000000-000000000000000")


@pytest.mark.parametrize("dies_at", range(12))
@pytest.mark.parametrize("content", [b"12", b"new", b""])
@pytest.mark.parametrize("has_base", [True, False])
def test_a_crash_while_it_is_replaced(
    inner: MemoryStorage, content: bytes, dies_at: int, has_base: bool
) -> None:
    """A reader sees the old file or the new, whole, whenever that was."""
    storage = grown(inner)
    if not has_base:
        storage.delete(NAME)
        for at in range(3):
            storage.append(NAME, b"%d" % at, at=at)
    before = storage.read(NAME)
    dies = FaultyStorage(
        inner, fails=lambda number, _: "before" if number >= dies_at else None
    )
    try:
        SegmentedStorage(dies).replace(NAME, content)
    except StorageUnavailableError:
        assert SegmentedStorage(inner).read(NAME) in (before, content)
    else:
        assert SegmentedStorage(inner).read(NAME) == content
    SegmentedStorage(inner).replace(NAME, content)
    assert SegmentedStorage(inner).read(NAME) == content
    assert len(list(inner.list())) == 1


@pytest.mark.parametrize("dies_at", range(12))
def test_a_crash_while_it_is_deleted(
    inner: MemoryStorage, dies_at: int
) -> None:
    """It is there whole, or it is not there; and `sweep` clears the rest."""
    grown(inner)
    dies = FaultyStorage(
        inner, fails=lambda number, _: "before" if number >= dies_at else None
    )
    try:
        SegmentedStorage(dies).delete(NAME)
    except StorageUnavailableError:
        if SegmentedStorage(inner).exists(NAME):
            assert SegmentedStorage(inner).read(NAME) == b"123456"
            return
    again = SegmentedStorage(inner)
    again.sweep()
    assert not list(inner.list())
    again.append(NAME, b"1", at=0)
    assert again.read(NAME) == b"1"


def test_what_does_not_follow_does_not_count(inner: MemoryStorage) -> None:
    """A gap, an empty piece, a piece of another base, a stranger."""
    storage = grown(inner)
    folder = f"{NAME}.segments/"
    tag = next(
        info.name for info in inner.list() if info.name.startswith(folder)
    ).removeprefix(folder)[:8]
    strays = [f"{tag}-000000000000009", "0000000a-000000000000006"]
    for name in strays:
        inner.create(folder + name, [b"?"])
    inner.create(f"{folder}{tag}-000000000000006", [b""])
    assert SegmentedStorage(inner).read(NAME) == b"123456"
    assert len(storage.sweep()) == 3
    assert SegmentedStorage(inner).read(NAME) == b"123456"
    inner.create(f"{folder}notes.txt", [b"mine"])
    assert [i.name for i in storage.list()] == [f"{folder}notes.txt", NAME]


def test_another_has_appended(inner: MemoryStorage) -> None:
    """What was not seen is not written over."""
    one, other = grown(inner), SegmentedStorage(inner)
    other.append(NAME, b"78", at=6)
    with pytest.raises(ConflictError):
        one.append(NAME, b"xy", at=6)
    assert other.read(NAME) == b"12345678"


def test_names_that_do_not_grow_cost_nothing_more() -> None:
    """One request each, as without it."""
    counted = FaultyStorage(MemoryStorage())
    storage = SegmentedStorage(counted, may_grow=lambda name: name == NAME)
    storage.replace("HEAD", b"1")
    storage.read("HEAD")
    storage.info("HEAD")
    storage.read_range("HEAD", 0, 1)
    storage.create("a", [b"1"])
    storage.append("a", b"2", at=1)
    calls = [call.split() for call in counted.calls]
    assert [call[0] for call in calls if call[1] == "HEAD"].count("read") == 1
    assert "list" not in {call[0] for call in calls}
    assert storage.read("a") == b"12"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "replace", "delete", "again", "other"]),
            st.binary(max_size=5),
        ),
        max_size=20,
    )
)
def test_as_a_storage_that_appends(
    steps: list[tuple[str, bytes]],
) -> None:
    """Whatever is done in whichever order, by whichever process."""
    inner, plain = MemoryStorage(), MemoryStorage()
    storage = SegmentedStorage(inner)
    for what, content in steps:
        if what == "other":
            storage = SegmentedStorage(inner)
            continue
        for one in (plain, storage):
            size = one.info(NAME).size_bytes if one.exists(NAME) else 0
            if what == "append":
                one.append(NAME, content, at=size)
            elif what == "again":
                one.append(NAME, content, at=size)
                one.append(NAME, content, at=size)
            elif what == "replace":
                one.replace(NAME, content)
            elif one.exists(NAME):
                one.delete(NAME)
            else:
                with pytest.raises(ObjectNotFoundError):
                    one.delete(NAME)
        assert plain.exists(NAME) == storage.exists(NAME)
        if plain.exists(NAME):
            assert storage.read(NAME) == plain.read(NAME)
