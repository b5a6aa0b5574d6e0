"""Tensors in safetensors files, ours and the reference's."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from colab_keras_bg.checkpoint import tensors as module
from colab_keras_bg.checkpoint.hashing import BLOCK_BYTES, content_hash
from colab_keras_bg.checkpoint.tensors import parse, serialize
from colab_keras_bg.tensor import LazyTensor

from .saves import bits_of

DTYPES = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32"),
    *("uint64", "int64", "float16", "float32", "float64", "complex64"),
    *("bfloat16", "float8_e4m3fn", "float8_e5m2"),
)
# What `safetensors.numpy` has no name for; PyTorch and JAX users read them.
NOT_IN_NUMPY = ("bfloat16", "float8_e4m3fn", "float8_e5m2")

Arrays = Mapping[str, np.ndarray[Any, Any]]


def dtype_of(name: str) -> np.dtype[Any]:
    """A dtype by its name, those of `ml_dtypes` included."""
    return np.dtype(getattr(ml_dtypes, name, name))


def written(arrays: Arrays) -> bytes:
    """A file of some arrays."""
    tensors = {key: LazyTensor.of(array) for key, array in arrays.items()}
    return b"".join(bytes(c) for c in serialize(tensors, hashes={}))


def read(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a file."""
    return parse(memoryview(content))


def all_bits(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Values of every bit pattern, or of very many: NaNs, infinities, -0."""
    if dtype == np.bool_:
        return np.array([True, False, True])
    draw = np.random.default_rng(7)
    return np.frombuffer(draw.bytes(dtype.itemsize * 4_096), dtype=dtype)


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(name: str) -> None:
    """Every dtype comes back as it was, bit by bit, whatever the bits mean."""
    dtype = dtype_of(name)
    arrays = {
        "bits": all_bits(dtype),
        "scalar": np.ones((), dtype=dtype),
        "one": np.ones((1, 1, 1), dtype=dtype),
        "empty": np.ones((0,), dtype=dtype),
        "empty too": np.ones((3, 0, 5), dtype=dtype),
    }
    found = read(written(arrays))
    assert bits_of(arrays) == bits_of(found)


@pytest.mark.parametrize("name", [r"\ud800layers", r"\udfff"])
def test_a_name_that_is_no_text(name: str) -> None:
    """A header may hold half a character, which nobody can write again."""
    content = written({"x" * len(name): np.arange(3.0)})
    forged = content.replace(b"x" * len(name), name.encode())
    with pytest.raises(ValueError, match="not a safetensors header"):
        read(forged)


def test_the_dtypes_are_all() -> None:
    """The dtypes above are all that a file of ours can hold."""
    assert {dtype_of(name) for name in DTYPES} == set(module._dtypes().values())


def test_no_tensors() -> None:
    """A file without tensors is a file."""
    assert read(written({})) == {}


def some_array(
    name: str, shape: tuple[int, ...], seed: int
) -> np.ndarray[Any, Any]:
    """An array of random bits."""
    dtype, size = dtype_of(name), math.prod(shape)
    if dtype == np.bool_:
        return np.random.default_rng(seed).random(shape) < 0.5
    data = np.random.default_rng(seed).bytes(size * dtype.itemsize)
    return np.frombuffer(data, dtype=dtype).reshape(shape)


@settings(max_examples=150, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text().filter(lambda key: key != "__metadata__"),
        st.builds(
            some_array,
            st.sampled_from(DTYPES),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
            st.integers(0, 1_000),
        ),
        max_size=6,
    )
)
def test_any_tensors(arrays: Arrays) -> None:
    """Any names, shapes and values come back, and their order too."""
    content = written(arrays)
    found = read(content)
    assert bits_of(arrays) == bits_of(found)
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert ["__metadata__", *arrays] == list(header)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(4, 6).T,
        np.arange(24).reshape(4, 6)[::2, ::-3],
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.broadcast_to(np.float32(3), (5, 7)),
        np.arange(24, dtype=ml_dtypes.bfloat16).reshape(4, 6).T,
        np.frombuffer(b"x" + bytes(range(16)), np.int32, offset=1),
    ],
    ids=["transposed", "strided", "Fortran", "broadcast", "bfloat16", "skew"],
)
def test_any_memory_order(array: np.ndarray[Any, Any]) -> None:
    """Arrays are stored as they read, however they lie in memory."""
    found = read(written({"a": array}))["a"]
    assert bits_of({"a": np.array(array, order="C")}) == bits_of({"a": found})


@pytest.mark.parametrize(
    "dtype",
    [
        ">f4",
        ">i8",
        ">u2",
        ">c8",
        "complex128",
        "O",
        "S3",
        "U3",
        "V4",
        "datetime64[s]",
        [("a", "f4")],
        "longdouble",
    ],
    ids=str,
)
def test_dtypes_that_are_refused(dtype: Any) -> None:
    """
    What the format has no name for is refused by name, not converted: above
    all big-endian numbers, which would come back as another dtype.
    """
    array = np.zeros(2, dtype=dtype)
    with pytest.raises(ValueError, match="b: a safetensors file cannot hold"):
        written({"a": np.zeros(2), "b": array})


def test_a_big_endian_array_can_be_converted() -> None:
    """Who has one says what it should become."""
    array = np.arange(3, dtype=">f4")
    found = read(written({"a": array.astype("<f4")}))["a"]
    assert found.tolist() == [0, 1, 2]


@pytest.mark.parametrize("key", ["__metadata__", "\ud800"], ids=ascii)
def test_names_that_are_refused(key: str) -> None:
    """A name that the format reserves, or cannot encode, is refused."""
    with pytest.raises(ValueError, match=r"cannot hold|surrogates"):
        written({key: np.zeros(2)})


def test_a_header_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that no reader would accept is not written."""
    arrays = {"x" * 100: np.zeros(2)}
    size = len(written(arrays)) - 16 - 8
    monkeypatch.setattr(module, "MAX_HEADER_BYTES", size)
    assert list(read(written(arrays))) == list(arrays)
    monkeypatch.setattr(module, "MAX_HEADER_BYTES", size - 1)
    with pytest.raises(ValueError, match="the names of 1 tensors take more"):
        written(arrays)
    with pytest.raises(ValueError, match="header's size does not fit"):
        read(safetensors.numpy.save({"x" * 200: np.zeros(2)}))


@pytest.mark.parametrize(
    "fetched",
    [
        np.zeros(6, np.float32),
        np.zeros((3, 2), np.float32),
        np.zeros((2, 3, 1), np.float32),
        np.zeros((2, 3), np.float64),
        np.zeros((2, 3), np.int32),
        np.zeros((2, 3), ">f4"),
        np.float32(0),
    ],
    ids=["flat", "turned", "deep", "float64", "int32", "big-endian", "scalar"],
)
def test_tensors_that_are_not_as_announced(fetched: Any) -> None:
    """The header is written first: what does not fit it is refused."""
    tensor = LazyTensor(np.dtype(np.float32), (2, 3), lambda: fetched)
    with pytest.raises(ValueError, match=r"a: announced as float32 of shape"):
        list(serialize({"a": tensor}, hashes={}))


def test_tensors_are_fetched_one_at_a_time() -> None:
    """
    A tensor is fetched when the file has come to it, and exactly once; the
    header needs none.
    """
    fetched = []

    def lazy(key: str) -> LazyTensor:
        def fetch() -> np.ndarray[Any, Any]:
            fetched.append(key)
            return np.zeros(3)

        return LazyTensor(np.dtype(np.float64), (3,), fetch)

    pieces = serialize({key: lazy(key) for key in "abc"}, hashes={})
    assert fetched == []
    next(pieces)
    assert fetched == []
    for key in "abc":
        next(pieces)
        assert fetched[-1] == key
    assert list(pieces) == []
    assert fetched == ["a", "b", "c"]


@given(key=st.text(min_size=1, max_size=9))
def test_the_values_start_aligned(key: str) -> None:
    """The first tensor lies at a multiple of 8 bytes, as readers like it."""
    header = next(serialize({key: LazyTensor.of(np.zeros(1))}, hashes={}))
    assert len(header) % 8 == 0


def test_large_tensors_are_written_in_blocks() -> None:
    """No piece is larger than a block, and together they are the tensor."""
    array = np.arange(BLOCK_BYTES // 4 + 1_000, dtype=np.float64)
    pieces = list(serialize({"a": LazyTensor.of(array)}, hashes={}))
    assert [len(p) for p in pieces[1:3]] == [BLOCK_BYTES] * 2
    assert len(pieces) == 4
    found = read(b"".join(map(bytes, pieces)))
    assert bits_of({"a": array}) == bits_of(found)


def test_hashes_of_tensors() -> None:
    """
    The hash of each tensor is that of its dtype, its shape and its bytes as
    they are stored.
    """
    arrays = {
        "a": np.arange(24).reshape(4, 6).T,
        "b": np.zeros((0, 2)),
        "c": np.ones((), ml_dtypes.bfloat16),
    }
    hashes: dict[str, str] = {}
    tensors = {key: LazyTensor.of(array) for key, array in arrays.items()}
    list(serialize(tensors, hashes=hashes))
    said = {"a": b"I64[6, 4]\n", "b": b"F64[0, 2]\n", "c": b"BF16[]\n"}
    assert hashes == {
        key: content_hash(said[key] + array.tobytes())
        for key, array in arrays.items()
    }


def test_sizes_of_tensors() -> None:
    """A tensor's size is known before its values are."""
    dtype = np.dtype(ml_dtypes.bfloat16)
    tensors = [LazyTensor(dtype, s, list) for s in ((), (0, 3), (2, 5))]  # type: ignore[arg-type]
    assert [tensor.size_bytes for tensor in tensors] == [2, 0, 20]


# The reference reads ours.


@contextlib.contextmanager
def reference(path: Path) -> Iterator[Any]:
    """The reference reader, for NumPy."""
    with safetensors.safe_open(path, framework="numpy") as file:
        yield file


@pytest.mark.parametrize("name", DTYPES)
def test_the_reference_reads_our_files(name: str, tmp_path: Path) -> None:
    """
    The reference library opens our files and finds the same names, shapes and
    bits; dtypes that NumPy does not have it knows by name.
    """
    dtype = dtype_of(name)
    arrays = {
        "a/b": all_bits(dtype)[:2].reshape(2, 1),
        "ü": np.ones((), dtype=dtype),
        "empty": np.ones((2, 0), dtype=dtype),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(written(arrays))
    with reference(path) as file:
        assert set(arrays) == set(file.keys())
        assert file.metadata() == {"format": "np"}
        for key, array in arrays.items():
            found = file.get_slice(key)
            assert list(array.shape) == found.get_shape()
            assert module._names()[dtype] == found.get_dtype()
            if name not in NOT_IN_NUMPY:
                bits = bits_of({"x": file.get_tensor(key)})
                assert bits_of({"x": array}) == bits
    if name not in NOT_IN_NUMPY:
        for found in (
            safetensors.numpy.load_file(path),
            safetensors.numpy.load(path.read_bytes()),
        ):
            assert bits_of(arrays) == bits_of(found)


def test_the_reference_reads_mixed_files(tmp_path: Path) -> None:
    """Small tensors before large ones, which then lie at odd places."""
    arrays = {
        "a": np.array([True]),
        "b": np.arange(5, dtype=np.float64),
        "c": np.array([1, 2, 3], dtype=np.int8),
        "d": np.ones((2, 2), dtype=np.complex64),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(written(arrays))
    assert bits_of(arrays) == bits_of(safetensors.numpy.load_file(path))
    assert bits_of(arrays) == bits_of(read(path.read_bytes()))


# We read the reference's.


@pytest.mark.parametrize("metadata", [None, {"who": "they"}])
def test_we_read_the_references_files(
    metadata: dict[str, str] | None,
) -> None:
    """What the reference library writes, in its own order, we read."""
    arrays = {
        f"{name}/{shape}": np.ones(shape, dtype=name)
        for name in DTYPES
        if name not in NOT_IN_NUMPY
        for shape in ((), (2, 3), (0,))
    }
    content = safetensors.numpy.save(arrays, metadata=metadata)
    assert bits_of(arrays) == bits_of(read(content))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_nothing_else_is_raised(data: st.DataObject) -> None:
    """
    Whatever the bytes are, reading them gives tensors or a ValueError, and
    tensors only if the reference library, too, finds nothing wrong.
    """
    content = bytearray(
        written({"a": np.arange(3.0), "b": np.ones((2, 1), np.int8)})
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    try:
        read(bytes(content))
    except ValueError:
        return
    safetensors.deserialize(bytes(content))
