"""What a run's process prints, for as long as it is kept.

Invariant: only of a process that we did not start ourselves: there, and only
there, is something put between the program and where it prints to. It ends
with the run, and in a notebook at the latest with the cell.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import Any

from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.capture import Capture
from colab_keras_bg.run_directory import RunDirectory

__all__ = ["RunOutput"]


class RunOutput:
    """The output of a run's own process."""

    def __init__(
        self,
        directory: RunDirectory,
        *,
        kept: bool,
        thin: bool | None = None,
    ) -> None:
        """Takes an open run's directory; nothing is kept yet.

        Args:
            directory: The run directory.
            kept: Whether it is kept at all.
            thin: Whether a few lines a minute are shown of what is much;
                None: in a notebook.
        """
        self._directory, self._kept, self._thin = directory, kept, thin
        self._capture: Capture | None = None
        self._forget: Callable[[], object] | None = None
        self._cell_is_over, self._step_then = False, -1

    def begin(self) -> None:
        """Keeps what is printed from now on, unless that is done already."""
        self._cell_is_over = False
        if self._forget is None:
            self._forget = _at_cell_end(self._cell_ends)
        if not self._kept or self._capture is not None:
            return
        where = shlex.quote(self._directory.address)
        capture = Capture(
            self._directory.path,
            self._directory.attempt,
            thin=self._thin,
            advice=f"colab-keras-bg logs {where}",
        )
        try:
            capture.start()
        except OSError as error:
            say(f"what is printed is not kept: {error}")
            return
        self._capture = capture

    def end(self) -> None:
        """Leaves everything as it was."""
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()
        self._stop()

    def is_left_at(self, step: int) -> bool:
        """Whether the cell is over, and the training has stood still since.

        It was left by an exception then, or by whoever has interrupted it.

        Args:
            step: Where it is; asked again and again.
        """
        before, self._step_then = self._step_then, step
        return self._cell_is_over and step == before

    def _cell_ends(self, *told: Any) -> None:
        self._cell_is_over = True
        self._stop()

    def _stop(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.stop()


def _at_cell_end(do: Callable[..., object]) -> Callable[[], object]:
    """Has something done when the present cell ends, if there is one.

    Returns:
        Takes that back.
    """
    shell = None
    if (ipython := sys.modules.get("IPython")) is not None:
        shell = ipython.get_ipython()
    if shell is None:
        return lambda: None
    shell.events.register("post_run_cell", do)
    return lambda: shell.events.unregister("post_run_cell", do)
