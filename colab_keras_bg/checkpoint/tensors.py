"""Tensors in a safetensors file.

Invariant: what is written, any safetensors reader opens; what is read has
been checked against the file's real size before a byte of it is touched, and
nothing read is ever executed.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from colab_keras_bg.checkpoint.hashing import blocks, tensor_hash
from colab_keras_bg.tensor import LazyTensor

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MAX_HEADER_BYTES",
    "has_header_of",
    "hash_of",
    "hash_of_view",
    "parse",
    "serialize",
]

MAX_HEADER_BYTES = 100_000_000  # The limit of the reference reader.
_MAX_DIMENSIONS = 64  # NumPy's.
_METADATA = "__metadata__"


@functools.cache
def _dtypes() -> dict[str, np.dtype[Any]]:
    """Each dtype by its name in the format.

    NumPy takes a fifth of a second, which who only looks does not need.
    """
    import ml_dtypes
    import numpy as np

    return {
        "BOOL": np.dtype(np.bool_),
        "U8": np.dtype(np.uint8),
        "I8": np.dtype(np.int8),
        "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
        "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
        "I16": np.dtype("<i2"),
        "U16": np.dtype("<u2"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
        "I32": np.dtype("<i4"),
        "U32": np.dtype("<u4"),
        "F32": np.dtype("<f4"),
        "C64": np.dtype("<c8"),
        "F64": np.dtype("<f8"),
        "I64": np.dtype("<i8"),
        "U64": np.dtype("<u8"),
    }


@functools.cache
def _names() -> dict[np.dtype[Any], str]:
    return {dtype: name for name, dtype in _dtypes().items()}


def serialize(
    tensors: Mapping[str, LazyTensor], *, hashes: dict[str, str]
) -> Iterator[bytes | memoryview]:
    """Writes a safetensors file piece by piece.

    Each tensor is fetched when its turn comes and released after its last
    block, so that no second copy of all of them ever exists.

    Args:
        tensors: The tensors by key; written in this order.
        hashes: Receives the hash of each tensor whose hash is not there yet.

    Yields:
        The file's bytes, in order.

    Raises:
        ValueError: If a dtype has no name in the format, which knows no
            big-endian numbers, if a key or the whole header cannot be
            written, or if a tensor is not what it was announced to be.
    """
    yield _header(tensors)
    for key in list(tensors):
        tensor = tensors[key]
        data = _bytes_of(_fetched(key, tensor))
        if key not in hashes:
            hashes[key] = _hash(tensor, data)
        yield from blocks(data)
        del data
        tensor.release()


def hash_of(key: str, tensor: LazyTensor) -> str:
    """The hash of a tensor, without releasing it.

    Args:
        key: Its key, for the message.
        tensor: The tensor.

    Raises:
        ValueError: As `serialize`.
    """
    _check(key, tensor)
    return _hash(tensor, _bytes_of(_fetched(key, tensor)))


def hash_of_view(array: np.ndarray[Any, Any]) -> str:
    """The hash of a tensor that `parse` returned."""
    import numpy as np

    return tensor_hash(
        _names()[array.dtype], array.shape, _bytes_of(np.asarray(array))
    )


def _hash(tensor: LazyTensor, data: memoryview) -> str:
    return tensor_hash(_names()[tensor.dtype], tensor.shape, data)


def _bytes_of(values: np.ndarray[Any, Any]) -> memoryview:
    import numpy as np

    return memoryview(values.reshape(-1).view(np.uint8))


def _check(key: str, tensor: LazyTensor) -> None:
    if tensor.dtype not in _names() or key == _METADATA:
        raise ValueError(
            f"{key}: a safetensors file cannot hold {tensor.dtype} "
            "under this name"
        )


def _fetched(key: str, tensor: LazyTensor) -> np.ndarray[Any, Any]:
    import numpy as np

    values = np.asarray(tensor.fetch())
    if values.dtype != tensor.dtype or values.shape != tensor.shape:
        raise ValueError(
            f"{key}: announced as {tensor.dtype} of shape {tensor.shape}, "
            f"fetched {values.dtype} of shape {values.shape}"
        )
    return np.ascontiguousarray(values)


def _header(tensors: Mapping[str, LazyTensor]) -> bytes:
    entries: dict[str, Any] = {_METADATA: {"format": "np"}}
    end = 0
    for key, tensor in tensors.items():
        _check(key, tensor)
        start, end = end, end + tensor.size_bytes
        entries[key] = {
            "dtype": _names()[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
    header = text.encode()
    header += b" " * (-len(header) % 8)  # The values start aligned.
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(
            f"the names of {len(tensors)} tensors take more than the "
            f"{MAX_HEADER_BYTES} bytes that a safetensors header may have"
        )
    return struct.pack("<Q", len(header)) + header


def has_header_of(
    arrays: Mapping[str, np.ndarray[Any, Any]], file: memoryview
) -> bool:
    """Whether a file begins as `serialize` would begin it for these tensors.

    Args:
        arrays: What `parse` returned.
        file: The bytes of the file.
    """
    header = _header({key: LazyTensor.of(a) for key, a in arrays.items()})
    return file[: len(header)] == header


def parse(file: memoryview) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a safetensors file, as read-only views into it.

    Args:
        file: The bytes of the file, mapped or in memory.

    Returns:
        The arrays by key.

    Raises:
        ValueError: If the file is not a valid safetensors file: a header
            that lies about sizes, overlaps, leaves gaps or is too large.
    """
    header_bytes = struct.unpack("<Q", file[:8])[0] if len(file) >= 8 else None
    if header_bytes is None or header_bytes > min(
        MAX_HEADER_BYTES, len(file) - 8
    ):
        raise ValueError("the header's size does not fit the file")
    try:
        entries = json.loads(
            bytes(file[8 : 8 + header_bytes]), object_pairs_hook=_unique
        )
        entries.pop(_METADATA, None)
        "".join(entries).encode()  # A name has to be text.
        placed = sorted(
            (tuple(entry["data_offsets"]), key, entry)
            for key, entry in entries.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("the header is not a safetensors header") from None
    data = file[8 + header_bytes :]
    arrays, position = {}, 0
    for offsets, key, entry in placed:
        arrays[key] = _view(data, position, offsets, key, entry)
        position = offsets[1]
    if position != len(data):
        raise ValueError("the file is longer or shorter than its tensors")
    return arrays


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that stands there twice")
    return found


def _view(
    data: memoryview, position: int, offsets: Any, key: str, entry: Any
) -> np.ndarray[Any, Any]:
    import numpy as np

    name, shape = entry.get("dtype"), entry.get("shape")
    if not (
        isinstance(name, str)
        and name in _dtypes()
        and isinstance(shape, list)
        and len(shape) <= _MAX_DIMENSIONS
        and len(offsets) == 2
        and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, *offsets))
    ):
        raise ValueError(f"the header's entry of {key!r:.80} is not valid")
    dtype, (start, end) = _dtypes()[name], offsets
    if start != position or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the place of {key!r:.80} does not fit its shape")
    if end > len(data):
        raise ValueError(f"the file ends before {key!r:.80} does")
    try:
        return np.frombuffer(data[start:end], dtype=dtype).reshape(shape)
    except ValueError:  # No bytes, and dimensions beyond any memory.
        raise ValueError(f"the shape of {key!r:.80} is not valid") from None
