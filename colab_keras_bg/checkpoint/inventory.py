"""What a store's folder holds: its steps, and what their manifests tell.

Invariant: what is remembered of a manifest never changes, as it does not. A
tensor is referred to where its bytes are, never by way of another
reference; and a file that any manifest refers to is in use. As long as one
manifest cannot be read, every file of tensors is.

The one writer lists the folder once and knows from then on what it adds and
takes away: what a save costs does not grow with what is kept. What another
removes meanwhile is noticed when it is read.
"""

from __future__ import annotations

import bisect
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from colab_keras_bg.checkpoint import tensors as safetensors
from colab_keras_bg.checkpoint.keeping import Commit
from colab_keras_bg.checkpoint.layout import (
    MANIFEST,
    is_data_file_name,
    step_directory,
    step_of,
)
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.reading import read_manifest
from colab_keras_bg.errors import DamagedCheckpointError, ObjectNotFoundError
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.tensor import LazyTensor

__all__ = ["Inventory"]

# Smaller tensors are written again: a reference is not much shorter.
_LEAST_BYTES = 1024


class Inventory:
    """Which steps a store has, and which files they refer to."""

    def __init__(self, storage: Storage, prefix: str) -> None:
        """Takes the folder of all steps.

        Args:
            storage: Where they lie.
            prefix: The folder's name.
        """
        self._storage = storage
        self._prefix = prefix
        # Replaced, never changed: the training thread reads what the saving
        # thread writes.
        self._steps: tuple[int, ...] | None = None
        self._known: dict[int, frozenset[tuple[int, str]]] = {}
        self._commits: dict[int, Commit] = {}
        self._uses: Counter[tuple[int, str]] = Counter()

    def files(self) -> Iterator[tuple[int, str, str]]:
        """Each file in a step's folder: the step, its name there, and here."""
        for info in self._storage.list(f"{self._prefix}/"):
            place = info.name.removeprefix(f"{self._prefix}/")
            directory, _, file = place.partition("/")
            step = step_of(directory)
            if step is not None:
                yield step, file, info.name

    def look(self) -> tuple[int, ...]:
        """Lists the folder: the steps that have a manifest, oldest first.

        Raises:
            StorageUnavailableError: If the storage cannot be listed.
        """
        found = sorted(s for s, file, _ in self.files() if file == MANIFEST)
        for gone in self._known.keys() - set(found):
            self.forget(gone)
        self._steps = tuple(found)
        return self._steps

    def steps(self) -> tuple[int, ...]:
        """What `look` found, and what was added and taken away since."""
        return self.look() if self._steps is None else self._steps

    def has(self, step: int) -> bool:
        """Whether a step is among `steps`."""
        steps = self.steps()
        place = bisect.bisect_left(steps, step)
        return place < len(steps) and steps[place] == step

    def learn(self, manifest: Manifest) -> None:
        """Remembers what a manifest tells."""
        step = manifest.step
        self.forget(step)
        self._commits[step] = Commit(step, manifest.created, manifest.metrics)
        self._known[step] = manifest.origins
        self._uses.update(manifest.origins)
        if self._steps is not None:
            self._steps = (
                (*self._steps, step)
                if not self._steps or self._steps[-1] < step
                else tuple(sorted({*self._steps, step}))
            )

    def forget(self, step: int) -> None:
        """After a step's manifest was deleted."""
        self._commits.pop(step, None)
        for origin in self._known.pop(step, ()):
            self._uses[origin] -= 1
            if not self._uses[origin]:
                del self._uses[origin]
        if self._steps is not None:
            self._steps = tuple(s for s in self._steps if s != step)

    def commits(self) -> list[Commit]:
        """What a policy goes by; the step alone where no manifest tells."""
        for step in set(self.steps()) - self._commits.keys():
            with contextlib.suppress(ObjectNotFoundError):  # Just deleted.
                self.of(step)
        return [self._commits.get(s) or Commit(s) for s in self.steps()]

    def of(self, step: int) -> frozenset[tuple[int, str]]:
        """What a step refers to; nothing if its manifest does not tell."""
        if step not in self._known:
            try:
                self.learn(
                    read_manifest(
                        self._storage, self._directory(step), step=step
                    )
                )
            except DamagedCheckpointError:
                return frozenset()
        return self._known[step]

    def in_use(self) -> Callable[[str], bool]:
        """What tells by a file's name whether the file has to stay."""
        for step in set(self.steps()) - self._known.keys():
            with contextlib.suppress(ObjectNotFoundError):
                self.of(step)
        unread = set(self.steps()) - self._known.keys()

        def stays(name: str) -> bool:
            file = name.rpartition("/")[2]
            unsure = bool(unread) and is_data_file_name(file, "tensors")
            directory = name.removeprefix(f"{self._prefix}/").rpartition("/")[0]
            step = step_of(directory)
            return unsure or (step is not None and (step, file) in self._uses)

        return stays

    def unchanged(
        self, tensors: Mapping[str, LazyTensor], base: Manifest
    ) -> tuple[dict[str, str], dict[str, tuple[int, str]]]:
        """The tensors that are what they were; they are released.

        Args:
            tensors: The present tensors by key.
            base: An earlier checkpoint that is whole.

        Returns:
            The hashes by key, of all that were looked at; and for each tensor
            that is not to be written again, the step and the file it lies in.
        """
        hashes: dict[str, str] = {}
        places: dict[tuple[int, str], list[str]] = {}
        for key, tensor in tensors.items():
            if key not in base.tensors or tensor.size_bytes < _LEAST_BYTES:
                continue
            hashes[key] = safetensors.hash_of(key, tensor)
            if hashes[key] == base.tensors[key]:
                own = (base.step, base.tensors_file)
                place = base.references.get(key, own)
                places.setdefault(place, []).append(key)
        references: dict[str, tuple[int, str]] = {}
        # What a file holds besides is kept with it: in all, no more than the
        # state itself is large. The files that are needed most come first.
        spare: float = sum(tensor.size_bytes for tensor in tensors.values())
        sizes = {place: self._size_of(place) for place in places}
        needed = {
            place: sum(tensors[key].size_bytes for key in keys)
            for place, keys in places.items()
        }
        for place in sorted(places, key=lambda p: sizes[p] - needed[p]):
            spare -= sizes[place] - needed[place]
            if spare >= 0:
                references |= dict.fromkeys(places[place], place)
        for key in references:
            tensors[key].release()
        return hashes, references

    def _size_of(self, place: tuple[int, str]) -> float:
        step, file = place
        try:
            name = f"{self._directory(step)}/{file}"
            return self._storage.info(name).size_bytes
        except ObjectNotFoundError:
            return float("inf")

    def _directory(self, step: int) -> str:
        return f"{self._prefix}/{step_directory(step)}"
