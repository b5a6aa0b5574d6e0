"""What the manifests of a store tell: of references, and of what was measured.

Invariant: what is remembered of a manifest never changes, as it does not. A
tensor is referred to where its bytes are, never by way of another
reference; and a file that any manifest refers to is in use. As long as one
manifest cannot be read, every file of tensors is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from colab_keras_bg.checkpoint import tensors as safetensors
from colab_keras_bg.checkpoint.keeping import Commit
from colab_keras_bg.checkpoint.layout import (
    is_data_file_name,
    step_directory,
)
from colab_keras_bg.checkpoint.manifest import Manifest
from colab_keras_bg.checkpoint.reading import read_manifest
from colab_keras_bg.errors import DamagedCheckpointError, ObjectNotFoundError
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.tensor import LazyTensor

__all__ = ["Origins"]

# Smaller tensors are written again: a reference is not much shorter.
_LEAST_BYTES = 1024
# Of a file, so much at least must still be needed: the rest is kept with it.
_LEAST_SHARE = 0.5


class Origins:
    """Which files of which steps the manifests of a store refer to."""

    def __init__(self, storage: Storage, prefix: str) -> None:
        """Takes the folder of all steps.

        Args:
            storage: Where they lie.
            prefix: The folder's name.
        """
        self._storage = storage
        self._prefix = prefix
        self._known: dict[int, frozenset[tuple[int, str]]] = {}
        self._commits: dict[int, Commit] = {}

    def learn(self, manifest: Manifest) -> None:
        """Remembers what a manifest tells."""
        step = manifest.step
        self._commits[step] = Commit(step, manifest.created, manifest.metrics)
        self._known[step] = manifest.origins

    def forget(self, step: int) -> None:
        """After a step's manifest was deleted."""
        self._known.pop(step, None)
        self._commits.pop(step, None)

    def commit(self, step: int) -> Commit:
        """What a policy goes by; the step alone if no manifest tells."""
        with contextlib.suppress(ObjectNotFoundError):  # Just deleted.
            self.of(step)
        return self._commits.get(step, Commit(step))

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

    def in_use(self, steps: Iterable[int]) -> Callable[[str], bool]:
        """What tells whether a file has to stay.

        Args:
            steps: The steps that have a manifest.

        Returns:
            A function of a file's name.
        """
        used: set[str] = set()
        all_read = True
        for step in steps:
            try:
                origins = self.of(step)
            except ObjectNotFoundError:  # Deleted while we read.
                continue
            all_read = all_read and step in self._known
            used |= {f"{self._directory(s)}/{file}" for s, file in origins}

        def stays(name: str) -> bool:
            file = name.rpartition("/")[2]
            unsure = not all_read and is_data_file_name(file, "tensors")
            return name in used or unsure

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
        for place, keys in places.items():
            needed = sum(tensors[key].size_bytes for key in keys)
            if needed >= _LEAST_SHARE * self._size_of(place):
                references |= dict.fromkeys(keys, place)
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
