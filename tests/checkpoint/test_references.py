"""What has not changed is not written again, and never lost for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colab_keras_bg.checkpoint.hashing import content_hash
from colab_keras_bg.checkpoint.keeping import KeepLast
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    NoSpaceError,
    NoUsableCheckpointError,
)
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.tensor import LazyTensor

from .saves import bits_of, debris_in, files_of, store_in, tree_of

FROZEN = np.random.default_rng(0).normal(size=(90, 50)).astype(np.float32)


def arrays(step: int, *, thawed_at: int = 10**9) -> dict[str, np.ndarray]:
    """Ninety per cent that stay what they are, until they are thawed."""
    draw = np.random.default_rng(step)
    frozen = FROZEN if step < thawed_at else FROZEN * step
    return {
        "backbone": frozen,
        "head": draw.normal(size=(10, 50)).astype(np.float32),
        "small": np.arange(3),
    }


def save(store: CheckpointStore, step: int, **how: Any) -> int:
    """Saves a step; returns the bytes that were written for it."""
    given = {k: LazyTensor.of(v) for k, v in arrays(step, **how).items()}
    manifest = store.save(step, attempt=1, tensors=given, state={"step": step})
    return manifest.size_bytes


def assert_whole(store: CheckpointStore, step: int, **how: Any) -> None:
    """Fails unless a step has the bits that were saved."""
    found = store.load(step)
    assert bits_of(arrays(step, **how)) == bits_of(found.tensors)


def test_unchanged_is_not_written_again(tmp_path: Path) -> None:
    """
    With nine tenths frozen, each save after the first writes at most 12 % of
    the state, in the same process and in one that goes on.
    """
    whole = sum(array.nbytes for array in arrays(1).values())
    store = store_in(tmp_path)
    assert save(store, 1) > whole
    assert save(store, 2) <= 0.12 * whole
    resumed = store_in(tmp_path)
    resumed.latest()
    assert save(resumed, 3) <= 0.12 * whole
    for step in (1, 2, 3):
        assert_whole(store_in(tmp_path), step)
    # A reference names the file that holds the bytes, not another reference.
    assert {(1, store.manifest(1).tensors_file)} == store.manifest(3).origins


def test_only_what_was_verified_is_referred_to(tmp_path: Path) -> None:
    """
    A process that has neither saved nor loaded a checkpoint writes all.
    """
    save(store_in(tmp_path), 1)
    fresh = store_in(tmp_path)
    assert save(fresh, 2) > FROZEN.nbytes
    assert not fresh.manifest(2).references


def test_damage_found_is_not_referred_to(tmp_path: Path) -> None:
    """
    After damage was found, everything is written again, and what comes is
    whole.
    """
    store = store_in(tmp_path)
    save(store, 1)
    save(store, 2)
    file = files_of(tmp_path, 1)["tensors"]
    content = bytearray(file.read_bytes())
    content[-FROZEN.nbytes // 2] ^= 1
    file.write_bytes(content)
    for step in (1, 2):
        with pytest.raises(DamagedCheckpointError):
            store.load(step)
    save(store, 3)
    assert_whole(store_in(tmp_path), 3)
    found = store_in(tmp_path).latest()
    assert found is not None
    assert 3 == found.step


def test_thawed(tmp_path: Path) -> None:
    """
    What has changed is written, and later references go to the new place.
    """
    store = store_in(tmp_path)
    for step in (1, 2, 3, 4):
        save(store, step, thawed_at=3)
    assert {(1, store.manifest(1).tensors_file)} == store.manifest(2).origins
    assert not store.manifest(3).references
    for step in (1, 2, 3, 4):
        assert_whole(store_in(tmp_path), step, thawed_at=3)


def test_another_shape_or_dtype_is_a_change(tmp_path: Path) -> None:
    """
    The same bytes in another shape, or as another dtype, are written again.
    """
    store = store_in(tmp_path)
    for step, array in enumerate(
        (FROZEN, FROZEN.reshape(50, 90), FROZEN.view(np.int32)), start=1
    ):
        tensors = {"a": LazyTensor.of(array)}
        store.save(step, attempt=1, tensors=tensors, state={})
        assert not store.manifest(step).references
        found = store_in(tmp_path).load(step)
        assert bits_of({"a": array}) == bits_of(found.tensors)


def test_deleting_keeps_what_is_needed(tmp_path: Path) -> None:
    """
    The file of a deleted step stays as long as any step needs it, and goes
    with the last of them.
    """
    store = store_in(tmp_path)
    for step in (1, 2, 3):
        save(store, step)
    origin = files_of(tmp_path, 1)["tensors"]
    store.delete(1)
    assert [origin] == list(origin.parent.iterdir())
    store_in(tmp_path).sweep()
    for step in (2, 3):
        assert_whole(store_in(tmp_path), step)
    store.delete(3)
    assert_whole(store_in(tmp_path), 2)
    store_in(tmp_path).delete(2)
    assert not origin.parent.exists()
    assert [] == debris_in(tmp_path)


def test_nothing_piles_up(tmp_path: Path) -> None:
    """
    After many saves of which two are kept, no more lies there than they
    need: at most twice the state, and the heads.
    """
    store = store_in(tmp_path)
    for step in range(1, 40):
        save(store, step, thawed_at=20)
        store.retain(KeepLast(2))
    lying = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    whole = sum(array.nbytes for array in arrays(1).values())
    assert lying < 2 * whole + 4096  # And manifests.
    assert [] == debris_in(tmp_path)
    for step in (38, 39):
        assert_whole(store_in(tmp_path), step, thawed_at=20)


def test_a_small_part_is_referred_to(tmp_path: Path) -> None:
    """However little of a file is unchanged, it is not written again."""
    store = store_in(tmp_path)
    kept = {"kept": np.arange(1000.0)}
    for step in (1, 2, 3):
        changing = {"other": np.full(9000, step, dtype=np.float64)}
        tensors = {k: LazyTensor.of(v) for k, v in (kept | changing).items()}
        store.save(step, attempt=1, tensors=tensors, state={})
    assert set(store.manifest(2).references) == {"kept"}
    assert store.manifest(2).references == store.manifest(3).references


def test_what_is_kept_for_references_is_bounded(tmp_path: Path) -> None:
    """
    Where each tensor freezes at another step, the files that they lie in are
    kept, but all that is in them besides is never more than the state.
    """
    store = store_in(tmp_path)
    state_bytes = 10 * 16_000
    for step in range(1, 25):
        tensors = {
            f"{n}": LazyTensor.of(np.full(2000, min(step, 2 * n), np.float64))
            for n in range(10)
        }
        store.save(step, attempt=1, tensors=tensors, state={})
        store.retain(KeepLast(2))
        lying = sum(path.stat().st_size for path in tmp_path.rglob("t*.*rs"))
        assert lying < 4 * state_bytes + 20_000
    assert_frozen = store_in(tmp_path).load(24).tensors
    for n in range(10):
        assert assert_frozen[f"{n}"][0] == 2 * n


def test_unreadable_manifest_keeps_all(tmp_path: Path) -> None:
    """
    As long as a manifest cannot be read, nobody knows what it needs: no file
    of tensors is removed.
    """
    store = store_in(tmp_path)
    for step in (1, 2, 3):
        save(store, step)
    manifest = files_of(tmp_path, 3)["manifest"]
    content = manifest.read_bytes()
    manifest.write_bytes(content[:-9])
    fresh = store_in(tmp_path)
    fresh.delete(1)
    fresh.delete(2)
    fresh.sweep()
    manifest.write_bytes(content)
    assert_whole(store_in(tmp_path), 3)


def reference(step: int, file: str) -> Callable[[dict[str, Any]], None]:
    """A forged reference of the backbone."""

    def forge(body: dict[str, Any]) -> None:
        body["references"]["backbone"] = [step, file]

    return forge


def of_another_key(body: dict[str, Any]) -> None:
    """A reference of a tensor that is not there."""
    body["references"]["nothing"] = body["references"]["backbone"]


def without(body: dict[str, Any]) -> None:
    """No reference, and nothing in the own file."""
    del body["references"]["backbone"]


HOSTILE = {
    "out of the folder": reference(1, "../../secret.safetensors"),
    "an absolute path": reference(1, "/etc/passwd"),
    "a manifest": reference(1, "manifest.json"),
    "to itself": reference(2, "tensors-0001-01234567.safetensors"),
    "to a later step": reference(3, "tensors-0001-01234567.safetensors"),
    "a negative step": reference(-1, "tensors-0001-01234567.safetensors"),
    "a file that is not there": reference(
        1, "tensors-0001-01234567.safetensors"
    ),
    "of another key": of_another_key,
    "left out": without,
    "not a pair": lambda body: body["references"].update(backbone=[1]),
    "not a mapping": lambda body: body.update(references=[]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_references(name: str, tmp_path: Path) -> None:
    """
    A forged reference, in a manifest with its right hash, is refused with a
    reason; the step before is taken, and nothing is changed.
    """
    store = store_in(tmp_path)
    save(store, 1)
    save(store, 2)
    path = files_of(tmp_path, 2)["manifest"]
    body = json.loads(path.read_bytes())
    del body["xxh3_128"]
    HOSTILE[name](body)

    def canonical(value: Any) -> bytes:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return text.encode() + b"\n"

    sealed = {**body, "xxh3_128": content_hash(canonical(body))}
    path.write_bytes(canonical(sealed))
    before = tree_of(tmp_path)
    found = store_in(tmp_path).latest()
    assert found is not None
    assert (1, [2]) == (found.step, [s.step for s in found.skipped])
    assert before == tree_of(tmp_path)


def test_damage_at_any_byte_of_what_is_needed(tmp_path: Path) -> None:
    """
    Each byte of the file that is referred to is verified, as far as it is
    needed, and the header as far as it says what the tensor is.
    """
    store = store_in(tmp_path)
    save(store, 1)
    save(store, 2)
    store.delete(1)  # Only what step 2 needs is left of it.
    file = files_of(tmp_path, 1)["tensors"]
    content = file.read_bytes()
    header = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + header])["backbone"]
    start = 8 + header + entry["data_offsets"][0]
    draw = np.random.default_rng(1)
    places = draw.integers(start, start + FROZEN.nbytes, size=200)
    for place in map(int, places):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        file.write_bytes(damaged)
        with pytest.raises(NoUsableCheckpointError, match="'backbone' is not"):
            store_in(tmp_path).latest()
    for old, new in ((b'"F32"', b'"I32"'), (b"[90,50]", b"[50,90]")):
        assert content.count(old)
        file.write_bytes(content.replace(old, new, 1))
        with pytest.raises(NoUsableCheckpointError, match="'backbone' is not"):
            store_in(tmp_path).latest()
    file.write_bytes(content)
    assert_whole(store_in(tmp_path), 2)


class FullStorage(LocalStorage):
    """A disk with so much left."""

    free = 0

    def free_bytes(self) -> int:
        return self.free


def test_space_is_checked_before(tmp_path: Path) -> None:
    """
    A save that does not fit is refused before anything is written, with how
    much is needed and how much is free; what is unchanged needs none.
    """
    storage = FullStorage(tmp_path)
    store = CheckpointStore(storage)
    with pytest.raises(NoSpaceError, match=r"4 MB needed, 0 MB free"):
        save(store, 1)
    assert [] == list(tmp_path.iterdir())
    storage.free = 4_300_000
    save(store, 1)
    storage.free = 4_200_000  # Enough for the head, not for the backbone.
    save(store, 2)
    with pytest.raises(NoSpaceError):
        save(store, 3, thawed_at=3)
    assert [1, 2] == store.steps()
    assert [] == debris_in(tmp_path)


def test_a_store_that_refers_to_nothing(tmp_path: Path) -> None:
    """
    What a finished fit left lies in one file each, for people to open.
    """
    store = CheckpointStore(LocalStorage(tmp_path), refers=False)
    for step in (1, 2):
        assert save(store, step) > FROZEN.nbytes
        assert not store.manifest(step).references
