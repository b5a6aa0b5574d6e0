"""The manifest: what a committed checkpoint consists of.

Invariant: a manifest is accepted only if its bytes are exactly the canonical
form of its content, its own hash included. So no byte of it can change
unnoticed, and nothing in it is used before that is known.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colab_keras_bg.checkpoint.hashing import Digest, content_hash
from colab_keras_bg.checkpoint.layout import is_data_file_name

__all__ = ["FORMAT", "MAX_BYTES", "Manifest"]

FORMAT = "colab_keras_bg.checkpoint/1"
MAX_BYTES = 64 << 20  # Some 400,000 tensors.

_HEX = re.compile("[0-9a-f]+")


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
        tensors: The `tensor_hash` of each tensor, by key.
        references: The tensors that lie in a file of an earlier step, by
            key: that step, and the file's name.
        metrics: What was last reported, by name.
    """

    step: int
    attempt: int
    created: float
    tensors_file: str
    state_file: str
    files: Mapping[str, Digest]
    tensors: Mapping[str, str]
    references: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def origins(self) -> frozenset[tuple[int, str]]:
        """The files of earlier steps that it needs, each with its step."""
        return frozenset(self.references.values())

    @property
    def size_bytes(self) -> int:
        """The size of all its own files."""
        return sum(digest.size_bytes for digest in self.files.values())

    def to_bytes(self) -> bytes:
        """Its canonical form.

        Raises:
            ValueError: If it holds more than can be read back.
        """
        body = {
            "format": FORMAT,
            **vars(self),
            "files": {name: vars(one) for name, one in self.files.items()},
        }
        body["xxh3_128"] = content_hash(_canonical(body))
        content = _canonical(body)
        if len(content) > MAX_BYTES:
            raise ValueError(
                f"a manifest of {len(content)} bytes is larger than {MAX_BYTES}"
            )
        return content

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
        try:
            body = json.loads(content)
            written = body["format"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(
                "it is not a manifest, or not a whole one"
            ) from None
        if written != FORMAT:
            found = repr(written) if isinstance(written, str) else "unreadable"
            raise ValueError(
                f"its format is {found:.80}; this version reads {FORMAT!r}"
            )
        try:
            manifest = cls._from_body(body)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError("it does not hold what a manifest holds") from None
        if manifest.to_bytes() != content:
            raise ValueError("its content does not match its hash")
        if manifest.step != step:
            raise ValueError(f"it belongs to step {manifest.step}")
        return manifest

    @classmethod
    def _from_body(cls, body: Mapping[str, Any]) -> Manifest:
        """The values of a decoded manifest, if they have the right types."""
        files = {
            name: Digest(
                size_bytes=_count(digest["size_bytes"]),
                crc32c=_hash(digest["crc32c"], digits=8),
                xxh3_128=_hash(digest["xxh3_128"], digits=32),
            )
            for name, digest in body["files"].items()
        }
        manifest = cls(
            step=_count(body["step"]),
            attempt=_count(body["attempt"]),
            created=_time(body["created"]),
            tensors_file=body["tensors_file"],
            state_file=body["state_file"],
            files=files,
            tensors={
                key: _hash(value, digits=32)
                for key, value in body["tensors"].items()
            },
            references={
                key: _place(value) for key, value in body["references"].items()
            },
            metrics={
                name: _number(value) for name, value in body["metrics"].items()
            },
        )
        if not all(map(is_data_file_name, files)):
            raise ValueError("a file name that is not ours")
        if not (
            manifest.tensors_file in files
            and manifest.state_file in files
            and is_data_file_name(manifest.tensors_file, "tensors")
            and is_data_file_name(manifest.state_file, "state")
        ):
            raise ValueError("a file without a digest, or of another kind")
        if not manifest.references.keys() <= manifest.tensors.keys() or any(
            origin >= manifest.step for origin, _ in manifest.origins
        ):
            raise ValueError("a reference to what cannot be there")
        return manifest


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("not a number of things")
    return value


def _place(value: Any) -> tuple[int, str]:
    step, name = value
    if not isinstance(name, str) or not is_data_file_name(name, "tensors"):
        raise ValueError("a file name that is not ours")
    return _count(step), name


def _number(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise ValueError("not a number")
    return value


def _time(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise ValueError("not a time")
    return value


def _hash(value: Any, *, digits: int) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError("not a hash")
    if len(value) != digits:
        raise ValueError("not a hash of this length")
    return value


def _canonical(body: Mapping[str, Any]) -> bytes:
    # Without an indent, which the quick encoder does not know.
    text = json.dumps(
        body, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return text.encode() + b"\n"
