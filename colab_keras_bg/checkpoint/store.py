"""Committed checkpoints: a step is there whole, or it is not there.

Invariant: a step exists if and only if its manifest verifies. Hence the
manifest is the last file `save` writes and the first that `delete` removes.
Nothing else in the package writes or removes checkpoint files.

Save: tensors (streamed, hashed on the way), state, manifest. Each is created
whole and synced before the next begins, under a name never used before, so a
cut anywhere leaves either the new step whole or files that no manifest names.
Those are removed by `sweep`, which the one writer calls when it starts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from colab_keras_bg.checkpoint import tensors as safetensors
from colab_keras_bg.checkpoint.hashing import Digest, Hasher, blocks
from colab_keras_bg.checkpoint.inventory import Inventory
from colab_keras_bg.checkpoint.keeping import Commit, KeepPolicy
from colab_keras_bg.checkpoint.layout import (
    MANIFEST,
    data_file_name,
    step_directory,
)
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.reading import (
    Checkpoint,
    Watch,
    looks_whole,
    read_checkpoint,
    read_manifest,
)
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    NoUsableCheckpointError,
    ObjectNotFoundError,
    Skipped,
    StepExistsError,
    StepNotFoundError,
    StorageError,
)
from colab_keras_bg.storage.interface import Storage, check_space
from colab_keras_bg.tensor import LazyTensor

__all__ = ["Checkpoint", "CheckpointStore"]


class CheckpointStore:
    """The checkpoints below one folder of a storage."""

    def __init__(
        self,
        storage: Storage,
        *,
        prefix: str = "checkpoints",
        refers: bool = True,
        clock: Callable[[], float] = time.time,
        watch: Watch | None = None,
    ) -> None:
        """Takes the folder; nothing is read or written yet.

        Args:
            storage: Where the checkpoints lie.
            prefix: The folder's name in it.
            refers: Whether a save may refer to tensors of an earlier one.
            clock: Seconds since 1970.
            watch: Told how far reading a checkpoint has come.
        """
        self._storage = storage
        self._prefix, self._refers = prefix, refers
        self._clock, self._watch = clock, watch
        self._verdicts: dict[int, bool] = {}  # What saving or reading showed.
        self._inventory = Inventory(storage, prefix)
        self._base: Manifest | None = None  # What a save may refer to.

    def describe(self) -> str:
        """Where the checkpoints lie, for people."""
        return f"{self._storage.describe()}/{self._prefix}"

    def save(
        self,
        step: int,
        *,
        attempt: int,
        tensors: Mapping[str, LazyTensor],
        state: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        make_room: Callable[[], object] | None = None,
    ) -> Manifest:
        """Commits a checkpoint.

        A tensor that is what it was in the last checkpoint saved or loaded
        here is not written again but referred to.

        Args:
            step: Training batches consumed since the run began.
            attempt: The attempt that saves.
            tensors: The tensors by key, fetched one at a time, and released.
            state: Everything else; JSON values only.
            metrics: What was measured at this very step, finite numbers by
                name.
            make_room: Called, once, if there is too little space.

        Returns:
            The manifest. The checkpoint is committed when this returns, and
            does not exist if it raises.

        Raises:
            StepExistsError: If the step is committed and verifies.
            TypeError: If the state holds what is no JSON value.
            ValueError: If a tensor cannot be stored; see `serialize`.
            NoSpaceError: If the storage is full.
            StorageError: If it cannot be written for another reason.
        """
        content = json.dumps(state, indent=1).encode() + b"\n"
        if self._manifest_exists(step):
            self._give_up_damaged(step)
        hashes: dict[str, str] = {}
        references: dict[str, tuple[int, str]] = {}
        if self._refers and self._base and self._base.step < step:
            hashes, references = self._inventory.unchanged(tensors, self._base)
        written = {k: t for k, t in tensors.items() if k not in references}
        size_bytes = sum(t.size_bytes for t in written.values()) + len(content)
        directory = self._directory(step)
        check_space(self._storage, directory, size_bytes, make_room=make_room)
        pieces = {
            data_file_name("tensors", attempt=attempt): safetensors.serialize(
                written, hashes=hashes
            ),
            data_file_name("state", attempt=attempt): blocks(content),
        }
        tensors_file, state_file = pieces
        files: dict[str, Digest] = {}
        try:
            for name, chunks in pieces.items():
                files[name] = self._create(step, name, chunks)
            manifest = Manifest(
                step=step,
                attempt=attempt,
                created=float(self._clock()),
                tensors_file=tensors_file,
                state_file=state_file,
                files=files,
                tensors=hashes,
                references=references,
                metrics=dict(metrics or {}),
            )
            self._create(step, MANIFEST, [manifest.to_bytes()])
        except BaseException:
            with contextlib.suppress(StorageError):  # Then `sweep` does it.
                self._discard([f"{directory}/{f}" for f in files])
            raise
        self._verdicts[step], self._base = True, manifest
        self._inventory.learn(manifest)
        return manifest

    def steps(self) -> list[int]:
        """The steps that have a manifest, oldest first; not yet verified.

        Raises:
            StorageUnavailableError: If the storage cannot be listed.
        """
        return list(self._inventory.look())

    def manifest(self, step: int) -> Manifest:
        """Reads the manifest of a step, without its files.

        Raises:
            StepNotFoundError: If the step is not committed.
            DamagedCheckpointError: If the manifest is not whole.
            StorageUnavailableError: If it cannot be read.
        """
        try:
            found = read_manifest(
                self._storage, self._directory(step), step=step
            )
        except ObjectNotFoundError:
            raise StepNotFoundError(step, available=self.steps()) from None
        self._inventory.learn(found)
        return found

    def commits(self) -> list[Commit]:
        """What is there, oldest first, as far as its manifests tell.

        For the one writer: the folder is not listed each time.
        """
        return self._inventory.commits()

    def load(self, step: int) -> Checkpoint:
        """Reads and verifies one checkpoint.

        Raises:
            StepNotFoundError: If the step is not committed.
            DamagedCheckpointError: If anything of it is not as committed.
            StorageUnavailableError: If it cannot be read.
        """
        try:
            found = read_checkpoint(
                *(self._storage, self._prefix, self.manifest(step)),
                watch=self._watch,
            )
        except DamagedCheckpointError:
            self._verdicts[step] = False
            self._base = None  # Rather write too much than refer to damage.
            if not self._manifest_exists(step):  # Deleted while we read.
                raise StepNotFoundError(step, available=self.steps()) from None
            raise
        self._verdicts[step] = True
        if self._base is None or self._base.step <= step:
            self._base = found.manifest
        return found

    def latest(
        self, *, expected: int | None = None, below: int | None = None
    ) -> Checkpoint | None:
        """The newest checkpoint that verifies.

        Args:
            expected: A step known to have been committed: if it is gone, that
                is damage, not a beginning.
            below: Only steps smaller than this.

        Returns:
            The checkpoint, with those passed over in `skipped`; None if none
            was ever committed.

        Raises:
            NoUsableCheckpointError: If there are some and none verifies.
            StorageUnavailableError: If that cannot be told.
        """
        skipped: list[Skipped] = []
        steps = [s for s in self.steps() if below is None or s < below]
        if expected is not None and expected > max(steps, default=-1):
            skipped.append(Skipped(expected, f"{MANIFEST} is missing"))
        for step in reversed(steps):
            try:
                found = self.load(step)
            except (DamagedCheckpointError, StepNotFoundError) as error:
                reason = getattr(error, "reason", f"{MANIFEST} is missing")
                skipped.append(Skipped(step, reason))
            else:
                return replace(found, skipped=tuple(skipped))
        if skipped:
            raise NoUsableCheckpointError(self.describe(), skipped=skipped)
        return None

    def delete(self, step: int, *, missing_ok: bool = False) -> bool:
        """Removes a checkpoint: manifest first, then what it named.

        Returns:
            Whether it was there, which it has to be unless `missing_ok`.

        Raises:
            StepNotFoundError: If the step is not committed.
            StorageError: If it cannot be removed.
        """
        if not self._manifest_exists(step):
            present = self.steps()  # Lists anew: another has deleted it.
            if missing_ok:
                return False
            raise StepNotFoundError(step, available=present)
        directory, inventory = self._directory(step), self._inventory
        self._verdicts.pop(step, None)
        if self._base is not None and self._base.step == step:
            self._base = None
        needed = inventory.of(step)
        self._storage.delete(f"{directory}/{MANIFEST}")
        inventory.forget(step)
        doomed = [i.name for i in self._storage.list(f"{directory}/")]
        # What only this one needed of steps that were deleted before it.
        doomed += [
            f"{self._directory(origin)}/{file}"
            for origin, file in needed
            if not inventory.has(origin)
        ]
        kept = inventory.in_use()
        self._discard([name for name in doomed if not kept(name)])
        return True

    def superfluous(
        self, policy: KeepPolicy, *, coming: Commit | None = None
    ) -> list[int]:
        """What a policy does not keep, oldest first. For the one writer.

        Args:
            policy: What to keep.
            coming: A checkpoint to be thought of as there already.

        The two newest checkpoints that verify always stay, whatever the
        policy says: the newest, and one to fall back to. As long as there are
        no two, all stay.

        Raises:
            StorageUnavailableError: If one cannot be read.
        """
        steps = self._inventory.steps()
        verified = (step for step in reversed(steps) if self._verifies(step))
        whole = set(itertools.islice(verified, 2))
        if len(whole) < 2:
            return []
        commits = self._inventory.commits()
        kept = policy.kept([*commits, coming] if coming else commits)
        return sorted(set(steps) - kept - whole)

    def retain(self, policy: KeepPolicy) -> list[int]:
        """Deletes what a policy does not keep; returns the steps deleted.

        Raises:
            StorageError: If one cannot be deleted.
            StorageUnavailableError: If one cannot be read.
        """
        doomed = self.superfluous(policy)
        return [step for step in doomed if self.delete(step, missing_ok=True)]

    def vouch(self, step: int) -> None:
        """Takes a step as verified, as it was by whoever says so."""
        self._verdicts[step] = True

    def looks_whole(self, step: int) -> bool:
        """Whether manifest and sizes are right; a quick look, for retaining."""
        with contextlib.suppress(DamagedCheckpointError, StepNotFoundError):
            manifest = self.manifest(step)
            return looks_whole(self._storage, self._prefix, manifest)
        return False

    def sweep(self) -> list[str]:
        """Removes files that no manifest needs. Only for the one writer.

        Folders whose manifest is damaged are left as they are. Returns the
        names removed.

        Raises:
            StorageError: If one cannot be removed, or that cannot be told.
        """
        named = {step: self._named(step) for step in self.steps()}
        kept = self._inventory.in_use()
        doomed = []
        for step, file, name in self._inventory.files():
            names = named.get(step, frozenset())
            if names is not None and file not in names and not kept(name):
                doomed.append(name)
        removed = self._discard(doomed)
        return removed + list(self._storage.sweep(self._prefix))

    def _named(self, step: int) -> frozenset[str] | None:
        """The files of a step; None if its manifest does not tell."""
        try:
            return frozenset(self.manifest(step).files) | {MANIFEST}
        except DamagedCheckpointError:
            return None

    def _verifies(self, step: int) -> bool:
        """Whether a step is whole; reads it back if we never did."""
        if step in self._verdicts:
            return self._verdicts[step] and self.looks_whole(step)
        try:
            self.load(step)
        except (DamagedCheckpointError, StepNotFoundError):
            return False
        return True

    def _directory(self, step: int) -> str:
        return f"{self._prefix}/{step_directory(step)}"

    def _create(
        self, step: int, name: str, chunks: Iterable[bytes | memoryview]
    ) -> Digest:
        hasher = Hasher()
        self._storage.create(
            f"{self._directory(step)}/{name}", hasher.passing(chunks)
        )
        return hasher.digest()

    def _manifest_exists(self, step: int) -> bool:
        return self._storage.exists(f"{self._directory(step)}/{MANIFEST}")

    def _give_up_damaged(self, step: int) -> None:
        """Makes way for a step whose checkpoint was found damaged."""
        try:
            self.load(step)
        except DamagedCheckpointError:
            self.delete(step)
        else:
            raise StepExistsError(step)

    def _discard(self, names: list[str]) -> list[str]:
        """Removes files that nothing names; those that are gone are gone."""
        removed = []
        for name in names:
            with contextlib.suppress(ObjectNotFoundError):
                self._storage.delete(name)
                removed.append(name)
        return removed
