"""Data whose order is known: any position of it can be gone back to."""

from colab_keras_bg.data.in_memory import ArraysAdapter, arrays

__all__ = ["ArraysAdapter", "arrays"]
