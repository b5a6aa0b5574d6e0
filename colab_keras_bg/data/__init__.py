"""Data whose order is known: any position of it can be gone back to."""

from colab_keras_bg.data.in_memory import ArraysAdapter, arrays
from colab_keras_bg.data.indexed import IndexedAdapter, indexed
from colab_keras_bg.data.stream import StreamAdapter, stream

__all__ = [
    "ArraysAdapter",
    "IndexedAdapter",
    "StreamAdapter",
    "arrays",
    "indexed",
    "stream",
]
