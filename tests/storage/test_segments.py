"""Files that grow, where nothing can be appended to."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import google_crc32c
import pytest
from hypothesis import example, given, settings
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
    whole = f"{google_crc32c.value(b'123456'):08x}"
    strays = [
        inner.create(folder + f"{whole}-000000000000009", [b"?"]),
        inner.create(folder + "0000000a-000000000000002", [b"34"]),
        inner.create(folder + f"{whole}-000000000000006", [b""]),
    ]
    assert SegmentedStorage(inner).read(NAME) == b"123456"
    assert storage.sweep() == tuple(sorted(info.name for info in strays))
    assert SegmentedStorage(inner).read(NAME) == b"123456"
    inner.create(f"{folder}notes.txt", [b"mine"])
    assert [i.name for i in storage.list()] == [NAME]
    assert storage.sweep() == ()


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


def test_swapping_a_file_that_has_grown(inner: MemoryStorage) -> None:
    """All of it is compared, and all of it is replaced."""
    storage = grown(inner)
    for stale in (None, b"12", b"56", b"12345"):
        with pytest.raises(ConflictError):
            storage.swap(NAME, b"new", expected=stale)
    assert storage.swap(NAME, b"123456", expected=b"x").size_bytes == 6
    assert storage.read(NAME) == b"123456"
    assert storage.swap(NAME, b"new", expected=b"123456").size_bytes == 3
    assert [info.name for info in inner.list()] == [NAME]
    assert storage.read(NAME) == b"new"


def test_what_was_replaced_is_appended_to_without_a_look(
    inner: MemoryStorage,
) -> None:
    """Who has replaced a file knows what it follows: one request."""
    counted = FaultyStorage(inner)
    storage = SegmentedStorage(counted)
    storage.replace(NAME, b"12")
    counted.calls.clear()
    storage.append(NAME, b"34", at=2)
    assert [call.partition(" ")[0] for call in counted.calls] == ["create"]
    assert SegmentedStorage(inner).read(NAME) == b"1234"


WRITERS: dict[str, Callable[[SegmentedStorage], object]] = {
    "longer": lambda storage: storage.replace(NAME, b"abcdefgh"),
    "of the base's size": lambda storage: storage.replace(NAME, b"ab"),
    "of the same size": lambda storage: storage.replace(NAME, b"abcdef"),
    "cut back": lambda storage: storage.replace(NAME, b"12"),
    "swapped": lambda storage: storage.swap(NAME, b"z", expected=b"123456"),
    "deleted": lambda storage: storage.delete(NAME),
    "appended": lambda storage: storage.append(NAME, b"78", at=6),
}
READERS: dict[str, Callable[[SegmentedStorage], object]] = {
    "read": lambda storage: storage.read(NAME),
    "map": lambda storage: bytes(storage.map(NAME)),
    "range": lambda storage: storage.read_range(NAME, 1, 4),
    "end": lambda storage: storage.read_range(NAME, 3, 9),
    "info": lambda storage: storage.info(NAME).size_bytes,
}


def start(inner: MemoryStorage, *, has_base: bool) -> None:
    """A file of 123456, in three parts."""
    if has_base:
        grown(inner)
    else:
        storage = SegmentedStorage(inner)
        for at in (0, 2, 4):
            storage.append(NAME, b"123456"[at : at + 2], at=at)


def dying(inner: MemoryStorage, dies_at: int | None) -> SegmentedStorage:
    """A process of which no request from a number on has any effect."""

    def fails(number: int, _: str) -> str | None:
        return "before" if dies_at is not None and number >= dies_at else None

    return SegmentedStorage(FaultyStorage(inner, fails=fails))


def content(inner: MemoryStorage) -> bytes | None:
    """What another process reads; None if there is nothing."""
    storage = SegmentedStorage(inner)
    return storage.read(NAME) if storage.exists(NAME) else None


@pytest.mark.parametrize("dies_at", [*range(8), None])
@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("reads", READERS)
@pytest.mark.parametrize("writes", WRITERS)
def test_reading_what_is_being_replaced(
    writes: str, reads: str, has_base: bool, dies_at: int | None
) -> None:
    """
    Whenever in the midst of reading it comes, and however far: what is read
    was there before or is there after, and never what is of both.
    """

    def look(storage: SegmentedStorage) -> object:
        try:
            return READERS[reads](storage)
        except ObjectNotFoundError:
            return "nothing"

    for moment in range(9):
        inner = MemoryStorage()
        start(inner, has_base=has_base)
        old, done = look(SegmentedStorage(inner)), []

        def now(
            number: int,
            _: str,
            moment: int = moment,
            inner: MemoryStorage = inner,
            done: list[object] = done,
        ) -> None:
            if number == moment:
                with contextlib.suppress(StorageUnavailableError):
                    WRITERS[writes](dying(inner, dies_at))
                done.append(look(SegmentedStorage(inner)))

        found = look(SegmentedStorage(FaultyStorage(inner, fails=now)))
        assert found in (old, *done)


@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize("reads", READERS)
@pytest.mark.parametrize("lines", [(b"xy", b"z"), (b"34", b"zz"), (b"xyz",)])
def test_reading_what_is_cut_back_and_grows(
    reads: str, has_base: bool, lines: tuple[bytes, ...]
) -> None:
    """
    New pieces that begin where old ones did are not taken for those: what is
    read is what was there at one moment.
    """
    for moment in range(9):
        inner = MemoryStorage()
        start(inner, has_base=has_base)
        seen = [READERS[reads](SegmentedStorage(inner))]

        def now(
            number: int,
            _: str,
            moment: int = moment,
            inner: MemoryStorage = inner,
            seen: list[object] = seen,
        ) -> None:
            if number != moment:
                return
            storage, at = SegmentedStorage(inner), 2
            if has_base:
                storage.replace(NAME, b"12")
            else:
                storage.delete(NAME)
                storage.append(NAME, b"12", at=0)
            seen.append(READERS[reads](SegmentedStorage(inner)))
            for line in lines:
                storage.append(NAME, line, at=at)
                at += len(line)
                seen.append(READERS[reads](SegmentedStorage(inner)))

        found = READERS[reads](
            SegmentedStorage(FaultyStorage(inner, fails=now))
        )
        assert found in seen


def test_a_late_piece_of_another_process(inner: MemoryStorage) -> None:
    """Of two that begin at one place, the one that fits what is before it."""
    storage = grown(inner)
    aside = MemoryStorage()
    grown(aside)
    SegmentedStorage(aside).append(NAME, b"late", at=6)
    late = next(i.name for i in aside.list() if i.name.endswith("6"))
    storage.replace(NAME, b"12")
    storage.append(NAME, b"ab", at=2)
    storage.append(NAME, b"cd", at=4)
    inner.create(late, [b"late"])
    assert SegmentedStorage(inner).read(NAME) == b"12abcd"
    storage.append(NAME, b"ef", at=6)
    other = SegmentedStorage(inner)
    assert other.info(NAME).size_bytes == 8
    assert other.read(NAME) == b"12abcdef"
    assert other.sweep() == (late,)
    other.append(NAME, b"gh", at=8)
    assert SegmentedStorage(inner).read(NAME) == b"12abcdefgh"


def test_who_takes_over_reads_only_the_end(inner: MemoryStorage) -> None:
    """A process that has not seen the file before appends to it cheaply."""
    grown(inner)
    counted = FaultyStorage(inner)
    SegmentedStorage(counted).append(NAME, b"78", at=6)
    reads = [call for call in counted.calls if call.startswith("read")]
    assert len(reads) == 2  # The base, for want of a checksum, and the last.
    assert SegmentedStorage(inner).read(NAME) == b"12345678"


NEXT: dict[str, Callable[[SegmentedStorage, bytes | None], object]] = {
    "append": lambda s, seen: s.append(NAME, b"xy", at=len(seen or b"")),
    "replace": lambda s, _: s.replace(NAME, b"12"),
    "swap": lambda s, seen: s.swap(NAME, b"12", expected=seen),
    "swap back": lambda s, seen: s.swap(NAME, b"", expected=seen),
    "create": lambda s, seen: seen is None and s.create(NAME, [b"12"]),
    "create empty": lambda s, seen: seen is None and s.create(NAME, [b""]),
}


@pytest.mark.parametrize("then", NEXT)
@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.parametrize(
    "writes", [name for name in WRITERS if not name.startswith("app")]
)
def test_no_old_piece_comes_back(
    writes: str, has_base: bool, then: str
) -> None:
    """
    Two processes die one after the other, wherever they were; the third one
    finds what it expects, and adds to it.
    """
    for first, second in itertools.product(range(12), (*range(8), None)):
        inner = MemoryStorage()
        start(inner, has_base=has_base)
        with contextlib.suppress(StorageUnavailableError):
            WRITERS[writes](dying(inner, first))
        before = content(inner)
        whole = MemoryStorage()
        if before is not None:
            whole.create(NAME, [before])
        NEXT[then](SegmentedStorage(whole), before)
        after = content(whole)
        with contextlib.suppress(StorageUnavailableError):
            NEXT[then](dying(inner, second), before)
        now = content(inner)
        assert now in ((after,) if second is None else (before, after))
        SegmentedStorage(inner).append(NAME, b"zz", at=len(now or b""))
        assert content(inner) == (now or b"") + b"zz"


@example(
    [
        ("append", b"1", None, "before"),
        ("replace", b"12", 1, "after"),
        ("delete", b"", 3, "after"),
    ]
)
@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["append", "replace", "delete", "swap", "create", "sweep"]
            ),
            st.sampled_from([b"", b"1", b"12", b"123", b"34"]),
            st.one_of(st.none(), st.integers(0, 8)),
            st.sampled_from(["before", "after"]),
        ),
        max_size=12,
    )
)
def test_processes_that_die(
    steps: list[tuple[str, bytes, int | None, str]],
) -> None:
    """
    Whichever request was the last of each process, and whatever the next
    ones do: a call has happened or not, and no old piece ever comes back.
    """
    inner = MemoryStorage()
    present: bytes | None = None
    for what, content, dies_at, how in steps:

        def dies(
            number: int, _: str, at: int | None = dies_at, how: str = how
        ) -> str | None:
            return how if at is not None and number >= at else None

        storage = SegmentedStorage(FaultyStorage(inner, fails=dies))
        before, after = present, done_in_one(what, content, present)
        try:
            do(storage, what, content, present)
            expected = [after]
        except StorageUnavailableError:
            expected = [before, after]
        except (ConflictError, ObjectExistsError, ObjectNotFoundError):
            expected = [before]
            assert after == before
        fresh = SegmentedStorage(inner)
        present = fresh.read(NAME) if fresh.exists(NAME) else None
        assert present in expected
        listed = [(info.name, info.size_bytes) for info in fresh.list()]
        assert listed == ([] if present is None else [(NAME, len(present))])


def do(
    storage: SegmentedStorage, what: str, content: bytes, present: bytes | None
) -> None:
    """Does it."""
    if what == "append":
        storage.append(NAME, content, at=len(present or b""))
    elif what == "replace":
        storage.replace(NAME, content)
    elif what == "delete":
        storage.delete(NAME)
    elif what == "swap":
        storage.swap(NAME, content, expected=present)
    elif what == "create":
        storage.create(NAME, [content])
    else:
        storage.sweep()


def done_in_one(
    what: str, content: bytes, present: bytes | None
) -> bytes | None:
    """What that would be where it is one request."""
    plain = MemoryStorage()
    if present is not None:
        plain.create(NAME, [present])
    if what == "append":
        plain.append(NAME, content, at=len(present or b""))
    elif what in ("replace", "swap"):
        plain.replace(NAME, content)
    elif what == "delete" and present is not None:
        plain.delete(NAME)
    elif what == "create" and present is None:
        plain.create(NAME, [content])
    return plain.read(NAME) if plain.exists(NAME) else None


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
