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

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from colab_keras_bg.checkpoint import tensors as safetensors
from colab_keras_bg.checkpoint.hashing import Digest, Hasher, blocks
from colab_keras_bg.checkpoint.layout import (
    MANIFEST,
    data_file_name,
    step_directory,
    step_of,
)
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.policies import KeepPolicy
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    NoUsableCheckpointError,
    ObjectNotFoundError,
    Skipped,
    StepExistsError,
    StepNotFoundError,
)
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.tensor import LazyTensor

__all__ = ["Checkpoint", "CheckpointStore"]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        manifest: What it consists of.
        tensors: Its arrays by key; read-only, possibly views of a file.
        state: Everything else, as decoded from JSON.
        skipped: Newer checkpoints that were passed over, newest first.
    """

    manifest: Manifest
    tensors: Mapping[str, np.ndarray[Any, Any]]
    state: Mapping[str, Any]
    skipped: tuple[Skipped, ...] = ()

    @property
    def step(self) -> int:
        """Training batches consumed since the run began."""
        return self.manifest.step


class CheckpointStore:
    """The checkpoints below one folder of a storage."""

    def __init__(
        self,
        storage: Storage,
        *,
        prefix: str = "checkpoints",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes the folder; nothing is read or written yet.

        Args:
            storage: Where the checkpoints lie.
            prefix: The folder's name in it.
            clock: Seconds since 1970.
        """
        self._storage = storage
        self._prefix = prefix
        self._clock = clock

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
    ) -> Manifest:
        """Commits a checkpoint.

        Args:
            step: Training batches consumed since the run began.
            attempt: The attempt that saves.
            tensors: The tensors by key, fetched one at a time.
            state: Everything else; JSON values only.

        Returns:
            The manifest. The checkpoint is committed when this returns, and
            does not exist if it raises.

        Raises:
            StepExistsError: If the step is committed and verifies.
            NoSpaceError: If the storage is full.
            StorageError: If it cannot be written for another reason.
        """
        if self._manifest_exists(step):
            self._give_up_damaged(step)
        hashes: dict[str, str] = {}
        content = json.dumps(state, indent=1).encode() + b"\n"
        pieces = {
            data_file_name(
                "tensors", attempt=attempt, suffix="safetensors"
            ): safetensors.serialize(tensors, hashes=hashes),
            data_file_name("state", attempt=attempt, suffix="json"): blocks(
                content
            ),
        }
        files: dict[str, Digest] = {}
        try:
            for name, chunks in pieces.items():
                files[name] = self._create(step, name, chunks)
            tensors_file, state_file = pieces
            manifest = Manifest(
                step=step,
                attempt=attempt,
                created=self._clock(),
                tensors_file=tensors_file,
                state_file=state_file,
                files=files,
                tensors=hashes,
            )
            self._create(step, MANIFEST, [manifest.to_bytes()])
        except Exception:
            self._discard([f"{self._directory(step)}/{f}" for f in files])
            raise
        return manifest

    def steps(self) -> list[int]:
        """The steps that have a manifest, oldest first; not yet verified."""
        found = set()
        for info in self._storage.list(f"{self._prefix}/"):
            directory, _, file = info.name[len(self._prefix) + 1 :].partition(
                "/"
            )
            step = step_of(directory)
            if file == MANIFEST and step is not None:
                found.add(step)
        return sorted(found)

    def manifest(self, step: int) -> Manifest:
        """Reads the manifest of a step, without its files.

        Raises:
            StepNotFoundError: If the step is not committed.
            DamagedCheckpointError: If the manifest is not whole.
            StorageUnavailableError: If it cannot be read.
        """
        try:
            content = self._storage.read(f"{self._directory(step)}/{MANIFEST}")
        except ObjectNotFoundError:
            raise StepNotFoundError(step, available=self.steps()) from None
        try:
            return Manifest.from_bytes(content, step=step)
        except ValueError as error:
            raise DamagedCheckpointError(
                step, reason=f"{MANIFEST}: {error}"
            ) from None

    def load(self, step: int) -> Checkpoint:
        """Reads and verifies one checkpoint.

        Raises:
            StepNotFoundError: If the step is not committed.
            DamagedCheckpointError: If anything of it is not as committed.
            StorageUnavailableError: If it cannot be read.
        """
        manifest = self.manifest(step)
        files = {
            name: self._verified(step, name, digest)
            for name, digest in manifest.files.items()
        }
        try:
            return Checkpoint(
                manifest,
                tensors=safetensors.parse(files[manifest.tensors_file]),
                state=json.loads(bytes(files[manifest.state_file])),
            )
        except ValueError as error:
            raise DamagedCheckpointError(step, reason=str(error)) from None

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
                return Checkpoint(
                    found.manifest, found.tensors, found.state, tuple(skipped)
                )
        if skipped:
            raise NoUsableCheckpointError(self.describe(), skipped=skipped)
        return None

    def delete(self, step: int) -> None:
        """Removes a checkpoint: manifest first, then what it named.

        Raises:
            StepNotFoundError: If the step is not committed.
            StorageError: If it cannot be removed.
        """
        if not self._manifest_exists(step):
            raise StepNotFoundError(step, available=self.steps())
        self._storage.delete(f"{self._directory(step)}/{MANIFEST}")
        self._discard(
            [info.name for info in self._storage.list(self._directory(step) + "/")]
        )

    def retain(self, policy: KeepPolicy) -> list[int]:
        """Deletes what a policy does not keep.

        The two newest checkpoints that look whole always stay, whatever the
        policy says: the newest, and one to fall back to.

        Returns:
            The steps deleted.
        """
        steps = self.steps()
        whole: list[int] = []
        for step in reversed(steps):
            if len(whole) < 2 and self.looks_whole(step):
                whole.append(step)
        doomed = set(steps) - policy.kept(steps) - set(whole)
        if len(whole) < 2:
            return []
        for step in sorted(doomed):
            self.delete(step)
        return sorted(doomed)

    def looks_whole(self, step: int) -> bool:
        """Whether the manifest and the sizes of the files are right.

        A quick look that reads no tensors: for deciding what to keep.
        """
        try:
            return all(
                self._storage.info(f"{self._directory(step)}/{name}").size_bytes
                == digest.size_bytes
                for name, digest in self.manifest(step).files.items()
            )
        except (
            DamagedCheckpointError,
            StepNotFoundError,
            ObjectNotFoundError,
        ):
            return False

    def sweep(self) -> list[str]:
        """Removes files that no manifest names. Only for the one writer.

        Folders whose manifest is damaged are left as they are.

        Returns:
            The names removed.
        """
        committed = set(self.steps())
        doomed = []
        for info in list(self._storage.list(f"{self._prefix}/")):
            directory, _, file = info.name[len(self._prefix) + 1 :].partition(
                "/"
            )
            step = step_of(directory)
            if step is None:
                continue
            if step not in committed or (
                file != MANIFEST and not self._names(step, file)
            ):
                doomed.append(info.name)
        return self._discard(doomed)

    def _names(self, step: int, file: str) -> bool:
        try:
            return file in self.manifest(step).files
        except (DamagedCheckpointError, StepNotFoundError):
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

    def _verified(self, step: int, name: str, digest: Digest) -> memoryview:
        try:
            content = self._storage.map(f"{self._directory(step)}/{name}")
        except ObjectNotFoundError:
            raise DamagedCheckpointError(
                step, reason=f"{name} is missing"
            ) from None
        if len(content) != digest.size_bytes:
            raise DamagedCheckpointError(
                step,
                reason=f"{name} has {len(content)} bytes instead of "
                f"{digest.size_bytes}",
            )
        hasher = Hasher()
        for block in blocks(content):
            hasher.update(block)
        if hasher.digest() != digest:
            raise DamagedCheckpointError(
                step, reason=f"{name} does not have the content it was "
                "written with (its hash differs)",
            )
        return content

    def _discard(self, names: list[str]) -> list[str]:
        """Removes files that nothing names; those that are gone are gone."""
        removed = []
        for name in names:
            try:
                self._storage.delete(name)
            except ObjectNotFoundError:
                continue
            removed.append(name)
        return removed
