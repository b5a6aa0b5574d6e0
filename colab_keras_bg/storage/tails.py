"""Parts of a file that grows, at a cost that does not.

Invariant: never more is read than was allowed, however large the file. Only
whole lines come, in their order; a line that is cut by the edge of what was
read is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from colab_keras_bg.errors import ObjectNotFoundError
from colab_keras_bg.storage.interface import Storage

__all__ = ["lines_of", "sampled_lines", "size_of", "tail_lines"]

_BLOCK_BYTES = 1 << 20
# Smaller pieces are not worth a request.
_LEAST_BYTES = 4096


def size_of(storage: Storage, name: str) -> int:
    """How large an object is; 0 if there is none.

    Args:
        storage: Where it lies.
        name: Its name.

    Raises:
        StorageUnavailableError: If that cannot be told.
    """
    try:
        return storage.info(name).size_bytes
    except ObjectNotFoundError:
        return 0


def lines_of(storage: Storage, name: str, *, end: int) -> Iterator[bytes]:
    """All whole lines, read block by block.

    Args:
        storage: Where the object lies.
        name: Its name.
        end: How much of it is read.

    Raises:
        StorageUnavailableError: If it cannot be read.
    """
    start, cut = 0, b""
    while start < end:
        block = _range(storage, name, start, min(_BLOCK_BYTES, end - start))
        if not block:
            return
        start += len(block)
        *lines, cut = (cut + block).split(b"\n")
        yield from lines


def tail_lines(storage: Storage, name: str, *, most_bytes: int) -> list[bytes]:
    """The last whole lines, oldest first, without their ends.

    Args:
        storage: Where the object lies.
        name: Its name; nothing comes if there is none.
        most_bytes: How much is read at most.

    Raises:
        StorageUnavailableError: If it cannot be read.
    """
    size_bytes = size_of(storage, name)
    return _piece(storage, name, max(0, size_bytes - most_bytes), size_bytes)


def sampled_lines(
    storage: Storage, name: str, *, most_bytes: int, pieces: int = 16
) -> Iterator[bytes]:
    """All lines, or of a large object those of pieces from all over it.

    Args:
        storage: Where the object lies.
        name: Its name; nothing comes if there is none.
        most_bytes: How much is read at most.
        pieces: From how many places at most; the beginning and the end are
            among them.

    Raises:
        StorageUnavailableError: If it cannot be read.
    """
    size_bytes = size_of(storage, name)
    if size_bytes <= most_bytes:
        yield from lines_of(storage, name, end=size_bytes)
        return
    count = max(2, min(pieces, most_bytes // _LEAST_BYTES))
    piece = most_bytes // count
    for index in range(count):
        start = (size_bytes - piece) * index // (count - 1)
        yield from _piece(storage, name, start, start + piece)


def _piece(storage: Storage, name: str, start: int, end: int) -> list[bytes]:
    """The whole lines between two places."""
    begin = max(0, start - 1)  # Whether a line begins there.
    block = _range(storage, name, begin, end - begin) if end > start else b""
    lines = block.split(b"\n")[:-1]
    return lines[1:] if start else lines


def _range(storage: Storage, name: str, start: int, size_bytes: int) -> bytes:
    try:
        return storage.read_range(name, start, size_bytes)
    except ObjectNotFoundError:
        return b""
