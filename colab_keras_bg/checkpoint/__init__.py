"""Committed checkpoints: whole or not there."""

from colab_keras_bg.checkpoint.store import Checkpoint, CheckpointStore

__all__ = ["Checkpoint", "CheckpointStore"]
