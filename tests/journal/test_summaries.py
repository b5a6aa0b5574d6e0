"""What is shown, against what TensorBoard itself makes of the same."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.util.tensor_util import make_ndarray

from colab_keras_bg.journal import summaries

RANDOM = np.random.default_rng(0)


def test_scalars() -> None:
    """Numbers of any kind are shown; what is none is told."""
    skipped: list[str] = []
    found = summaries.scalars(
        {
            "a": 1,
            "b": np.float64(0.5),
            "in": {"c": np.array(2.0), "d": "text"},
            "big": 1e300,
            "nan": float("nan"),
            "many": np.ones(3),
        },
        prefix="batch_",
        skip=skipped.append,
    )
    shown = {v.tag: make_ndarray(v.tensor) for v in found}
    assert ["batch_d", "batch_many"] == skipped
    assert (1, 0.5, 2) == tuple(shown[f"batch_{n}"] for n in "abc")
    assert np.isinf(shown["batch_big"])
    assert np.isnan(shown["batch_nan"])
    assert all(value.dtype == np.float32 for value in shown.values())
    assert {"scalars"} == {v.metadata.plugin_data.plugin_name for v in found}


def test_text() -> None:
    """A text is what TensorBoard makes of it."""
    (expected,) = text_pb("note", "# Title ä").value
    actual = summaries.text("note", "# Title ä")
    assert make_ndarray(expected.tensor) == make_ndarray(actual.tensor)
    assert expected.metadata == actual.metadata


@pytest.mark.parametrize(
    "array",
    [
        RANDOM.normal(size=(30, 7)).astype("float32"),
        RANDOM.normal(size=50).astype(ml_dtypes.bfloat16),
        np.zeros((3, 3)),
        np.array([np.nextafter(1, 2), 1.0]),
        np.zeros(0),
        np.arange(4),
    ],
    ids=["normal", "bfloat16", "constant", "too close", "empty", "integers"],
)
def test_histogram(array: Any) -> None:
    """A histogram counts each number, between the ends of TensorBoard's."""
    (expected,) = histogram_pb("w", array.astype("float64")).value
    actual = summaries.histogram("w", array)
    theirs, ours = map(make_ndarray, (expected.tensor, actual.tensor))
    assert theirs.shape == ours.shape == (30, 3)
    assert theirs.dtype == ours.dtype
    assert array.size == ours[:, 2].sum()
    if array.size:
        assert ours[0, 0] >= theirs[0, 0]
        np.testing.assert_allclose(theirs[-1, 1], ours[-1, 1])
    plugin = actual.metadata.plugin_data
    assert "histograms" == plugin.plugin_name


def test_histogram_of_what_is_no_number() -> None:
    """What is not finite is left out."""
    values = np.array([np.nan, np.inf, 1.0, 2.0])
    buckets = make_ndarray(summaries.histogram("w", values).tensor)
    assert 2 == buckets[:, 2].sum()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png(channels: int) -> None:
    """An image is a file that any reader of PNG understands."""
    pixels = RANDOM.integers(0, 256, (5, 7, channels)).astype(np.uint8)
    encoded = io.BytesIO(summaries.png(pixels))
    assert b"\x89PNG\r\n\x1a\n" == encoded.read(8)
    chunks: dict[bytes, bytes] = {}
    while head := encoded.read(8):
        size, kind = struct.unpack(">I4s", head)
        chunks[kind] = encoded.read(size)
        (crc32,) = struct.unpack(">I", encoded.read(4))
        assert zlib.crc32(kind + chunks[kind]) == crc32
    assert [b"IHDR", b"IDAT", b"IEND"] == [*chunks]
    width, height, depth, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (7, 5, 8) == (width, height, depth)
    assert {1: 0, 3: 2, 4: 6}[channels] == colours
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8)
    assert pixels.tolist() == (
        lines.reshape(5, -1)[:, 1:].reshape(pixels.shape).tolist()
    )


def test_images() -> None:
    """The first three of some images, with their width and height."""
    value = summaries.image("w", np.full((5, 2, 3, 1), [[[[2.0]]]]))
    width, height, *images = make_ndarray(value.tensor)
    assert (b"3", b"2", 3) == (width, height, len(images))


def test_hparams() -> None:
    """Hyperparameters are what TensorBoard makes of them."""
    values = {"lr": 1e-3, "units": 64, "name": "a", "bias": True}
    (expected,) = hparams_pb(values, start_time_secs=5).value
    actual = summaries.hparams(values, started=5)
    told = [
        HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for value in (expected, actual)
    ]
    assert told[0] == told[1]
    for value in (expected, actual):
        value.metadata.plugin_data.content = b""
    assert expected == actual


def test_nothing_heavy_is_imported() -> None:
    """Making them needs no TensorFlow, also where there is one."""
    program = """
import json, sys
from colab_keras_bg.journal import summaries
light = "tensorboard" not in sys.modules
summaries.summary_event(summaries.scalars({"a": 1}), step=1, wall_time=1)
summaries.hparams({"a": 1}, started=1)
summaries.first_event(wall_time=1, writer="a")
heavy = [m for m in ("tensorflow", "keras", "jax") if m in sys.modules]
print(json.dumps([light, heavy]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        timeout=60,
        env={**os.environ},
    )
    assert [True, []] == json.loads(ended.stdout)
