"""The manifest: what a committed checkpoint consists of.

Invariant: a manifest is accepted only if its bytes are exactly the canonical
form of its content, its own hash included. So no byte of it can change
unnoticed, and nothing in it is used before that is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from colab_keras_bg.checkpoint.hashing import Digest, content_hash
from colab_keras_bg.checkpoint.layout import is_data_file_name

__all__ = ["FORMAT", "Manifest"]

FORMAT = "colab_keras_bg.checkpoint/1"
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of.

    Attributes:
        step: Training batches consumed since the run began.
        attempt: The attempt that wrote it.
        created: When, in seconds since 1970.
        tensors_file: The name of the safetensors file.
        state_file: The name of the JSON file with everything else.
        files: The digest of each file, by name.
        tensors: The XXH3 hash of 128 bits of each tensor's bytes, by key.
    """

    step: int
    attempt: int
    created: float
    tensors_file: str
    state_file: str
    files: Mapping[str, Digest]
    tensors: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """The size of all its files."""
        return sum(digest.size_bytes for digest in self.files.values())

    def to_bytes(self) -> bytes:
        """Its canonical form."""
        body = {"format": FORMAT, **asdict(self)}
        body["xxh3_128"] = content_hash(_canonical(body))
        return _canonical(body)

    @classmethod
    def from_bytes(cls, content: bytes, *, step: int) -> Manifest:
        """Reads a manifest.

        Args:
            content: The bytes of the file.
            step: The step whose folder it lies in.

        Raises:
            ValueError: If it is not the manifest of that step, unchanged.
        """
        if not content:
            raise ValueError("it is empty")
        if len(content) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        try:
            body = json.loads(content)
            written = body["format"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError("it is not a manifest, or not a whole one") from None
        if written != FORMAT:
            raise ValueError(
                f"its format is {str(written)[:80]!r}; this version reads "
                f"{FORMAT!r}"
            )
        try:
            found = cls._from_body(body)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError("it does not hold what a manifest holds") from None
        if found.to_bytes() != content:
            raise ValueError("its content does not match its hash")
        if found.step != step:
            raise ValueError(f"it belongs to step {found.step}")
        return found

    @classmethod
    def _from_body(cls, body: Mapping[str, Any]) -> Manifest:
        files = {
            str(name): Digest(
                size_bytes=int(digest["size_bytes"]),
                crc32c=str(digest["crc32c"]),
                xxh3_128=str(digest["xxh3_128"]),
            )
            for name, digest in body["files"].items()
        }
        manifest = cls(
            step=int(body["step"]),
            attempt=int(body["attempt"]),
            created=float(body["created"]),
            tensors_file=str(body["tensors_file"]),
            state_file=str(body["state_file"]),
            files=files,
            tensors={str(k): str(v) for k, v in body["tensors"].items()},
        )
        if not all(map(is_data_file_name, files)):
            raise ValueError("a file name that is not ours")
        if {manifest.tensors_file, manifest.state_file} - set(files):
            raise ValueError("a file without a digest")
        return manifest


def _canonical(body: Mapping[str, Any]) -> bytes:
    text = json.dumps(body, sort_keys=True, indent=1, allow_nan=False)
    return text.encode() + b"\n"
