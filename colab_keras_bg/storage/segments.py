"""Files that grow, on a storage that cannot append.

Invariant: a file is its base, if there is one, and behind it segments: objects
that are created once, each named for where it begins and for the base that it
follows. A base that is replaced leaves the old segments without a base; they
do not count, whenever the process dies. Each byte is sent once.

The segments of `metrics.jsonl` lie in `metrics.jsonl.segments/`, where no name
of a user leads.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import google_crc32c

from colab_keras_bg.errors import (
    ConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageUnavailableError,
    UsageError,
)
from colab_keras_bg.storage.interface import (
    Capabilities,
    ObjectInfo,
    Storage,
    check_name,
    is_name,
)

__all__ = ["SegmentedStorage"]

_SUFFIX = ".segments"
_SEGMENT = re.compile(r"(?P<base>[0-9a-f]{8})-(?P<start>[0-9]{15})")
_NO_BASE = "00000000"


@dataclass(frozen=True)
class _Segment:
    name: str
    start: int
    size_bytes: int


@dataclass(frozen=True)
class _File:
    """A base of so many bytes, and the segments that follow it."""

    base: ObjectInfo | None
    tag: str
    segments: tuple[_Segment, ...]

    @property
    def is_there(self) -> bool:
        return self.base is not None or bool(self.segments)

    @property
    def size_bytes(self) -> int:
        if self.segments:
            last = self.segments[-1]
            return last.start + last.size_bytes
        return self.base.size_bytes if self.base else 0


class SegmentedStorage(Storage):
    """Appends to objects of a storage by making new ones."""

    def __init__(
        self,
        storage: Storage,
        *,
        may_grow: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Wraps a storage.

        Args:
            storage: The one that does the work.
            may_grow: Whether a file of this name may be appended to; nobody
                is asked for the segments of others, and what is appended to
                them all the same is sent anew.
        """
        self._storage, self._may_grow = storage, may_grow
        # The crc32c of bases, as long as they look the same.
        self._tags: dict[str, tuple[ObjectInfo, str]] = {}
        # What we have appended to: there is no other writer.
        self._grown: dict[str, _File] = {}
        self._lock = threading.RLock()

    @property
    def capabilities(self) -> Capabilities:
        """Those of the storage that does the work; and it appends."""
        return replace(self._storage.capabilities, appends=True)

    def describe(self) -> str:
        """See `Storage.describe`."""
        return self._storage.describe()

    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        """See `Storage.create`."""
        self._check_new(name)
        return self._storage.create(name, chunks)

    def upload(self, name: str, path: Path) -> ObjectInfo:
        """See `Storage.upload`."""
        self._check_new(name)
        return self._storage.upload(name, path)

    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """See `Storage.replace`; segments without a base are cleared away."""
        self._check(name)
        self._forget(name)
        made = self._storage.replace(name, content)
        self._clear(name)
        return made

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`; of a file that has grown, without segments."""
        self._check(name)
        self._forget(name)
        if self._file(name).segments:
            raise ConflictError(name, where=self.describe())
        return self._storage.swap(name, content, expected=expected)

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`; makes one new object."""
        self._check(name)
        if not self._grows(name):
            return self._storage.append(name, content, at=at)
        with self._lock:
            file = self._grown.pop(name, None) or self._file(name)
            if file.size_bytes == at + len(content) and file.is_there:
                if self._read(name, file, at, len(content)) != content:
                    raise ConflictError(name, where=self.describe())
                return ObjectInfo(name, size_bytes=file.size_bytes)
            if file.size_bytes != at:
                raise ConflictError(name, where=self.describe())
            if not content:
                if not file.is_there:
                    self._storage.replace(name, content)
                return ObjectInfo(name, size_bytes=at)
            tag = file.tag
            if file.base is not None and not file.segments:
                tag = self._tag(name, file.base)
            segment = f"{name}{_SUFFIX}/{tag}-{at:015d}"
            try:
                self._storage.create(segment, [content])
            except ObjectExistsError:
                # It does not show yet, or it has come since; or a writer
                # before us has left it behind a gap.
                if self._storage.read(segment) != content:
                    raise ConflictError(name, where=self.describe()) from None
            grown = _Segment(segment, at, len(content))
            file = replace(file, tag=tag, segments=(*file.segments, grown))
            self._grown[name] = file
            return ObjectInfo(name, size_bytes=file.size_bytes)

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        if not self._grows(name):
            return self._storage.read(name)
        file = self._existing(name)
        return self._read(name, file, 0, file.size_bytes)

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        if not self._grows(name):
            return self._storage.read_range(name, start, size_bytes)
        file = self._existing(name)
        end = min(start + size_bytes, file.size_bytes)
        return self._read(name, file, start, max(0, end - start))

    def map(self, name: str) -> memoryview:
        """See `Storage.map`; of a file that has grown, a copy."""
        file = self._existing(name)
        if file.segments:
            return memoryview(self._read(name, file, 0, file.size_bytes))
        return self._storage.map(name)

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        file = self._existing(name)
        if file.segments or file.base is None:
            return ObjectInfo(name, size_bytes=file.size_bytes)
        return file.base

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`; a file that has grown is one object."""
        grown: set[str] = set()
        plain: list[ObjectInfo] = []
        for info in self._storage.list(prefix):
            owner = _owner(info.name)
            if owner is None:
                plain.append(info)
            elif owner.startswith(prefix):
                grown.add(owner)
        for info in plain:
            if info.name not in grown:
                yield info
        for name in sorted(grown):
            file = self._file(name)
            if file.is_there:
                yield ObjectInfo(name, size_bytes=file.size_bytes)

    def delete(self, name: str) -> None:
        """See `Storage.delete`; the base first: nothing counts without it."""
        file = self._existing(name)
        self._forget(name)
        if file.base is not None:
            self._storage.delete(name)
        self._clear(name)

    def close(self) -> None:
        """See `Storage.close`."""
        self._storage.close()

    def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`."""
        return self._storage.free_bytes()

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """See `Storage.sweep`; segments that do not count go, too."""
        swept = list(self._storage.sweep(prefix))
        owners: dict[str, set[str]] = {}
        for info in self._storage.list(f"{prefix}/" if prefix else ""):
            if (owner := _owner(info.name)) is not None:
                owners.setdefault(owner, set()).add(info.name)
        for owner, names in owners.items():
            self._forget(owner)
            counted = {segment.name for segment in self._file(owner).segments}
            for name in sorted(names - counted):
                self._delete(name)
                swept.append(name)
        return tuple(swept)

    def _grows(self, name: str) -> bool:
        """Whether there may be segments of a name; not of one too long."""
        return self._may_grow(name) and is_name(name + _SUFFIX)

    def _check(self, name: str) -> None:
        if any(part.endswith(_SUFFIX) for part in check_name(name).split("/")):
            raise UsageError(
                f"{name!r} cannot name an object here: what ends in "
                f"{_SUFFIX!r} holds the parts of files that grow."
            )

    def _check_new(self, name: str) -> None:
        self._check(name)
        self._forget(name)
        if self._file(name).segments:
            raise ObjectExistsError(name, where=self.describe())

    def _existing(self, name: str) -> _File:
        self._check(name)
        file = self._file(name)
        if not file.is_there:
            raise ObjectNotFoundError(name, where=self.describe())
        return file

    def _file(self, name: str) -> _File:
        """What there is of a file, as the storage tells it."""
        base: ObjectInfo | None = None
        with contextlib.suppress(ObjectNotFoundError):
            base = self._storage.info(name)
        if not self._grows(name):
            return _File(base, _NO_BASE, ())
        found: dict[tuple[str, int], _Segment] = {}
        for info in self._listed(name):
            match = _SEGMENT.fullmatch(info.name.rpartition("/")[2])
            if match:
                start = int(match["start"])
                found[match["base"], start] = _Segment(
                    info.name, start, info.size_bytes
                )
        tag = _NO_BASE
        if base is not None and found:
            tag = self._tag(name, base)
        segments: list[_Segment] = []
        end = base.size_bytes if base else 0
        while segment := found.get((tag, end)):
            if not segment.size_bytes:
                break
            segments.append(segment)
            end += segment.size_bytes
        return _File(base, tag, tuple(segments))

    def _listed(self, name: str) -> Iterator[ObjectInfo]:
        """What lies where the segments of a file do."""
        try:
            yield from self._storage.list(f"{name}{_SUFFIX}/")
        except StorageUnavailableError as error:
            if error.errno != errno.ENOTDIR:  # Below an object is nothing.
                raise

    def _tag(self, name: str, base: ObjectInfo) -> str:
        if base.crc32c is not None:
            return base.crc32c
        known = self._tags.get(name)
        if (
            known is not None
            and base.md5 is not None
            and (known[0] == base and known[0].md5 == base.md5)
        ):
            return known[1]
        content = self._storage.read(name)
        tag = f"{google_crc32c.value(content):08x}"
        self._tags[name] = (base, tag)
        return tag

    def _read(
        self, name: str, file: _File, start: int, size_bytes: int
    ) -> bytes:
        """A range, over the joints."""
        end = start + size_bytes
        pieces: list[bytes] = []
        parts: list[tuple[str, int, int]] = []
        if file.base is not None:
            parts.append((name, 0, file.base.size_bytes))
        parts += [(s.name, s.start, s.size_bytes) for s in file.segments]
        for part, begin, length in parts:
            first, last = max(start, begin), min(end, begin + length)
            if first >= last:
                continue
            if (first, last) == (begin, begin + length):
                pieces.append(self._storage.read(part))
            else:
                pieces.append(
                    self._storage.read_range(part, first - begin, last - first)
                )
        return b"".join(pieces)

    def _clear(self, name: str) -> None:
        """Removes all segments, the first first: then none counts."""
        if not self._grows(name):
            return
        for segment in sorted(info.name for info in self._listed(name)):
            self._delete(segment)

    def _delete(self, name: str) -> None:
        try:
            self._storage.delete(name)
        except ObjectNotFoundError:
            return  # Gone already.

    def _forget(self, name: str) -> None:
        with self._lock:
            self._grown.pop(name, None)
            self._tags.pop(name, None)


def _owner(name: str) -> str | None:
    """The file that an object is a segment of; None if of none."""
    folder, _, last = name.rpartition("/")
    if folder.endswith(_SUFFIX) and _SEGMENT.fullmatch(last):
        return folder.removesuffix(_SUFFIX)
    return None
