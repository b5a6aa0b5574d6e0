"""What a file that grows by segments is made of, told by names and sizes.

Invariant: only segments that follow the base that is there, and each other
without a gap, are of the file. All else that is called like one is a stray.

The segments of `metrics.jsonl` lie in `metrics.jsonl.segments/`, each named
for the place where it begins and the crc32c of all that stands before it, the
base and segments. So there is but one name for what follows next, and whoever
reads a segment can tell whether what was read before is what it follows.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import google_crc32c

from colab_keras_bg.storage.interface import ObjectInfo, Storage

__all__ = [
    "NOTHING",
    "SUFFIX",
    "GrownFile",
    "Segment",
    "is_reserved",
    "owner_of",
    "tag_after",
]

SUFFIX = ".segments"
# The crc32c of no bytes: a base without content is as good as none.
NOTHING = "00000000"
_SEGMENT = re.compile(r"([0-9a-f]{8})-([0-9]{15})")


@dataclass(frozen=True)
class Segment:
    """A part of a file.

    Attributes:
        file: The file's name.
        tag: The crc32c of what stands before it in the file.
        start: Where in the file it begins.
        size_bytes: Its size.
    """

    file: str
    tag: str
    start: int
    size_bytes: int

    @property
    def name(self) -> str:
        """The object that holds it."""
        return f"{self.file}{SUFFIX}/{self.tag}-{self.start:015d}"


@dataclass(frozen=True)
class GrownFile:
    """A base, the segments that follow it, and those that do not.

    Attributes:
        base: The object of the file's own name, if there is one.
        segments: What follows it, in order.
        strays: The names of segments that do not count, sorted.
        end_tag: The crc32c of all of it; None if it is not known.
    """

    base: ObjectInfo | None = None
    segments: tuple[Segment, ...] = ()
    strays: tuple[str, ...] = ()
    end_tag: str | None = None

    @classmethod
    def of(
        cls,
        found: Iterable[ObjectInfo],
        *,
        base: ObjectInfo | None,
        tag: str,
        end_tag: Callable[[Segment], str],
    ) -> GrownFile:
        """Puts a file together.

        Args:
            found: What is called like a segment of the file.
            base: The object of the file's name, if there is one.
            tag: Its crc32c.
            end_tag: The crc32c of all up to the end of a segment; asked for
                only if more than one could follow it.
        """
        names, starting = set[str](), dict[int, dict[str, Segment]]()
        for info in found:
            names.add(info.name)
            segment = _segment(info)
            if segment.size_bytes:
                starting.setdefault(segment.start, {})[segment.tag] = segment
        segments: list[Segment] = []
        end, expected = base.size_bytes if base else 0, tag
        while following := starting.get(end):
            if segments:
                expected = next(iter(following))
                if len(following) > 1:
                    expected = end_tag(segments[-1])
            if expected not in following:
                break
            segments.append(following[expected])
            end += following[expected].size_bytes
        names -= {segment.name for segment in segments}
        return cls(base, tuple(segments), tuple(sorted(names)))

    @property
    def is_there(self) -> bool:
        """Whether there is such a file."""
        return self.base is not None or bool(self.segments)

    @property
    def size_bytes(self) -> int:
        """The size of all of it."""
        if self.segments:
            return self.segments[-1].start + self.segments[-1].size_bytes
        return self.base.size_bytes if self.base else 0

    def read(self, storage: Storage, start: int, end: int) -> bytes:
        """Reads a range, over the joints.

        If the file is being replaced, it comes as it was at some moment since
        this was put together: what a segment says of what is before it, is
        compared with what was read.

        Args:
            storage: What holds the objects.
            start: The first byte, from 0.
            end: Where to end; the file may end before.

        Raises:
            ObjectNotFoundError: If a part is gone: put it together anew.
        """
        parts = [(one.name, one.start, one.tag) for one in self.segments]
        if self.base is not None:
            parts.insert(0, (self.base.name, 0, NOTHING))
        # The last one may have become longer; and there is none behind it.
        ends = [*(begin for _, begin, _ in parts[1:]), sys.maxsize]
        pieces: list[bytes] = []
        expected: str | None = None
        for (name, begin, tag), part_end in zip(parts, ends, strict=True):
            if start >= part_end or begin >= end:
                continue
            if expected not in (None, tag):
                break
            first = max(start - begin, 0)
            if end <= part_end and (first, end) != (0, sys.maxsize):
                pieces.append(
                    storage.read_range(name, first, end - begin - first)
                )
            else:
                content = storage.read(name)
                expected = tag_after(tag, content)
                pieces.append(content[first : end - begin])
        return b"".join(pieces)


def tag_after(tag: str, content: bytes) -> str:
    """The crc32c of what had one, with more behind it.

    Args:
        tag: That of what stands before, `NOTHING` if that is nothing.
        content: What stands behind.
    """
    return f"{google_crc32c.extend(int(tag, 16), content):08x}"


def owner_of(name: str) -> str | None:
    """The file that an object is a segment of; None if of none."""
    folder, _, last = name.rpartition("/")
    if folder.endswith(SUFFIX) and _SEGMENT.fullmatch(last):
        return folder.removesuffix(SUFFIX)
    return None


def is_reserved(name: str) -> bool:
    """Whether a name is one that users may not have."""
    return any(part.endswith(SUFFIX) for part in name.split("/"))


def _segment(info: ObjectInfo) -> Segment:
    folder, _, last = info.name.rpartition("/")
    tag, _, start = last.partition("-")
    return Segment(
        folder.removesuffix(SUFFIX), tag, int(start), info.size_bytes
    )
