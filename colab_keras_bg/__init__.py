"""Start a Keras training on a borrowed machine, and walk away.

    import colab_keras_bg as bg

    model.fit(data, epochs=90, callbacks=bg.unattended("runs/a"))

Run the same program again after any interruption, and it continues as if
nothing had happened. Importing this package imports neither Keras nor
TensorFlow nor JAX: what needs them is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from colab_keras_bg._version import __version__

if TYPE_CHECKING:
    from colab_keras_bg import data, errors
    from colab_keras_bg.callbacks.backup_and_restore import BackupAndRestore
    from colab_keras_bg.callbacks.companions import (
        OutputCapture,
        ResourceMonitor,
    )
    from colab_keras_bg.callbacks.explain import explain
    from colab_keras_bg.callbacks.export import export
    from colab_keras_bg.callbacks.restore import restore
    from colab_keras_bg.callbacks.tensorboard import TensorBoard
    from colab_keras_bg.callbacks.unattended import unattended
    from colab_keras_bg.report.console import watch
    from colab_keras_bg.report.metrics_table import load_metrics
    from colab_keras_bg.run import Run, current_run

__all__ = [
    "BackupAndRestore",
    "OutputCapture",
    "ResourceMonitor",
    "Run",
    "TensorBoard",
    "__version__",
    "current_run",
    "data",
    "errors",
    "explain",
    "export",
    "load_metrics",
    "restore",
    "unattended",
    "watch",
]

_HOMES = {
    "BackupAndRestore": "colab_keras_bg.callbacks.backup_and_restore",
    "OutputCapture": "colab_keras_bg.callbacks.companions",
    "ResourceMonitor": "colab_keras_bg.callbacks.companions",
    "Run": "colab_keras_bg.run",
    "TensorBoard": "colab_keras_bg.callbacks.tensorboard",
    "current_run": "colab_keras_bg.run",
    "explain": "colab_keras_bg.callbacks.explain",
    "export": "colab_keras_bg.callbacks.export",
    "load_metrics": "colab_keras_bg.report.metrics_table",
    "restore": "colab_keras_bg.callbacks.restore",
    "unattended": "colab_keras_bg.callbacks.unattended",
    "watch": "colab_keras_bg.report.console",
}
_ROOMS = ("data", "errors")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"colab_keras_bg.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
