"""Ships what a spool holds, so that the remote is a valid run at every moment.

Invariant: data first, each file verified against the checksums that were
taken when it was written; then the manifest; then the reports up to it; then
`HEAD`, by compare-and-swap. What is called durable has been through all of
that. Whatever raises, the next pass goes on where this one stopped.

What is being shipped is pinned by hard links, so that the trainer may give it
up meanwhile without asking anybody.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colab_keras_bg.checkpoint.hashing import Digest, Hasher
from colab_keras_bg.checkpoint.keeping import KeepPolicy
from colab_keras_bg.checkpoint.layout import MANIFEST, step_directory
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.reading import read_manifest
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    CheckpointError,
    DamagedCheckpointError,
    ObjectExistsError,
    ObjectNotFoundError,
    Skipped,
    StorageUnavailableError,
)
from colab_keras_bg.sidecar.appending import AppendedFile
from colab_keras_bg.sidecar.fence import Fence
from colab_keras_bg.sidecar.pinned import Pinned, digest_of
from colab_keras_bg.storage.interface import ObjectInfo, Storage
from colab_keras_bg.storage.local import LocalStorage

__all__ = ["Durable", "Shipper"]

_BLOCK_BYTES = 1 << 20
_PINS = ".pins"


@dataclass(frozen=True)
class Durable:
    """What survives the loss of this machine.

    Attributes:
        step: The newest step of which that is known; None if there is none.
        since: When that became known, in seconds since 1970.
    """

    step: int | None = None
    since: float | None = None


class Shipper:
    """Ships the checkpoints of one spool, and what goes with them.

    Attributes:
        durable: What is on the remote, verified.
        skipped: Checkpoints that are damaged here, and are not shipped.
    """

    def __init__(
        self,
        spool: LocalStorage,
        remote: Storage,
        fence: Fence,
        *,
        keep_policy: KeepPolicy,
        prefix: str = "checkpoints",
        journals: tuple[str, ...] = ("metrics.jsonl",),
        publishes: bool = True,
        goes_before: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes both ends; nothing is read yet.

        Args:
            spool: The local end.
            remote: The far end.
            fence: Holds the far end for us.
            keep_policy: What is kept at the far end; at ours the trainer sees
                to it.
            prefix: The folder of the checkpoints.
            journals: Append-only files that belong to what is committed.
            publishes: Whether `HEAD` names what is committed here.
            goes_before: Ships what has to be there before a commit is.
            clock: Seconds since 1970.
        """
        self._spool, self._remote, self._fence = spool, remote, fence
        self._here = CheckpointStore(spool, prefix=prefix)
        self._there = CheckpointStore(remote, prefix=prefix)
        self._keep_policy = keep_policy
        self._prefix = prefix
        self._publishes, self._goes_before = publishes, goes_before
        self._pins = spool.directory / _PINS
        self._journals = [
            AppendedFile(spool.directory / name, remote, name)
            for name in journals
        ]
        self._clock = clock
        self._verified: dict[str, ObjectInfo] = {}
        self._shipped: set[int] | None = None
        self._damaged: dict[int, str] = {}
        # What was given up there, and when that was committed.
        self._given_up: dict[int, float] = {}
        self.durable = Durable()

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Newest first."""
        return tuple(
            Skipped(step, self._damaged[step])
            for step in sorted(self._damaged, reverse=True)
        )

    def begin(self) -> None:
        """Looks at the far end, and clears up after shippers that died.

        Raises:
            StorageUnavailableError: If it cannot be read.
        """
        shutil.rmtree(self._pins, ignore_errors=True)
        there = self._there.steps()
        # What came after what is known to be whole may be another's last
        # doing before it died: it is gone through once more.
        known = -1 if self.durable.step is None else self.durable.step
        self._shipped = {step for step in there if step <= known}
        for step in there:
            with contextlib.suppress(DamagedCheckpointError):
                manifest = self._there.manifest(step)
                if self._fence.hold.is_void(step, attempt=manifest.attempt):
                    self._there.delete(step)
                    self._shipped.discard(step)
        self._there.sweep()

    def due(self) -> list[int]:
        """The steps to ship, the newest first."""
        if self._shipped is None:
            self.begin()
        return self.lacking()

    def lacking(self) -> list[int]:
        """The same, as far as that is known without asking the far end."""
        steps = [
            step
            for step in self._here.steps()
            if step not in (self._shipped or ())
            and step not in self._damaged
            and not self._was_given_up(step)
        ]
        return sorted(steps, reverse=True)

    def ship(self) -> bool:
        """Ships the newest checkpoint that is due.

        Returns:
            Whether there was one.

        Raises:
            RunHeldError: If the run is no longer ours.
            StorageError: If it could not be shipped now.
        """
        for step in self.due():
            try:
                with self._pinned(step) as pinned:
                    if pinned is None:
                        continue  # Given up meanwhile.
                    self._ship(pinned)
            except DamagedCheckpointError as error:
                self._damaged[step] = error.reason
                continue
            self._commit(step)
            return True
        return False

    def ship_journals(self) -> bool:
        """Ships what was reported since; returns whether there was any.

        Raises:
            RunHeldError: If the run is no longer ours.
            StorageError: If it could not be shipped now.
        """
        shipped = any([journal.ship() for journal in self._journals])
        if any(journal.replaced for journal in self._journals):
            # They were cut back: what they were at the last commit is gone.
            head = self._fence.hold.head
            self._fence.publish(replace(head, reports=self._reports()))
            for journal in self._journals:
                journal.replaced = False
        return shipped

    def vouch(self, step: int) -> None:
        """Takes a step for durable that was verified when it was fetched."""
        self._there.vouch(step)
        self.durable = Durable(step, self._clock())

    def _commit(self, step: int) -> None:
        assert self._shipped is not None  # noqa: S101 - `due` was called
        self._shipped.add(step)
        self._there.vouch(step)
        self._fence.check()  # The reports go without a swap of HEAD.
        self.ship_journals()
        manifest = self._there.manifest(step)  # Known there from now on.
        doomed = self._there.superfluous(self._keep_policy)
        if self._publishes:
            self._publish(manifest, doomed)
        if self.durable.step is None or step >= self.durable.step:
            self.durable = Durable(step, self._clock())
        created = {one.step: one.created for one in self._there.commits()}
        for given_up in doomed:
            self._there.delete(given_up, missing_ok=True)
            self._shipped.discard(given_up)
            if given_up in created:  # Its manifest may be gone there.
                self._given_up[given_up] = created[given_up]

    def _was_given_up(self, step: int) -> bool:
        """Whether the far end has had this very commit, and dropped it.

        The training may come by that step once more, and commit it anew.
        """
        if step not in self._given_up:
            return False
        with contextlib.suppress(CheckpointError):
            return self._here.manifest(step).created == self._given_up[step]
        return False

    def _publish(self, manifest: Manifest, doomed: Collection[int]) -> None:
        """Has `HEAD` say what is kept, before the rest is given up."""
        head = self._fence.hold.head
        kept = {commit.step for commit in self._there.commits()} - set(doomed)
        changes: dict[str, Any] = {"steps": tuple(sorted(kept))}
        if head.step is None or manifest.step > head.step:
            changes |= {
                "attempt": max(head.attempt, manifest.attempt),
                "step": manifest.step,
                "committed": manifest.created,
                "reports": self._reports(),
            }
        self._fence.publish(replace(head, **changes))

    def _reports(self) -> tuple[int, str]:
        return self._journals[0].there if self._journals else (0, "00000000")

    def _ship(self, pinned: Pinned) -> None:
        manifest = pinned.manifest
        self._fence.check()
        for name, digest in pinned.digests():
            self._ship_file(name, pinned.path(name), digest, manifest.step)
        name = f"{self._directory(manifest.step)}/{MANIFEST}"
        self._goes_before()
        self._fence.check()  # Best effort; a take-over voids it all the same.
        content = manifest.to_bytes()
        try:
            self._remote.create(name, [content])
        except ObjectExistsError:
            if not self._is_usable_there(manifest):
                self._there.delete(manifest.step)
                folder = f"{self._directory(manifest.step)}/"
                for sent in [n for n in self._verified if n.startswith(folder)]:
                    del self._verified[sent]  # Deleted with it.
                raise StorageUnavailableError(
                    f"{name} was another attempt's, and is cleared away"
                ) from None

    def _is_usable_there(self, manifest: Manifest) -> bool:
        """Whether the step's manifest there is one to go on from."""
        try:
            found = self._there.manifest(manifest.step)
        except DamagedCheckpointError:
            return False
        if self._fence.hold.is_void(found.step, attempt=found.attempt):
            return False
        return found == manifest or self._there.looks_whole(found.step)

    def _ship_file(
        self, name: str, path: Path, digest: Digest, step: int
    ) -> None:
        if name in self._verified:
            return
        try:
            found = self._remote.upload(name, path)
        except ObjectExistsError:
            found = self._remote.info(name)
            if not self._is_as_written(found, digest):
                self._remote.delete(name)  # Ours: no other has this name.
                found = self._remote.upload(name, path)
        if not self._is_as_written(found, digest):
            with contextlib.suppress(ObjectNotFoundError):
                self._remote.delete(name)
            if digest_of(path) != digest:
                raise DamagedCheckpointError(
                    step, reason=f"{name} is not what was written"
                )
            raise StorageUnavailableError(
                f"{name!r} has not arrived as it was sent"
            )
        self._verified[name] = found

    def _is_as_written(self, found: ObjectInfo, digest: Digest) -> bool:
        """Whether what the far end says it has is what we wrote."""
        if found.size_bytes != digest.size_bytes:
            return False
        if found.crc32c is not None:
            return found.crc32c == digest.crc32c
        hasher = Hasher()
        for start in range(0, found.size_bytes, _BLOCK_BYTES):
            hasher.update(
                self._remote.read_range(found.name, start, _BLOCK_BYTES)
            )
        return hasher.digest() == digest

    @contextlib.contextmanager
    def _pinned(self, step: int) -> Iterator[Pinned | None]:
        """Holds the files of a step; None if it is gone."""
        folder = self._pins / f"{self._prefix}-{step}"
        try:
            manifest = read_manifest(
                self._spool, self._directory(step), step=step
            )
        except ObjectNotFoundError:
            yield None
            return
        pinned = Pinned(manifest, self._prefix, folder)
        try:
            pinned.take(self._spool.directory)
        except FileNotFoundError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if self._spool.exists(f"{self._directory(step)}/{MANIFEST}"):
                raise DamagedCheckpointError(
                    step, reason=f"{error.filename} is missing"
                ) from None
            yield None
            return
        try:
            yield pinned
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _directory(self, step: int) -> str:
        return f"{self._prefix}/{step_directory(step)}"
