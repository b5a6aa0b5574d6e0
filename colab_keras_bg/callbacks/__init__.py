"""Adapters from Keras' hooks to a run."""

from colab_keras_bg.callbacks.backup_and_restore import BackupAndRestore
from colab_keras_bg.callbacks.unattended import unattended

__all__ = ["BackupAndRestore", "unattended"]
