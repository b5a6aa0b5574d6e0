"""Checksums against vectors that others have published."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.checkpoint.hashing import (
    BLOCK_BYTES,
    Digest,
    Hasher,
    blocks,
    content_hash,
)


def digest_of(*chunks: bytes | memoryview) -> Digest:
    """The digest of some chunks."""
    hasher = Hasher()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.digest()


@pytest.mark.parametrize(
    ("content", "crc32c"),
    [
        (b"", "00000000"),
        (b"123456789", "e3069283"),  # The catalogue's check value.
        (b"\0" * 32, "8a9136aa"),  # RFC 3720, B.4, these four.
        (b"\xff" * 32, "62a8ab43"),
        (bytes(range(32)), "46dd794e"),
        (bytes(range(31, -1, -1)), "113fdb5c"),
    ],
)
def test_crc32c(content: bytes, crc32c: str) -> None:
    """The checksum is CRC-32C, as object stores compute it."""
    assert digest_of(content).crc32c == crc32c


@pytest.mark.parametrize(
    ("content", "xxh3"),
    [
        # The reference's values for XXH3 of 128 bits, seed 0.
        (b"", "99aa06d3014798d86001c324468d497f"),
        (b"a", "a96faf705af16834e6c632b61e964e1f"),
        (b"abc", "06b05ab6733a618578af5f94892f3950"),
    ],
)
def test_xxh3(content: bytes, xxh3: str) -> None:
    """The hash is XXH3 of 128 bits, in the reference's order of digits."""
    assert digest_of(content).xxh3_128 == xxh3
    assert content_hash(content) == xxh3
    assert content_hash(memoryview(content)) == xxh3


@given(chunks=st.lists(st.binary(max_size=300)))
def test_chunks_do_not_matter(chunks: list[bytes]) -> None:
    """However content is cut, bytes or views, its digest is the same."""
    whole = b"".join(chunks)
    expected = digest_of(whole)
    assert expected == digest_of(*chunks)
    assert expected == digest_of(*map(memoryview, chunks))
    assert expected.size_bytes == len(whole)
    hasher = Hasher()
    assert list(hasher.passing(chunks)) == chunks
    assert expected == hasher.digest()


def test_a_digest_on_the_way() -> None:
    """A digest may be taken at any time, of what has passed so far."""
    hasher = Hasher()
    hasher.update(b"1234")
    assert hasher.digest() == digest_of(b"1234")
    hasher.update(b"5")
    assert hasher.digest() == digest_of(b"12345")


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_blocks(size: int) -> None:
    """Blocks are whole but the last, share the memory, and are the content."""
    content = bytes(size)
    found = list(blocks(content))
    assert b"".join(found) == content
    assert all(len(block) == BLOCK_BYTES for block in found[:-1])
    assert all(block.obj is content for block in found)
    assert len(found) == -(-size // BLOCK_BYTES)
