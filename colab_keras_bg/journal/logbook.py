"""What a run has measured: as lines for programs, as events for TensorBoard.

Invariant: both tell of the same steps. What is synced before a checkpoint is
synced in both, and what is dropped when the run goes on from a step is dropped
in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal import summaries
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.events import EventJournal, EventJournals
from colab_keras_bg.journal.metrics import (
    METRICS,
    MetricsJournal,
    named_apart,
    read_metrics,
)
from colab_keras_bg.journal.replayed import Earlier
from colab_keras_bg.journal.resource_events import ResourceEvents

__all__ = ["TENSORBOARD", "Logbook"]

TENSORBOARD = "tensorboard"


class Logbook:
    """Writes down what a run reports."""

    def __init__(self, run_dir: Path, *, run_id: Callable[[], str]) -> None:
        """Takes a run's local directory; nothing is touched.

        Args:
            run_dir: The directory.
            run_id: Tells the run's id, once it is known.
        """
        self._metrics = MetricsJournal(run_dir / METRICS)
        self._path = run_dir / METRICS
        self._earlier = Earlier(self._path)
        self._root = run_dir / TENSORBOARD
        self._events = EventJournals(run_id=run_id)
        self._resources = ResourceEvents(run_dir, self._events.at(self._root))

    def events(self, root: Path | None = None) -> EventJournal:
        """What writes TensorBoard's files for this run.

        Args:
            root: The folder; the run's own if None.
        """
        return self._events.at(root or self._root)

    def report(self, step: int, values: Mapping[str, Any], **more: Any) -> None:
        """Adds a line to `metrics.jsonl`.

        Args:
            step: The present step.
            values: JSON values by name.
            **more: Fields beside them, such as `epoch`.
        """
        own = {"step": step, **more, "time": time.time()}
        self._earlier.begin()
        try:
            self._metrics.append(named_apart(own, values))
        except OSError as error:
            say(f"the metrics of step {step} were not written: {error}")

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds numbers and texts of the user's, to both.

        Not what an earlier attempt has added already: a program that is run
        again comes by here again.

        Args:
            step: The present step.
            values: Numbers and texts by name.

        Raises:
            UsageError: If one is neither.
        """
        numbers: dict[str, float] = {}
        texts: dict[str, str] = {}
        for name, value in values.items():
            try:
                if isinstance(value, str):
                    texts[name] = value
                else:
                    numbers[name] = float(value)
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"Only numbers and texts can be logged: {name}: {error}."
                ) from None
        named = {**numbers, **texts}
        written = named_apart({"step": step, "time": 0.0}, named)
        del written["step"], written["time"]
        self._earlier.begin()
        if self._earlier.hold(step, written):
            return
        self.events().add(
            "",
            lambda: [
                *summaries.scalars(numbers),
                *(summaries.text(*one) for one in texts.items()),
            ],
            step=step,
            run_step=step,
        )
        self.report(step, named)

    def hparams(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes down what a training is made with, in both, once.

        Args:
            step: The present step.
            values: Numbers, texts and truth values by name.

        Raises:
            UsageError: If one is none of these.
        """
        plain = {str(name): _plain(name, v) for name, v in values.items()}
        known = None
        for line in read_metrics(self._path):
            known = line.get("hparams", known)
        if known == plain:
            return
        self.report(step, {}, hparams=plain)
        made = partial(summaries.hparams, plain, started=time.time())
        self.events().add("", lambda: [made()], step=0, run_step=step)

    def show_resources(self, attempt: int) -> None:
        """Shows what was written down of what an attempt uses.

        Args:
            attempt: The present attempt.
        """
        self._resources.show(attempt)

    def sync(self) -> tuple[int, str]:
        """Returns when all so far will survive a power cut.

        Returns:
            See `MetricsJournal.sync`.
        """
        self._events.sync()
        return self._metrics.sync()

    def cut_back(self, step: int) -> int:
        """Drops what is beyond a step.

        Args:
            step: The step that training goes on from.

        Returns:
            See `MetricsJournal.cut_back`.
        """
        self._earlier.begin()
        self._events.cut_back(step)
        dropped = self._metrics.cut_back(step)
        self._earlier.go_on()
        return dropped

    def close(self) -> None:
        """Writes what waits."""
        self._events.close()


def _plain(name: str, value: Any) -> bool | float | str:
    item = getattr(value, "item", None)  # A number of NumPy's.
    plain = item() if item is not None else value
    if isinstance(plain, bool | int | float | str):
        return plain
    raise UsageError(
        f"The hyperparameter {name} is {value!r:.80}: give a number, a text, "
        "True or False."
    )
