"""What of a run survives the loss of this machine, and who sees to that.

Invariant: "durable" is said only of what the far end has acknowledged and
what was verified there. Nothing here touches a network, nor waits for anybody
while the training goes on: what a sidecar has told is read from its file.

A run in a local directory is as durable as this machine's disk; then there is
nothing to see to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.errors import (
    RunHeldError,
    StorageError,
    StorageUnavailableError,
)
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.console_pump import ConsolePump
from colab_keras_bg.journal.progress import ProgressBar
from colab_keras_bg.journal.raw_console import FOLDER as CONSOLE
from colab_keras_bg.journal.raw_console import raw_consoles
from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.exchange import Orders, Report
from colab_keras_bg.sidecar.launching import LaunchedSidecar
from colab_keras_bg.sidecar.options import ShippingOptions
from colab_keras_bg.sidecar.watch_options import NOTHING, WatchOptions
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.storage.records import DamagedRecordError
from colab_keras_bg.stored_run import StoredRun

__all__ = ["Durability", "ago", "spool_report", "spool_target"]

_DRAINED = "drained"
# How long the end of an attempt is waited for.
_DONE_SECS, _ENDED_SECS = 3600.0, 60.0
# Where nothing is shipped: until what was printed is stored.
_HERE_SECS = 10.0
# What is told again and again is told only so often.
_SAY_SECS = 60.0


class Durability:
    """Sees to it that a run's directory is shipped, and tells how far it is."""

    def __init__(
        self,
        path: Path,
        *,
        url: str,
        keep: Mapping[str, Any],
        options: ShippingOptions = ShippingOptions(),  # noqa: B008 - frozen
        watch: WatchOptions = NOTHING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes the run's directory; nothing is touched.

        Args:
            path: The local directory.
            url: Where it is shipped to; empty if nowhere.
            keep: What is kept there: the arguments of `keep_policy`.
            options: How it is shipped.
            watch: What else the sidecar sees to, also where nothing is
                shipped.
            clock: Seconds since 1970.
        """
        self._path, self._url = path, url
        self._watch = watch
        self._storage = LocalStorage(path)
        self._keep, self._options = dict(keep), options
        self._clock = clock
        self._sidecar: LaunchedSidecar | None = None
        self._last: tuple[int | None, float] = (None, clock())
        self._said: str | None = None
        self._far = ""
        self._said_at = 0.0
        # What it last told, for as long as one that was started again is dumb.
        self._known = Report()
        self._said_here = ("", 0.0)

    def begin(self) -> None:
        """Starts the sidecar; returns when the run is ours.

        The local directory has what it needs then.

        Raises:
            RunHeldError: If another live attempt holds the run.
            NoUsableCheckpointError: If there are checkpoints and none
                verifies.
            StorageUnavailableError: If the far end cannot be reached.
            StorageError: If the sidecar cannot be started.
        """
        if not self._url:
            return
        sidecar = self._launched()
        try:
            sidecar.start()
        except OSError as error:
            raise StorageError(
                f"The sidecar, which ships the run, cannot be started: {error}."
            ) from error
        found = sidecar.wait_until_ready(ProgressBar(), say)
        for skipped in found.skipped:
            say(f"skipped {skipped}")
        self._sidecar, self._far, self._known = sidecar, found.far, found
        self._last = (found.durable_step, self._clock())

    def watch(self) -> None:
        """Starts the sidecar of a run that lies here, if it is to do anything.

        Nothing of the training hangs on it.
        """
        if self._url or not self._watch.wanted:
            return
        sidecar = self._launched()
        try:
            sidecar.start()
        except OSError as error:
            say(f"the sidecar, which watches over the run: {error}")
        else:
            self._sidecar = sidecar

    def _launched(self) -> LaunchedSidecar:
        return LaunchedSidecar(
            self._path,
            url=self._url,
            keep=self._keep,
            options=self._options,
            watch=self._watch,
        )

    def report(self) -> Report | None:
        """What the sidecar last told; None if there is none, or nothing."""
        if self._sidecar is not None:
            return self._sidecar.report() or self._known
        return exchange.read(self._path, Report)

    def vital_signs(self, head: Head) -> dict[str, Any]:
        """What is told of it in `status.json`, as JSON values.

        Args:
            head: The newest commit of this process.
        """
        found = self.report() or Report()
        if not self._url:
            return {
                "durable_step": head.step,
                "durable_since": head.committed,
                "problem": self._here(found),
            }
        step, since = found.durable_step, found.durable_since
        return {
            "durable_step": step if found.confirms else None,
            "durable_since": since if found.confirms else None,
            "unconfirmed_step": None if found.confirms else step,
            "committed_step": head.step,
            "problem": found.problem or self._here(found),
            "shipped_to": found.far or self._url,
            "shipping": {"waiting": found.waiting, "traffic": found.traffic},
        }

    def look_after(self) -> None:
        """Starts a sidecar again that died, and says what stands in its way.

        To be called every few seconds by the process that has begun it.

        Raises:
            RunHeldError: If another machine has taken the run over.
            StorageUnavailableError: If nothing has become durable for longer
                than it may take.
        """
        if self._sidecar is None:
            return
        found = self._sidecar.look_after() or self._known
        self._known = found
        self._tell_here(found)
        if not self._url:
            return
        now = self._clock()
        is_further = _place(found.durable_step) > _place(self._last[0])
        if is_further or not self._is_behind(found):
            self._last = (found.durable_step, now)
        self._tell(found)
        waited = now - self._last[1]
        most = self._options.max_undurable_secs
        if most is not None and waited > most:
            raise StorageUnavailableError(
                f"Nothing has become durable for {ago(waited)}, and at most "
                f"{ago(most)} were allowed; {self._standing(found)}"
            )

    def _here(self, found: Report) -> str | None:
        """What goes wrong on this machine, or soon will."""
        return found.local_problem or "; ".join(found.warnings) or None

    def _tell_here(self, found: Report) -> None:
        now, problem = self._clock(), self._here(found)
        was_told = problem == self._said_here[0]
        if problem and not (was_told or now - self._said_here[1] < _SAY_SECS):
            self._said_here = (problem, now)
            say(f"{_sentence(problem)} Training goes on")
        elif not problem:
            self._said_here = ("", self._said_here[1])

    def finish(
        self,
        *,
        done: bool,
        given_up: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Waits until all that is there is durable, at most for a while.

        Args:
            done: Whether nothing is left to do: then it is worth an hour, and
                otherwise a minute.
            given_up: Whether whoever waits no longer does.

        Returns:
            Whether it is. If not, that has been said; it is still shipped.

        Raises:
            RunHeldError: If another machine has taken the run over.
        """
        if self._sidecar is None:
            return True
        self._said_at = self._clock()
        patience_secs = _DONE_SECS if done else _ENDED_SECS
        if self._options.max_undurable_secs is not None:
            most_secs = self._options.max_undurable_secs
            patience_secs = min(patience_secs, most_secs)
        try:
            found = self._sidecar.finish(
                patience_secs=patience_secs if self._url else _HERE_SECS,
                given_up=given_up,
                tell=self._tell_waiting if self._url else lambda _: None,
            )
        except OSError as error:
            if not self._url:
                return True  # Nothing of the run hangs on it.
            say(f"what is not shipped yet stays in {self._path}: {error}")
            return False
        if not self._url:
            return True
        if found is not None and found.phase == _DRAINED:
            if found.problem is not None:  # Another place stands in for it.
                say(
                    f"{self._standing(found)} The same command, when "
                    f"{self._url} is back, ships it there"
                )
            return True
        say(
            f"{self._standing(found or Report())} What is missing there is in "
            f"{self._path}, and is shipped as long as this machine lives"
        )
        return False

    def finish_attended(self, *, done: bool) -> None:
        """The same, by a process that a person may be waiting for.

        Args:
            done: Whether nothing is left to do.
        """
        try:
            self.finish(done=done)
        except RunHeldError as error:
            say(str(error))
        except KeyboardInterrupt:
            say("not waited for; it is shipped as long as this machine lives")
        self.store_console()

    def store_console(self) -> None:
        """Stores what was printed, if the sidecar has not, and is gone."""
        try:
            lock = DirectoryLock.acquire(
                self._path / exchange.FOLDER,
                holder=f"process {os.getpid()}",
                patience_secs=0.5,
            )
        except (RunHeldError, StorageError):
            return  # It is at work, or was never there.
        try:
            if self._watch.console_bytes:
                ConsolePump(
                    self._path, limit_bytes=self._watch.console_bytes
                ).drop()
            else:
                for raw in raw_consoles(self._path):
                    raw.remove()
        except OSError as error:
            say(f"what was printed stays in {self._path / CONSOLE}: {error}")
        finally:
            lock.release()

    def _is_behind(self, found: Report) -> bool:
        """Whether something is committed here that is not durable."""
        try:
            head = Head.read(self._storage)
        except (DamagedRecordError, StorageError):
            return found.waiting > 0
        if head is None or head.step is None:
            return False
        return found.durable_step is None or head.step > found.durable_step

    def _tell(self, found: Report) -> None:
        """Says that something stands in the way, or no longer does."""
        now = self._clock()
        if found.far != self._far and found.far:
            if self._far:
                say(f"it is shipped to {found.far} from now on")
            self._far = found.far
        if found.problem is None:
            if self._said is not None:
                self._said = None
                say(f"shipping goes on; {self._standing(found)}")
        elif found.problem != self._said and (
            self._said is None or now - self._said_at > _SAY_SECS
        ):
            self._said, self._said_at = found.problem, now
            say(f"{self._standing(found)} Training goes on")

    def _tell_waiting(self, found: Report) -> None:
        """To whoever waits for the end."""
        if found.phase != _DRAINED and self._clock() - self._said_at > 10.0:
            self._said_at = self._clock()
            say(
                f"waiting until all of it is in {self._url}, "
                f"{found.waiting} checkpoint(s) to go; {self._standing(found)}"
            )

    def _standing(self, found: Report) -> str:
        """How far it is durable, and what stands in the way."""
        if found.durable_step is None:
            text = "nothing is durable yet"
        else:
            text = f"durable through step {found.durable_step}"
            if not found.confirms:
                text = f"written, not confirmed, {text.partition(' ')[2]}"
            if found.durable_since is not None:
                text += f", {ago(self._clock() - found.durable_since)} ago"
        cause = found.problem or found.local_problem
        return f"{text}: {_sentence(cause)}" if cause else f"{text}."


def _sentence(text: str) -> str:
    """The same, with an end."""
    return text if text.endswith((".", "!", "?")) else f"{text.rstrip(' :')}."


def _place(step: int | None) -> int:
    return -1 if step is None else step


def spool_target(stored: StoredRun) -> str | None:
    """Where a local directory is shipped to; None if nowhere.

    Args:
        stored: A run in a local directory.
    """
    orders = exchange.read(Path(stored.address), Orders)
    return (orders.url or None) if orders else None


def spool_report(stored: StoredRun) -> Report:
    """What the sidecar of a local directory has told last.

    Args:
        stored: A run in a local directory that is shipped.
    """
    return exchange.read(Path(stored.address), Report) or Report()


def ago(secs: float) -> str:
    """A time in words, as short as it may be.

    Args:
        secs: Seconds; below 0 is taken for 0.
    """
    secs = max(0.0, secs)
    if secs < 120:
        return f"{secs:.0f} s"
    if secs < 7200:
        return f"{secs / 60:.0f} min"
    return f"{secs / 3600:.1f} h"
