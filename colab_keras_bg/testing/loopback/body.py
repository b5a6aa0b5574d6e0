"""The body of a request, as it comes from the network.

Invariant: bytes are handed on as they come, in blocks of at most
`BLOCK_BYTES`, and a body that ends early raises: what was taken so far is
known to be a beginning only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from io import BufferedIOBase

from colab_keras_bg.testing.loopback.answers import ApiError

__all__ = ["BLOCK_BYTES", "Body", "CutShort"]

# What a resumable upload persists in: multiples of this.
BLOCK_BYTES = 256 << 10


class CutShort(Exception):  # noqa: N818 - a fault on demand is no error
    """A fault says that no more of a body is to be taken."""


class Body:
    """What a request carries.

    Attributes:
        size_bytes: The size that was announced; None if it comes in chunks.
        received_bytes: What has been taken so far.
        cut_after_bytes: After how many bytes `CutShort` is raised, at the
            latest when the body ends; None if never.
    """

    def __init__(
        self,
        stream: BufferedIOBase,
        size_bytes: int | None,
        count: Callable[[int], None] = lambda size_bytes: None,
    ) -> None:
        """Takes the connection and the announced size.

        Args:
            stream: What it comes from.
            size_bytes: Its size, or None.
            count: Told of the size of each block that comes.
        """
        self.size_bytes = size_bytes
        self.received_bytes = 0
        self.cut_after_bytes: int | None = None
        self._first = b""
        self._count = count
        self._coming = (
            _in_chunks(stream)
            if size_bytes is None
            else _in_blocks(stream, size_bytes)
        )

    def peek(self) -> bytes:
        """The first block, which is handed on later nevertheless."""
        if not self._first:
            self._first = next(self._coming, b"")
        return self._first

    def blocks(self) -> Iterator[bytes]:
        """What has not been taken yet.

        Raises:
            CutShort: If a fault says so.
            ConnectionError: If the body ends early.
        """
        for block in self._taken():
            cut = self.cut_after_bytes
            if cut is not None and self.received_bytes >= cut:
                if kept := block[: len(block) - (self.received_bytes - cut)]:
                    yield kept
                raise CutShort
            yield block
        if self.cut_after_bytes is not None:
            raise CutShort

    def read(self) -> bytes:
        """All that has not been taken yet, in one."""
        return b"".join(self.blocks())

    def drain(self) -> None:
        """Throws away what has not been taken yet."""
        for _ in self._taken():
            pass

    def _taken(self) -> Iterator[bytes]:
        first, self._first = self._first, b""
        for block in itertools.chain([first] if first else [], self._coming):
            self.received_bytes += len(block)
            self._count(len(block))
            yield block


def _in_blocks(stream: BufferedIOBase, size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0:
        wanted = min(size_bytes, BLOCK_BYTES)
        block = stream.read(wanted)
        size_bytes -= len(block)
        if block:
            yield block
        if len(block) < wanted:
            raise ConnectionError("The body ended early.")


def _in_chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while True:
        line = stream.readline(1024)
        try:
            size_bytes = int(line.partition(b";")[0], 16)
        except ValueError:
            if not line:
                raise ConnectionError("The body ended early.") from None
            raise ApiError.invalid("Invalid chunk of a body.") from None
        yield from _in_blocks(stream, size_bytes)
        if not size_bytes:
            while stream.readline(65536).strip():
                pass
            return
        stream.readline(2)
