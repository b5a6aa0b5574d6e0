"""What is shown in TensorBoard, as it is stored.

Invariant: the one place that knows TensorBoard's messages. They are those
that `tf.summary` writes, made without TensorFlow, and none is imported before
the first is made.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "Array",
    "Value",
    "first_event",
    "histogram",
    "hparams",
    "image",
    "keras_graph",
    "png",
    "scalars",
    "summary_event",
    "text",
]

Array = np.ndarray[Any, Any]
# A value of a summary: one tag, with what is shown under it.
Value = Any

_FLOAT, _DOUBLE, _STRING = 1, 2, 7  # Of TensorBoard's types.
# Version 1: out of order, a step takes the place of those of its tag that are
# not before it. With 2, only a START does, and that of all tags.
_VERSION = "brain.Event:1"
_BUCKETS = 30
_IMAGES = 3


def first_event(*, wall_time: float, writer: str) -> bytes:
    """What a file begins with.

    Args:
        wall_time: Seconds since 1970.
        writer: Who writes it.
    """
    from tensorboard.compat.proto import event_pb2

    event = event_pb2.Event(wall_time=wall_time, file_version=_VERSION)
    event.source_metadata.writer = writer
    serialized: bytes = event.SerializeToString()
    return serialized


def summary_event(
    values: Sequence[Value], *, step: int, wall_time: float
) -> bytes:
    """An event.

    Args:
        values: What is shown; there may be nothing.
        step: Where it is shown.
        wall_time: Seconds since 1970.
    """
    from tensorboard.compat.proto import event_pb2, summary_pb2

    summary = summary_pb2.Summary(value=values)
    event = event_pb2.Event(wall_time=wall_time, step=step, summary=summary)
    serialized: bytes = event.SerializeToString()
    return serialized


def scalars(
    named: Mapping[str, Any],
    *,
    prefix: str = "",
    skip: Callable[[str], None] = lambda _: None,
) -> list[Value]:
    """Numbers.

    Args:
        named: Numbers of any kind by name; those in it by name, too.
        prefix: Of the tags.
        skip: Told the tag of what is no number.
    """
    found: list[Value] = []
    for name, value in named.items():
        if isinstance(value, Mapping):
            found += scalars(value, prefix=prefix, skip=skip)
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            skip(f"{prefix}{name}")
            continue
        found.append(
            _value(
                f"{prefix}{name}",
                plugin="scalars",
                dtype=_FLOAT,
                tensor_content=_float32(number),
            )
        )
    return found


def text(tag: str, content: str) -> Value:
    """Text, shown as Markdown.

    Args:
        tag: Its name.
        content: The text.
    """
    return _value(
        tag, plugin="text", dtype=_STRING, string_val=[content.encode()]
    )


def keras_graph(tag: str, model: str) -> Value:
    """A model, shown as a graph of its layers.

    Args:
        tag: Its name.
        model: What `model.to_json()` returns.
    """
    return _value(
        tag,
        plugin="graph_keras_model",
        content=b"1",
        dtype=_STRING,
        string_val=[model.encode()],
    )


def histogram(tag: str, array: Array) -> Value:
    """How the numbers of an array are distributed, in 30 buckets.

    Args:
        tag: Its name.
        array: Numbers, in any shape.
    """
    numbers = np.ravel(array).astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    edges = np.zeros(_BUCKETS + 1)
    counts = np.zeros(_BUCKETS)
    if finite.size:
        low, high = finite.min(), finite.max()
        edges = np.linspace(low, high, _BUCKETS + 1)
        if low < high and (edges[1:] > edges[:-1]).all():
            counts = np.histogram(finite, _BUCKETS, (low, high))[0] * 1.0
        else:
            edges = np.full(_BUCKETS + 1, high)
            counts[-1] = finite.size
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    return _value(
        tag,
        plugin="histograms",
        dtype=_DOUBLE,
        shape=buckets.shape,
        tensor_content=buckets.astype("<f8").tobytes(),
    )


def image(tag: str, images: Array) -> Value:
    """The first three images.

    Args:
        tag: Their name.
        images: Numbers from 0 to 1, of shape (images, height, width, channels)
            with 1, 3 or 4 channels.
    """
    count, height, width, _ = images.shape
    scaled = np.nan_to_num(images[:_IMAGES].astype(np.float64)) * 255.5
    pixels = np.clip(scaled, 0, 255).astype(np.uint8)
    encoded = [png(one) for one in pixels]
    sizes = [str(width).encode(), str(height).encode()]
    return _value(
        tag,
        plugin="images",
        dtype=_STRING,
        shape=(2 + min(count, _IMAGES),),
        string_val=[*sizes, *encoded],
    )


def png(pixels: Array) -> bytes:
    """An image in the format PNG.

    Args:
        pixels: Bytes, of shape (height, width, channels) with 1, 3 or 4
            channels.
    """
    height, width, channels = pixels.shape
    colours = {1: 0, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in (
            (b"IHDR", head),
            (b"IDAT", zlib.compress(lines.tobytes())),
            (b"IEND", b""),
        )
    )


def hparams(values: Mapping[str, Any], *, started: float) -> Value:
    """What a training is made with.

    Args:
        values: Numbers, texts and truth values by name.
        started: When it began, in seconds since 1970.
    """
    from tensorboard.plugins.hparams import plugin_data_pb2

    named = json.dumps(values, sort_keys=True, separators=(",", ":"))
    begun = plugin_data_pb2.SessionStartInfo(
        group_name=hashlib.sha256(named.encode()).hexdigest(),
        start_time_secs=started,
    )
    for name, value in values.items():
        if isinstance(value, bool):
            begun.hparams[name].bool_value = value
        elif isinstance(value, str):
            begun.hparams[name].string_value = value
        else:
            begun.hparams[name].number_value = value
    told = plugin_data_pb2.HParamsPluginData(session_start_info=begun)
    return _value(
        "_hparams_/session_start_info",
        plugin="hparams",
        content=told.SerializeToString(),
        dtype=_FLOAT,
        shape=(0,),
    )


def _value(
    tag: str,
    *,
    plugin: str,
    content: bytes = b"",
    shape: Sequence[int] = (),
    **tensor: Any,
) -> Value:
    from tensorboard.compat.proto import summary_pb2

    value = summary_pb2.Summary.Value(tag=tag, tensor=tensor)
    value.metadata.plugin_data.plugin_name = plugin
    value.metadata.plugin_data.content = content
    value.tensor.tensor_shape.SetInParent()
    for size in shape:
        value.tensor.tensor_shape.dim.add(size=size)
    return value


def _float32(number: float) -> bytes:
    try:
        return struct.pack("<f", number)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, number))


def _chunk(kind: bytes, content: bytes) -> bytes:
    size, crc32 = len(content), zlib.crc32(kind + content)
    return struct.pack(">I", size) + kind + content + struct.pack(">I", crc32)
