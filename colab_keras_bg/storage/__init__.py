"""Bytes that outlive a process, and later the machine."""

from colab_keras_bg.storage.interface import Capabilities, ObjectInfo, Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.memory import MemoryStorage

__all__ = [
    "Capabilities",
    "LocalStorage",
    "MemoryStorage",
    "ObjectInfo",
    "Storage",
]
