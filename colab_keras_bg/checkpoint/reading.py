"""Reading one checkpoint, and believing nothing of what it says.

Invariant: whatever the files hold, the outcome is a verified checkpoint or a
`DamagedCheckpointError` whose reason names the file. "Cannot be read" is not
damage and passes through as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from colab_keras_bg.checkpoint import tensors as safetensors
from colab_keras_bg.checkpoint.hashing import Digest, Hasher, blocks
from colab_keras_bg.checkpoint.layout import MANIFEST, step_directory
from colab_keras_bg.checkpoint.manifest import MAX_BYTES, Manifest
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    ObjectNotFoundError,
    Skipped,
)
from colab_keras_bg.storage.interface import Storage

__all__ = ["Checkpoint", "read_checkpoint", "read_manifest"]


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


def read_manifest(storage: Storage, directory: str, *, step: int) -> Manifest:
    """Reads the manifest in a step's directory.

    Raises:
        ObjectNotFoundError: If there is none.
        DamagedCheckpointError: If it is not whole.
        StorageUnavailableError: If it cannot be read.
    """
    name = f"{directory}/{MANIFEST}"
    try:
        if storage.info(name).size_bytes > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        return Manifest.from_bytes(storage.read(name), step=step)
    except ValueError as error:
        raise _damaged(step, MANIFEST, error) from None


def read_checkpoint(
    storage: Storage, prefix: str, manifest: Manifest
) -> Checkpoint:
    """Reads and verifies the files that a manifest names or refers to.

    Args:
        storage: Where it lies.
        prefix: The folder of all steps.
        manifest: Its manifest.

    Raises:
        DamagedCheckpointError: If anything of them is not as committed.
        StorageUnavailableError: If one cannot be read.
    """
    directory = f"{prefix}/{step_directory(manifest.step)}"
    files = {
        name: _verified(storage, directory, name, digest, manifest.step)
        for name, digest in manifest.files.items()
    }
    return Checkpoint(
        manifest,
        tensors={
            **_tensors(manifest, files[manifest.tensors_file]),
            **_referenced(storage, prefix, manifest),
        },
        state=_state(manifest, files[manifest.state_file]),
    )


def _verified(
    storage: Storage, directory: str, name: str, digest: Digest, step: int
) -> memoryview:
    try:
        content = storage.map(f"{directory}/{name}")
    except ObjectNotFoundError:
        raise _damaged(step, name, "it is missing, or not a file") from None
    if len(content) != digest.size_bytes:
        raise _damaged(
            step,
            name,
            f"it has {len(content)} bytes instead of {digest.size_bytes}",
        )
    hasher = Hasher()
    for block in blocks(content):
        hasher.update(block)
    if hasher.digest() != digest:
        raise _damaged(
            step,
            name,
            "it does not have the content it was written with (its hash "
            "differs)",
        )
    return content


def _tensors(
    manifest: Manifest, content: memoryview
) -> dict[str, np.ndarray[Any, Any]]:
    name = manifest.tensors_file
    try:
        tensors = safetensors.parse(content)
    except ValueError as error:
        raise _damaged(manifest.step, name, error) from None
    own = manifest.tensors.keys() - manifest.references.keys()
    if tensors.keys() != own:
        raise _damaged(
            manifest.step, name, f"its tensors are not those of {MANIFEST}"
        )
    return tensors


def _referenced(
    storage: Storage, prefix: str, manifest: Manifest
) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors that lie in files of earlier steps.

    Each is verified by itself: of those files nothing else is needed, and
    what else they say is not believed.
    """
    found = {}
    for step, file in sorted(manifest.origins):
        name = f"{step_directory(step)}/{file}"
        try:
            views = safetensors.parse(storage.map(f"{prefix}/{name}"))
        except ObjectNotFoundError:
            raise _damaged(
                manifest.step, name, "it is missing, or not a file"
            ) from None
        except ValueError as error:
            raise _damaged(manifest.step, name, error) from None
        for key, place in manifest.references.items():
            if place != (step, file):
                continue
            view = views.get(key)
            if (
                view is None
                or safetensors.hash_of_view(view) != manifest.tensors[key]
            ):
                raise _damaged(
                    manifest.step,
                    name,
                    f"its tensor {key!r:.80} is not what was written",
                )
            found[key] = view
    return found


def _state(manifest: Manifest, content: memoryview) -> dict[str, Any]:
    name = manifest.state_file
    try:
        state = json.loads(bytes(content))
    except (ValueError, RecursionError):
        raise _damaged(manifest.step, name, "it is not JSON") from None
    if not isinstance(state, dict):
        raise _damaged(manifest.step, name, "it is not a JSON object")
    return state


def _damaged(
    step: int, name: str, reason: str | ValueError
) -> DamagedCheckpointError:
    return DamagedCheckpointError(step, reason=f"{name}: {reason}")
