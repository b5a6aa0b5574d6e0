"""The runs that this process has open.

Invariant: at most one for a directory: whoever asks for it again in a later
cell, or for another callback of the same `fit`, gets the same.
"""

from __future__ import annotations

import os
from typing import Any

from colab_keras_bg.run import Run, opened
from colab_keras_bg.run_directory import directory_of

__all__ = ["open_run"]


def open_run(run_dir: str | os.PathLike[str], **settings: Any) -> Run:
    """The open run of a directory in this process, or a new one, opened.

    Args:
        run_dir: The run directory.
        **settings: As for `Run`, used if it is new.
    """
    run = opened(directory_of(run_dir))
    if run is None:
        run = Run(run_dir, **settings)
        run.open()
    return run
