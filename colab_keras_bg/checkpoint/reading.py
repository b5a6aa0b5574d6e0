"""Reading one checkpoint, and believing nothing of what it says.

Invariant: whatever the files hold, the outcome is a verified checkpoint or a
`DamagedCheckpointError` whose reason names the file. "Cannot be read" is not
damage and passes through as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Checkpoint",
    "Watch",
    "looks_whole",
    "read_checkpoint",
    "read_manifest",
]

# Told what is done, how many bytes of it are, and of how many.
Watch = Callable[[str, int, int], None]

_MOST_THREADS = 8
_GROUP_BYTES, _GROUP_KEYS = 4 << 20, 512  # Of what a thread takes at once.
_CHANGED = "it does not have the content it was written with (its hash differs)"


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


def looks_whole(storage: Storage, prefix: str, manifest: Manifest) -> bool:
    """Whether the files are there and have their sizes; reads none of them.

    Args:
        storage: Where they lie.
        prefix: The folder of all steps.
        manifest: What names them.
    """
    own = f"{prefix}/{step_directory(manifest.step)}"
    try:
        for origin, file in manifest.origins:
            storage.info(f"{prefix}/{step_directory(origin)}/{file}")
        return all(
            storage.info(f"{own}/{name}").size_bytes == digest.size_bytes
            for name, digest in manifest.files.items()
        )
    except ObjectNotFoundError:
        return False


def read_checkpoint(
    storage: Storage,
    prefix: str,
    manifest: Manifest,
    *,
    watch: Watch | None = None,
) -> Checkpoint:
    """Reads and verifies the files that a manifest names or refers to.

    Args:
        storage: Where it lies.
        prefix: The folder of all steps.
        manifest: Its manifest.
        watch: Told how far it has come: what it does, the bytes that are
            verified, and all of them.

    Raises:
        DamagedCheckpointError: If anything of them is not as committed.
        StorageUnavailableError: If one cannot be read.
    """
    directory = f"{prefix}/{step_directory(manifest.step)}"
    name = manifest.state_file
    content = _mapped(storage, directory, name, manifest)
    if not _is_as_written(content, manifest.files[name]):
        raise _damaged(manifest.step, name, _CHANGED)
    state = _state(manifest, content)
    views = _own_tensors(storage, directory, manifest)
    places = dict.fromkeys(views, manifest.tensors_file)
    for origin, file, key, view in _referenced(storage, prefix, manifest):
        views[key], places[key] = view, f"{step_directory(origin)}/{file}"
    changed = _changed(views, manifest, watch)
    if changed is not None:
        place, reason = places[changed], _CHANGED
        if place != manifest.tensors_file:
            reason = f"its tensor {changed!r:.80} is not what was written"
        raise _damaged(manifest.step, place, reason)
    return Checkpoint(manifest, tensors=views, state=state)


def _mapped(
    storage: Storage, directory: str, name: str, manifest: Manifest
) -> memoryview:
    size_bytes = manifest.files[name].size_bytes
    try:
        content = storage.map(f"{directory}/{name}")
    except ObjectNotFoundError:
        raise _damaged(
            manifest.step, name, "it is missing, or not a file"
        ) from None
    if len(content) != size_bytes:
        raise _damaged(
            manifest.step,
            name,
            f"it has {len(content)} bytes instead of {size_bytes}",
        )
    return content


def _is_as_written(content: memoryview, digest: Digest) -> bool:
    hasher = Hasher()
    for block in blocks(content):
        hasher.update(block)
    return hasher.digest() == digest


def _own_tensors(
    storage: Storage, directory: str, manifest: Manifest
) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of the file; their values are not verified yet.

    Nothing else of the file is left open: its header has to be the very one
    that is written for these tensors, or the whole file is compared.
    """
    name, step = manifest.tensors_file, manifest.step
    content = _mapped(storage, directory, name, manifest)
    digest = manifest.files[name]
    try:
        tensors = safetensors.parse(content)
    except ValueError as error:
        as_written = _is_as_written(content, digest)
        raise _damaged(step, name, error if as_written else _CHANGED) from None
    if not safetensors.has_header_of(tensors, content) and not _is_as_written(
        content, digest
    ):
        raise _damaged(step, name, _CHANGED)
    if tensors.keys() != manifest.tensors.keys() - manifest.references.keys():
        reason = f"its tensors are not those of {MANIFEST}"
        as_written = _is_as_written(content, digest)
        raise _damaged(step, name, reason if as_written else _CHANGED)
    return tensors


def _referenced(
    storage: Storage, prefix: str, manifest: Manifest
) -> Iterator[tuple[int, str, str, np.ndarray[Any, Any]]]:
    """The tensors that lie in files of earlier steps; not verified yet.

    Of those files nothing else is needed, and what else they say is not
    believed.

    Yields:
        The step and the file where it lies, its key, and the tensor.
    """
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
            if key not in views:
                raise _damaged(
                    manifest.step,
                    name,
                    f"its tensor {key!r:.80} is not what was written",
                )
            yield step, file, key, views[key]


def _changed(
    views: Mapping[str, np.ndarray[Any, Any]],
    manifest: Manifest,
    watch: Watch | None,
) -> str | None:
    """The first tensor that is not what was written; reads all in parallel."""
    total, done = sum(view.nbytes for view in views.values()), 0
    what = f"verifying the checkpoint of step {manifest.step}"
    if watch is not None:
        watch(what, 0, total)

    def first_changed(keys: Sequence[str]) -> str | None:
        for key in keys:
            if safetensors.hash_of_view(views[key]) != manifest.tensors[key]:
                return key
        return None

    groups = list(_groups(views))
    # Hashing lets go of the interpreter, and so does waiting for the disk.
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for keys, changed in zip(
            groups, pool.map(first_changed, groups), strict=True
        ):
            if changed is not None:
                pool.shutdown(cancel_futures=True)
                return changed
            done += sum(views[key].nbytes for key in keys)
            if watch is not None:
                watch(what, done, total)
    return None


def _groups(
    views: Mapping[str, np.ndarray[Any, Any]],
) -> Iterator[list[str]]:
    """The keys in groups, each worth handing to a thread."""
    keys: list[str] = []
    size_bytes = 0
    for key, view in views.items():
        keys.append(key)
        size_bytes += view.nbytes
        if size_bytes >= _GROUP_BYTES or len(keys) >= _GROUP_KEYS:
            yield keys
            keys, size_bytes = [], 0
    if keys:
        yield keys


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
