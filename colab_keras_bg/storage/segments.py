"""Files that grow, on a storage that cannot append.

Invariant: a file is its base, if there is one, and behind it segments: objects
that are created once, each named for what it follows (see `segment_files.py`).
A base that is replaced leaves the old segments with nothing to follow; they do
not count, whenever the process dies. Each byte is sent once.

Segments that do not count, because a process died while it cleared them away,
would count as soon as what they follow were there again. So they are removed
before anything is put where they would follow.

A file that has grown has no checksum of its own.
"""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

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
from colab_keras_bg.storage.segment_files import (
    NOTHING,
    SUFFIX,
    GrownFile,
    Segment,
    is_reserved,
    owner_of,
    tag_after,
)

__all__ = ["SegmentedStorage"]

_READS = 5  # Of what is replaced while it is read.
_Pieces = list[ObjectInfo]  # `list` is a method in the class.


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
        self._grown: dict[str, GrownFile] = {}
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
        """See `Storage.replace`; the segments of what there was go after."""
        self._check(name)
        if not self._grows(name):
            return self._storage.replace(name, content)
        with self._lock:
            self._forget(name)
            file = self._grown_file(name)
            self._clear(file.strays)
            made = self._storage.replace(name, content)
            self._clear(segment.name for segment in file.segments)
            self._grown[name] = GrownFile(
                made, end_tag=tag_after(NOTHING, content)
            )
            return made

    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """See `Storage.swap`; of a file that has grown, all of it."""
        self._check(name)
        self._forget(name)
        file = self._grown_file(name)
        if not file.segments:
            self._clear(file.strays)
            return self._storage.swap(name, content, expected=expected)
        found = self.read(name)
        if found not in (expected, content):
            raise ConflictError(name, where=self.describe())
        if found != content:
            base = found[: file.base.size_bytes] if file.base else None
            self._clear(file.strays)
            self._storage.swap(name, content, expected=base)
            self._clear(segment.name for segment in file.segments)
        return ObjectInfo(name, size_bytes=len(content))

    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """See `Storage.append`; makes one new object."""
        self._check(name)
        if not self._grows(name):
            return self._storage.append(name, content, at=at)
        with self._lock:
            file = self._grown.pop(name, None) or self._file(name)
            if file.size_bytes == at + len(content) and file.is_there:
                if self.read_range(name, at, len(content)) != content:
                    raise ConflictError(name, where=self.describe())
                return ObjectInfo(name, size_bytes=file.size_bytes)
            if file.size_bytes != at:
                raise ConflictError(name, where=self.describe())
            self._clear(file.strays)
            if not content:
                return self._storage.replace(name, content)
            tag = file.end_tag or self._end_tag(name, file)
            segment = Segment(name, tag, at, len(content))
            try:
                self._storage.create(segment.name, [content])
            except ObjectExistsError:
                # It has come since, from us or from another.
                if self._storage.read(segment.name) != content:
                    raise ConflictError(name, where=self.describe()) from None
            self._grown[name] = GrownFile(
                file.base,
                (*file.segments, segment),
                end_tag=tag_after(tag, content),
            )
            return ObjectInfo(name, size_bytes=at + len(content))

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        self._check(name)
        if not self._grows(name):
            return self._storage.read(name)
        return self._read(name, 0, sys.maxsize)

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """See `Storage.read_range`."""
        self._check(name)
        if not self._grows(name):
            return self._storage.read_range(name, start, size_bytes)
        return self._read(name, start, size_bytes)

    def map(self, name: str) -> memoryview:
        """See `Storage.map`; of a file that has grown, a copy."""
        self._check(name)
        if self._grown_file(name).segments:
            return memoryview(self.read(name))
        return self._storage.map(name)

    def info(self, name: str) -> ObjectInfo:
        """See `Storage.info`."""
        return self._info(name, self._existing(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Storage.list`; a file that has grown is one object."""
        plain, pieces = self._sorted(prefix)
        for name, info in plain.items():
            if name not in pieces:
                yield info
        for name, segments in pieces.items():
            if not name.startswith(prefix):
                continue
            file = self._assembled(name, plain.get(name), segments)
            if file.is_there:
                yield self._info(name, file)

    def delete(self, name: str) -> None:
        """See `Storage.delete`; the base first: nothing counts without it.

        But for what is left of a file without one: it goes before, or it
        would count again.
        """
        file = self._existing(name)
        self._forget(name)
        self._clear(file.strays)
        if file.base is not None:
            self._storage.delete(name)
        self._clear(segment.name for segment in file.segments)

    def close(self) -> None:
        """See `Storage.close`."""
        self._storage.close()

    def free_bytes(self) -> int | None:
        """See `Storage.free_bytes`."""
        return self._storage.free_bytes()

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """See `Storage.sweep`; segments that do not count go, too."""
        swept = list(self._storage.sweep(prefix))
        _, pieces = self._sorted(f"{prefix}/" if prefix else "")
        for name in pieces:
            self._forget(name)
            strays = self._file(name).strays
            self._clear(strays)
            swept += strays
        return tuple(swept)

    def _grows(self, name: str) -> bool:
        """Whether there may be segments of a name; not of one too long."""
        return self._may_grow(name) and is_name(name + SUFFIX)

    def _check(self, name: str) -> None:
        if is_reserved(check_name(name)):
            raise UsageError(
                f"{name!r} cannot name an object here: what ends in "
                f"{SUFFIX!r} holds the parts of files that grow."
            )

    def _check_new(self, name: str) -> None:
        self._check(name)
        self._forget(name)
        file = self._grown_file(name)
        if file.segments:
            raise ObjectExistsError(name, where=self.describe())
        if file.base is None:
            self._clear(file.strays)

    def _existing(self, name: str) -> GrownFile:
        self._check(name)
        file = self._file(name)
        if not file.is_there:
            raise ObjectNotFoundError(name, where=self.describe())
        return file

    def _file(self, name: str) -> GrownFile:
        """What there is of a file, as the storage tells it.

        The base is looked at last: segments of one before it do not count,
        but a base without its segments would.
        """
        return self._on_base(name, self._pieces(name))

    def _on_base(self, name: str, pieces: _Pieces) -> GrownFile:
        base: ObjectInfo | None = None
        with contextlib.suppress(ObjectNotFoundError):
            base = self._storage.info(name)
        return self._assembled(name, base, pieces)

    def _grown_file(self, name: str) -> GrownFile:
        """The same, but nothing if there are no segments of any kind."""
        pieces = self._pieces(name)
        return self._on_base(name, pieces) if pieces else GrownFile()

    def _assembled(
        self, name: str, base: ObjectInfo | None, pieces: _Pieces
    ) -> GrownFile:
        if not pieces:
            return GrownFile(base)
        tag = NOTHING
        if base is not None:
            base, tag = self._tagged(name, base)
        return GrownFile.of(
            pieces, base=base, tag=tag, end_tag=self._tag_after_segment
        )

    def _tag_after_segment(self, segment: Segment) -> str:
        return tag_after(segment.tag, self._storage.read(segment.name))

    def _end_tag(self, name: str, file: GrownFile) -> str:
        """The crc32c of all of a file; only the last of it is read."""
        if file.segments:
            return self._tag_after_segment(file.segments[-1])
        if file.base is not None:
            return self._tagged(name, file.base)[1]
        return NOTHING

    def _pieces(self, name: str) -> _Pieces:
        """What lies where the segments of a file do, and is called so."""
        if not self._grows(name):
            return []
        try:
            listed = [*self._storage.list(f"{name}{SUFFIX}/")]
        except StorageUnavailableError as error:
            if error.errno != errno.ENOTDIR:  # Below an object is nothing.
                raise
            return []
        return [info for info in listed if owner_of(info.name) == name]

    def _sorted(
        self, prefix: str
    ) -> tuple[dict[str, ObjectInfo], dict[str, _Pieces]]:
        """The objects that users see, and the pieces of those that grow."""
        plain: dict[str, ObjectInfo] = {}
        pieces: dict[str, _Pieces] = {}
        for info in self._storage.list(prefix):
            owner = owner_of(info.name)
            if owner is not None and self._grows(owner):
                pieces.setdefault(owner, []).append(info)
            elif not is_reserved(info.name):
                plain[info.name] = info
        return plain, pieces

    def _tagged(
        self, name: str, base: ObjectInfo
    ) -> tuple[ObjectInfo | None, str]:
        """A base, as it is now if it has to be read, and its crc32c."""
        if base.crc32c is not None:
            return base, base.crc32c
        known = self._tags.get(name)
        if known and base.md5 and (known[0], known[0].md5) == (base, base.md5):
            return known
        try:
            content = self._storage.read(name)
        except ObjectNotFoundError:
            return None, NOTHING
        tag = tag_after(NOTHING, content)
        if len(content) != base.size_bytes:
            return ObjectInfo(name, size_bytes=len(content)), tag
        self._tags[name] = (base, tag)
        return base, tag

    def _info(self, name: str, file: GrownFile) -> ObjectInfo:
        if file.segments or file.base is None:
            return ObjectInfo(name, size_bytes=file.size_bytes)
        return file.base

    def _read(self, name: str, start: int, size_bytes: int) -> bytes:
        """A range, over the joints, of the file as it was at one moment."""
        for _ in range(_READS):
            file = self._existing(name)
            if not file.segments:
                if (start, size_bytes) == (0, sys.maxsize):
                    return self._storage.read(name)
                return self._storage.read_range(name, start, size_bytes)
            with contextlib.suppress(ObjectNotFoundError):  # Replaced.
                end = min(start + max(0, size_bytes), sys.maxsize)
                return file.read(self._storage, start, end)
        raise StorageUnavailableError(
            f"{name!r} in {self.describe()} was replaced {_READS} times while "
            "it was read. Try again."
        )

    def _clear(self, segments: Iterable[str]) -> None:
        """Removes segments; given the first first, none counts after it."""
        for name in segments:
            with contextlib.suppress(ObjectNotFoundError):  # Gone already.
                self._storage.delete(name)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._grown.pop(name, None)
            self._tags.pop(name, None)
