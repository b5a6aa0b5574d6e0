"""A run directory and who may write to it.

Invariant: nothing that is stored is changed before the lock is held and it
is sure that the run can go on. Written records are complete at every moment.
Of a run that lies far away this is the local end, the spool: a sidecar takes
the run there, fetches what is needed and ships what is written here.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from colab_keras_bg._version import __version__
from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.checkpoint.store import Checkpoint
from colab_keras_bg.durability import Durability
from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.attempts import Attempt
from colab_keras_bg.journal.masking import masked, masked_command
from colab_keras_bg.sidecar.options import ShippingOptions
from colab_keras_bg.sidecar.watch_options import NOTHING, WatchOptions
from colab_keras_bg.storage.addresses import (
    is_remote,
    local_directory,
    remote_address,
    spool_of,
)
from colab_keras_bg.storage.folders import make_writable
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.lock import DirectoryLock
from colab_keras_bg.storage.records import (
    DamagedRecordError,
    create_record,
    read_record,
    write_record,
)
from colab_keras_bg.stored_run import DONE, RUN, StoredRun

__all__ = ["DONE", "RUN", "RunDirectory", "directory_of"]

_FORMAT = "colab_keras_bg.run/1"
# Where the local ends of runs that lie far away are.
_SPOOLS = "COLAB_KERAS_BG_SPOOLS"

_attempt_of_this_process: dict[Path, int] = {}


def directory_of(run_dir: str | os.PathLike[str]) -> Path:
    """The local directory of a run: itself, or its spool.

    Args:
        run_dir: A local path, or a URL.

    Raises:
        UsageError: If the address cannot be meant.
    """
    if not is_remote(run_dir):
        return local_directory(run_dir)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    spools = os.environ.get(_SPOOLS) or f"{cache}/colab_keras_bg/spools"
    return spool_of(remote_address(run_dir), spools=local_directory(spools))


class RunDirectory(StoredRun):
    """The local directory of a run.

    Attributes:
        path: Its absolute path.
        durability: What of it survives this machine.
        head: The newest commit, as this process knows it.
        attempt: The number of the present attempt; 0 before it begins.
    """

    storage: LocalStorage

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        *,
        keep: Mapping[str, Any] = MappingProxyType({"keep_last": 2}),
        shipping: ShippingOptions = ShippingOptions(),  # noqa: B008 - frozen
        watch: WatchOptions = NOTHING,
    ) -> None:
        """Takes an address; nothing is touched.

        Args:
            run_dir: A local path, or a URL.
            keep: What is kept where it is shipped to: the arguments of
                `keep_policy`.
            shipping: How it is shipped, if it lies far away.
            watch: What is kept besides checkpoints.

        Raises:
            UsageError: If the address cannot be meant.
        """
        self.path = directory_of(run_dir)
        url = remote_address(run_dir) if is_remote(run_dir) else ""
        super().__init__(
            LocalStorage(self.path),
            address=url or str(self.path),
            is_remote=bool(url),
        )
        self.durability = Durability(
            self.path, url=url, keep=keep, options=shipping, watch=watch
        )
        self.head = Head(run_id="", attempt=0)
        self.attempt = 0
        self._lock: DirectoryLock | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds the run."""
        return self._lock is not None

    @property
    def lock_handle(self) -> int:
        """The descriptor of the lock, for a child that shares it.

        Raises:
            ValueError: If the run is not held.
        """
        if self._lock is None:
            raise ValueError("The run is not held.")
        return self._lock.handle

    def holds_a_run(self) -> bool:
        """Whether anything of a run is there, whole or not.

        Raises:
            StorageUnavailableError: If the directory cannot be read.
        """
        return self.path.is_dir() and super().holds_a_run()

    def set_aside(
        self, *, needed: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        """Gives the run that is there, if any, another name beside it.

        Args:
            needed: Files that must stay where they are: the program. The
                present directory must, too.

        Raises:
            RunHeldError: If a live attempt holds the run.
            UsageError: If it cannot be renamed.
        """
        if self.is_remote:
            raise UsageError(
                f"{self.address} cannot be set aside: a bucket cannot rename "
                "a folder. To begin anew, give another run directory."
            )
        if not self.holds_a_run():
            return
        for place in (os.getcwd(), *needed):
            if Path(os.path.realpath(place)).is_relative_to(
                os.path.realpath(self.path)
            ):
                raise UsageError(
                    f"{self.path} cannot be set aside: {place} is needed, "
                    "and in it. Start from elsewhere, or give the run a "
                    "directory of its own."
                )
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{self.path.name}.set-aside-{stamp}-{secrets.token_hex(2)}"
        aside = self.path.with_name(name)
        self._lock = self._acquire()  # Nobody begins while it is renamed.
        try:
            os.rename(self.path, aside)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be set aside as {aside}: "
                f"{error.strerror}. Move it yourself, or give another one."
            ) from None
        finally:
            self.release()
        say(f"starting over; what was there is now in {aside}")

    def hold(self) -> Checkpoint | None:
        """Makes the run ours, if it can go on.

        Returns:
            The newest checkpoint that verifies; None if there is none yet.

        Raises:
            UsageError: If the directory cannot be written.
            NoSpaceError: If its disk is full.
            RunHeldError: If another live attempt holds the run.
            NoUsableCheckpointError: If there are checkpoints and none
                verifies.
            StorageUnavailableError: If the directory cannot be read, or where
                it is shipped to cannot be reached.
        """
        make_writable(self.path)
        self._lock = self._acquire()
        try:
            self.durability.begin()
            self.head = self._read_head()
            return self.checkpoints.latest(expected=self.head.step)
        except BaseException:
            self.release()
            raise

    def share(self, *, lock_handle: int, attempt: int) -> None:
        """Shares what the process that started us holds.

        Args:
            lock_handle: The descriptor of its lock.
            attempt: The attempt that it began.
        """
        self._lock = DirectoryLock.inherit(lock_handle)
        self.head = self._read_head()
        self.attempt = attempt

    def release(self) -> None:
        """Gives the run back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def begin_attempt(self, *, command: Sequence[str]) -> None:
        """Records that an attempt begins, and clears what died with others.

        Args:
            command: What was asked for.

        Raises:
            StorageError: If it cannot be written.
        """
        self.storage.sweep()
        self.checkpoints.sweep()
        self.finals.sweep()
        lost = set(self.head.steps) - set(self.checkpoints.steps())
        for step in sorted(lost):
            say(f"the checkpoint of step {step} was kept, and is gone")
        self.attempt = self._number()
        self.attempts.write(
            Attempt(
                number=self.attempt,
                started=time.time(),
                pid=os.getpid(),
                host=socket.gethostname(),
                command=list(command),
            )
        )
        if not self.storage.exists(RUN):
            create_record(
                self.storage,
                RUN,
                {
                    "format": _FORMAT,
                    "run_id": self.head.run_id,
                    "created": time.time(),
                    "version": __version__,
                },
            )
        self.publish(step=self.head.step, committed=self.head.committed)
        self.durability.watch()

    def publish(
        self,
        *,
        step: int | None,
        committed: float | None,
        steps: Sequence[int] | None = None,
        reports: tuple[int, str] | None = None,
    ) -> None:
        """Writes HEAD.

        Args:
            step: The newest committed step; None if there is none.
            committed: When that was, in seconds since 1970.
            steps: All that are kept; those that there are if None.
            reports: See `Head`; as they were if None.

        Raises:
            StorageError: If it cannot be written.
        """
        kept = self.checkpoints.steps() if steps is None else steps
        self.head = Head(
            run_id=self.head.run_id,
            attempt=self.attempt,
            step=step,
            committed=committed,
            steps=tuple(kept),
            reports=reports or self.head.reports,
        )
        self.head.write(self.storage)

    def went_on_from(self, step: int) -> None:
        """Records the step that the present attempt goes on from.

        Raises:
            StorageError: If it cannot be written.
        """
        attempt = self._present_attempt()
        if attempt is not None and attempt.from_step is None:
            self.attempts.write(attempt.begun(from_step=step))

    def end_attempt(self, *, exit_status: int | None, reason: str) -> None:
        """Records how the present attempt ended.

        Args:
            exit_status: Its exit status, if it has one.
            reason: Why, in words.

        Raises:
            StorageError: If it cannot be written.
        """
        attempt = self._present_attempt()
        if attempt is not None:
            self.attempts.write(
                attempt.finish(
                    ended=time.time(), exit_status=exit_status, reason=reason
                )
            )

    def mark_done(
        self, *, step: int | None, reason: str, command: Sequence[str]
    ) -> None:
        """Records that nothing is left to do.

        Args:
            step: The last step.
            reason: Why, in words.
            command: What had been asked for.

        Raises:
            StorageError: If it cannot be written.
        """
        write_record(
            self.storage,
            DONE,
            {
                "attempt": self.attempt,
                "step": step,
                "reason": masked(reason),
                "command": masked_command(command),
                "time": time.time(),
                "final": bool(self.finals.steps()),
            },
        )

    def mark_not_done(self) -> None:
        """Records that there is something to do after all."""
        if self.storage.exists(DONE):
            self.storage.delete(DONE)

    def _acquire(self) -> DirectoryLock:
        return DirectoryLock.acquire(
            self.path,
            holder=f"process {os.getpid()} on {socket.gethostname()}",
        )

    def _present_attempt(self) -> Attempt | None:
        try:
            return self.attempts.read(self.attempt)
        except DamagedRecordError as error:
            say(f"{error} It stays as it is.")
            return None

    def _read_head(self) -> Head:
        try:
            head = Head.read(self.storage)
        except DamagedRecordError as error:
            say(f"{error} The checkpoints' own manifests are used instead.")
            head = None
        return head or Head(run_id=self._run_id(), attempt=0)

    def _run_id(self) -> str:
        try:
            record = read_record(self.storage, RUN) or {}
        except DamagedRecordError as error:
            say(str(error))
            record = {}
        return str(record.get("run_id") or secrets.token_hex(8))

    def _number(self) -> int:
        """This process' attempt; the same again if it comes back.

        Not in a run that is shipped: it was given back there meanwhile, and
        what an attempt from before the next taking commits is void.
        """
        mine = _attempt_of_this_process.get(self.path)
        newest = max(self.attempts.numbers(), default=0)
        if self.is_remote or mine is None or mine != newest:
            # HEAD remembers the last one, should its folder be gone.
            mine = max(self.attempts.next_number(), self.head.attempt + 1)
        _attempt_of_this_process[self.path] = mine
        return mine
