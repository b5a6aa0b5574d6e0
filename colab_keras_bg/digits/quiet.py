"""Starting a backend without the lines that its libraries print about it.

Invariant: what is hidden is shown after all if the start fails.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

__all__ = ["start_backend"]


def start_backend() -> None:
    """Imports Keras and has its backend find its devices.

    TensorFlow's libraries print a dozen lines meanwhile, before any setting
    reaches them; a person who runs the built-in job has no use for them.
    """
    with _standard_error_aside():
        import keras

        keras.ops.convert_to_numpy(keras.ops.zeros((1,)))


@contextlib.contextmanager
def _standard_error_aside() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
