"""Brings a run from the remote to an empty, or an older, spool.

Invariant: a checkpoint's manifest is put into the spool last, after every file
of it has been compared with what it has to be. What was fetched in part is
gone on with. "Cannot be read" passes through: it is never "there is nothing".
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from colab_keras_bg.checkpoint.hashing import Digest, Hasher
from colab_keras_bg.checkpoint.layout import MANIFEST, step_directory
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    NoUsableCheckpointError,
    ObjectExistsError,
    ObjectNotFoundError,
    Skipped,
)
from colab_keras_bg.journal.event_files import is_event_file
from colab_keras_bg.journal.event_records import records
from colab_keras_bg.sidecar.hold import Hold
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage

__all__ = ["Fetched", "Fetcher"]

_RANGE_BYTES = 4 << 20
_PARTIAL = ".fetched"
# Told what is done, how many bytes of it are, and of how many.
_Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fetched:
    """What was found at the far end.

    Attributes:
        step: The checkpoint that is in the spool now, whole; None if none was
            ever committed.
        skipped: Newer ones that were passed over, newest first.
    """

    step: int | None
    skipped: tuple[Skipped, ...] = ()


class Fetcher:
    """Fetches checkpoints and small files of one run."""

    def __init__(
        self,
        remote: Storage,
        spool: LocalStorage,
        *,
        connections: int = 4,
        watch: _Watch | None = None,
    ) -> None:
        """Takes both ends.

        Args:
            remote: The far end.
            spool: The local end; nobody else writes to it.
            connections: How many ranges are read at once.
            watch: Told how far it has come.
        """
        self._remote, self._spool = remote, spool
        self._connections = connections
        self._watch = watch
        self._partial = spool.directory / _PARTIAL

    def newest(
        self, hold: Hold | None, *, prefix: str = "checkpoints"
    ) -> Fetched:
        """Sees to it that the spool has the newest whole checkpoint.

        Args:
            hold: What the far end's `HEAD` says, if there is one.
            prefix: The folder of the checkpoints.

        Raises:
            NoUsableCheckpointError: If there are some and none is whole.
            StorageUnavailableError: If that cannot be told.
        """
        store = CheckpointStore(self._remote, prefix=prefix)
        skipped: list[Skipped] = []
        steps = store.steps()
        expected = hold.head.step if hold else None
        if expected is not None and expected not in steps:
            skipped.append(Skipped(expected, f"{MANIFEST} is missing"))
        for step in reversed(steps):
            try:
                manifest = store.manifest(step)
                if hold and hold.is_void(step, attempt=manifest.attempt):
                    continue  # Another has taken over before it.
                self.checkpoint(manifest, prefix=prefix)
            except DamagedCheckpointError as error:
                skipped.append(Skipped(step, error.reason))
            else:
                newer = [one for one in skipped if one.step > step]
                return Fetched(step, tuple(newer))
        if skipped:
            raise NoUsableCheckpointError(store.describe(), skipped=skipped)
        return Fetched(None)

    def checkpoint(self, manifest: Manifest, *, prefix: str) -> None:
        """Fetches one checkpoint, as far as the spool does not have it.

        Raises:
            DamagedCheckpointError: If it is not what was committed.
            StorageUnavailableError: If it cannot be read.
        """
        here = CheckpointStore(self._spool, prefix=prefix)
        own = f"{prefix}/{step_directory(manifest.step)}"
        with contextlib.suppress(DamagedCheckpointError, FileNotFoundError):
            if here.manifest(manifest.step) == manifest:
                here.load(manifest.step)
                return
        files: dict[str, Digest | None] = {
            f"{prefix}/{step_directory(origin)}/{file}": None
            for origin, file in sorted(manifest.origins)
        }
        files |= {f"{own}/{file}": d for file, d in manifest.files.items()}
        total = sum(digest.size_bytes for digest in manifest.files.values())
        done = 0
        for name, digest in files.items():
            try:
                done = self._file(name, digest, manifest.step, done, total)
            except ObjectNotFoundError:
                raise DamagedCheckpointError(
                    manifest.step, reason=f"{name} is missing"
                ) from None
        name = f"{own}/{MANIFEST}"
        if self._spool.exists(name):  # Of what is damaged, or void.
            self._spool.delete(name)
        self._spool.create(name, [manifest.to_bytes()])
        try:
            here.load(manifest.step)  # What it refers to has no digest here.
        except DamagedCheckpointError:
            self._spool.delete(name)
            for file in files:
                with contextlib.suppress(ObjectNotFoundError):
                    self._spool.delete(file)
            raise

    def record(self, name: str) -> bool:
        """Fetches a small file in place of the spool's, if there is one.

        Returns:
            Whether there is.

        Raises:
            StorageUnavailableError: If it cannot be read.
        """
        try:
            content = self._remote.read(name)
        except ObjectNotFoundError:
            return False
        if not self._spool.exists(name) or self._spool.read(name) != content:
            self._spool.replace(name, content)
        return True

    def records(self, prefix: str, *, but_for: str = "") -> list[str]:
        """Fetches all files below a folder; returns their names.

        Args:
            prefix: The folder.
            but_for: The end of names that stay where they are; none if empty.

        Raises:
            StorageUnavailableError: If they cannot be read.
        """
        names = [
            info.name
            for info in self._remote.list(prefix)
            if not (but_for and info.name.endswith(but_for))
        ]
        return [name for name in names if self.record(name)]

    def events(self, folder: str, *, step: int | None) -> None:
        """Fetches the event files that may have to be cut back.

        Those are the newest of each folder, as far as they go beyond a step.
        What else the spool has of them is another attempt's, and goes.

        Args:
            folder: The folder of all of them.
            step: The step that the run goes on from; None to fetch all.

        Raises:
            StorageUnavailableError: If they cannot be read.
        """
        there = {one.name: one for one in self._remote.list(f"{folder}/")}
        for one in [*self._spool.list(f"{folder}/")]:
            known = there.get(one.name)
            is_events = is_event_file(one.name.rpartition("/")[2])
            if (
                not is_events
                or known is None
                or known.size_bytes != one.size_bytes
            ):
                self._spool.delete(one.name)
        newest_first = sorted(there, reverse=True)
        done: set[str] = set()
        for name in newest_first:
            within, _, file = name.rpartition("/")
            if not is_event_file(file) or within in done:
                continue
            if not self._spool.exists(name):
                self.record(name)
            first = next(
                (
                    record.run_step
                    for record in records(self._spool.read(name))
                    if record.run_step is not None
                ),
                None,
            )
            if step is not None and first is not None and first <= step:
                done.add(within)

    def _file(
        self,
        name: str,
        digest: Digest | None,
        step: int,
        done: int,
        total: int,
        *,
        again: bool = False,
    ) -> int:
        """Fetches one file; returns how many bytes are done by then.

        What does not come as it was written is fetched once more, as a whole:
        a part that an earlier process left, or a byte on the way, may be
        wrong.
        """
        size_bytes = self._remote.info(name).size_bytes
        if digest is not None and size_bytes != digest.size_bytes:
            raise DamagedCheckpointError(
                step,
                reason=(
                    f"{name} has {size_bytes} bytes instead of "
                    f"{digest.size_bytes}"
                ),
            )
        if self._spool.exists(name):
            if digest is None or _digest_of(self._spool, name) == digest:
                return done + size_bytes
            self._spool.delete(name)
        self._partial.mkdir(parents=True, exist_ok=True)
        partial = self._partial / name.replace("/", "--")
        with partial.open("ab") as file:
            at = file.tell()
            if at > size_bytes:
                file.truncate(0)
                at = 0
            for block in self._ranges(name, at, size_bytes):
                file.write(block)
                at += len(block)
                if self._watch is not None:
                    what = f"fetching the checkpoint of step {step}"
                    self._watch(what, min(done + at, total), total)
        hasher = Hasher()
        with partial.open("rb") as content:
            blocks = iter(lambda: content.read(1 << 20), b"")
            with contextlib.suppress(ObjectExistsError):
                self._spool.create(name, hasher.passing(blocks))
        os.unlink(partial)
        if digest is not None and hasher.digest() != digest:
            self._spool.delete(name)
            if not again:
                return self._file(name, digest, step, done, total, again=True)
            raise DamagedCheckpointError(
                step,
                reason=(
                    f"{name} does not have the content it was written with"
                ),
            )
        return done + size_bytes

    def _ranges(
        self, name: str, start: int, size_bytes: int
    ) -> Iterator[bytes]:
        """The rest of an object, in order, some of it read ahead."""
        with ThreadPoolExecutor(self._connections) as pool:
            waiting: collections.deque[Future[bytes]] = collections.deque()
            starts = iter(range(start, size_bytes, _RANGE_BYTES))

            def ask(count: int) -> None:
                for at in itertools.islice(starts, count):
                    waiting.append(
                        pool.submit(
                            self._remote.read_range, name, at, _RANGE_BYTES
                        )
                    )

            ask(self._connections)
            while waiting:
                block = waiting.popleft().result()
                ask(1)
                yield block


def _digest_of(storage: LocalStorage, name: str) -> Digest:
    hasher = Hasher()
    path: Path = storage.directory / name
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.digest()
