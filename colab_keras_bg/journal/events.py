"""The events of a run, written beside the training.

Invariant: nothing here raises into the training or holds it up for longer
than it takes to fill a queue; what goes wrong is said once, and once that it
is over. What was added before `sync` is on disk when that returns, so that a
checkpoint never comes before the events that led to it.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.event_files import EventFolder, cut_back
from colab_keras_bg.journal.summaries import Value

__all__ = ["EventJournal", "EventJournals"]

_MOST_WAITING = 2000
_PATIENCE_SECS = 1.0  # How long the training may be held up by a full queue.
_SYNC_SECS = 60.0
_RETRY_SECS = 1.0
# Works without arguments, in the thread that writes.
_Job = Callable[[], object]


@dataclass(frozen=True)
class _Added:
    """What is to be shown; made only where it is written."""

    folder: str
    values: Callable[[], Iterable[Value]]
    step: int
    run_step: int
    wall_time: float


class EventJournal:
    """Writes event files below one folder, from a thread of its own.

    Attributes:
        root: The folder.
        last_epoch: The last step that the end of an epoch was shown at; -1 if
            none was. Whoever goes on sets it.
    """

    def __init__(
        self,
        root: Path,
        *,
        run_id: Callable[[], str] = str,
        most_waiting: int = _MOST_WAITING,
        patience_secs: float = _PATIENCE_SECS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes the folder; nothing is made, and no thread started.

        Args:
            root: A local folder.
            run_id: Tells the run that the events are of; empty if of none.
            most_waiting: How many events may wait.
            patience_secs: How long a full queue holds up who adds to it.
            clock: Seconds since 1970.
        """
        self.root, self._run_id, self._clock = root, run_id, clock
        self.last_epoch = -1
        self._queue: queue.Queue[_Added | _Job] = queue.Queue(most_waiting)
        self._patience_secs = patience_secs
        self._folders: dict[str, EventFolder] = {}
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._ending = False
        self._said: set[str] = set()
        self._problem: str | None = None
        self._lost = 0

    def add(
        self,
        folder: str,
        values: Callable[[], Iterable[Value]],
        *,
        step: int,
        run_step: int,
    ) -> None:
        """Adds an event.

        Args:
            folder: Where below the root; the root itself if empty.
            values: Makes what is shown, in another thread.
            step: Where it is shown.
            run_step: The step of the run, which it goes or stays with.
        """
        added = _Added(folder, values, step, run_step, self._clock())
        if not self._put(added):
            self._lost += 1
            self.say_once(
                f"the disk does not keep up with what is to be shown in "
                f"{self.root}: some of it will be missing there"
            )

    def do(self, job: _Job) -> None:
        """Has something done in the order of what is added.

        Args:
            job: What; that it failed is said.
        """
        self._put(job)

    def sync(self) -> bool:
        """Waits until all that was added will survive a power cut.

        Returns:
            Whether it will; if not, that was said.
        """
        if self._thread is None or not self._thread.is_alive():
            return True  # Nothing was added; not in a fork of this process.
        done = threading.Event()
        if self._put(lambda: self._sync(done)) and done.wait(_SYNC_SECS):
            return self._problem is None
        self.say_once(f"{self.root} does not answer; the run goes on without")
        return False

    def cut_back(self, step: int) -> None:
        """Drops what was written beyond a step, before what is added next.

        Args:
            step: The step that the training goes on from.
        """
        if self._thread is not None or self.root.is_dir():
            self._put(lambda: self._cut_back(step))

    def close(self) -> None:
        """Writes what was added, and ends; `add` begins anew."""
        with self._starting:
            thread = self._thread
        if thread is None or not thread.is_alive():
            return
        self.sync()
        self._ending = True
        self._put(lambda: None)  # So that it looks.
        thread.join(_SYNC_SECS)
        atexit.unregister(self.close)
        with self._starting:
            self._thread, self._ending = None, False
        self._folders.clear()

    def say_once(self, what: str) -> None:
        """Says something that would be said again and again.

        Args:
            what: What to say.
        """
        if what not in self._said:
            self._said.add(what)
            say(what)

    def _put(self, item: _Added | _Job) -> bool:
        """Whether there was room for it."""
        self._start()
        try:
            self._queue.put(item, timeout=self._patience_secs)
        except queue.Full:
            self._patience_secs = 0.0  # Nobody waits twice.
            return False
        return True

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="events", daemon=True
                )
                self._thread.start()
                atexit.register(self.close)

    # In the thread.

    def _work(self) -> None:
        while not (self._ending and self._queue.empty()):
            timeout = _RETRY_SECS if self._problem else None
            try:
                items = [self._queue.get(timeout=timeout)]
            except queue.Empty:
                items = []
            while items and len(items) < _MOST_WAITING:
                try:
                    items.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            for item in items:
                self._handle(item)
            self._flush()
        for folder in self._folders.values():
            self._trying(folder.close)

    def _handle(self, item: _Added | _Job) -> None:
        try:
            if isinstance(item, _Added):
                values = list(item.values())
                if values:
                    self._folder(item.folder).add(
                        values,
                        step=item.step,
                        run_step=item.run_step,
                        wall_time=item.wall_time,
                    )
            else:
                item()
        except Exception as error:  # noqa: BLE001 - said; training goes on
            self.say_once(
                f"something is not shown in {self.root}: "
                f"{type(error).__name__}: {error}"
            )

    def _folder(self, name: str) -> EventFolder:
        if name not in self._folders:
            self._folders[name] = EventFolder(
                self.root / name, run_id=self._run_id(), clock=self._clock
            )
        return self._folders[name]

    def _flush(self) -> None:
        well = [self._trying(f.flush) for f in self._folders.values()]
        if self._problem is not None and all(well):
            self._problem = None
            lost = sum(folder.lost for folder in self._folders.values())
            missing = f", but for {lost} events" if lost else ""
            say(f"TensorBoard's files are written again{missing}")

    def _sync(self, done: threading.Event) -> None:
        self._flush()
        for folder in self._folders.values():
            self._trying(folder.sync)
        done.set()

    def _cut_back(self, step: int) -> None:
        self._flush()
        for folder in self._folders.values():
            self._trying(folder.begin_anew)
        cut_back(self.root, step, run_id=self._run_id())

    def _trying(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except OSError as error:
            if self._problem is None:
                self._problem = str(error)
                say(
                    f"TensorBoard's files are not written: {error}. Training "
                    "goes on, and they are as soon as that is possible"
                )
            return False
        return True


class EventJournals:
    """All event journals of one run."""

    def __init__(self, *, run_id: Callable[[], str]) -> None:
        """Begins without any.

        Args:
            run_id: Tells the run.
        """
        self._run_id = run_id
        self._journals: dict[Path, EventJournal] = {}

    def at(self, root: Path) -> EventJournal:
        """The one that writes below a folder.

        Args:
            root: The folder.
        """
        if root not in self._journals:
            self._journals[root] = EventJournal(root, run_id=self._run_id)
        return self._journals[root]

    def sync(self) -> None:
        """See `EventJournal.sync`."""
        for journal in self._journals.values():
            journal.sync()

    def cut_back(self, step: int) -> None:
        """See `EventJournal.cut_back`."""
        for journal in self._journals.values():
            journal.cut_back(step)

    def close(self) -> None:
        """See `EventJournal.close`."""
        for journal in self._journals.values():
            journal.close()
