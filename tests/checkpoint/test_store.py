"""Saving, finding, loading, deleting and keeping checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colab_keras_bg.checkpoint.keeping import KeepEvery, KeepLast, KeepPolicy
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    NoSpaceError,
    NoUsableCheckpointError,
    ObjectNotFoundError,
    Skipped,
    StepExistsError,
    StepNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from colab_keras_bg.storage import MemoryStorage, ObjectInfo, Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.tensor import LazyTensor

from .saves import (
    QuickFileSystem,
    arrays_of,
    assert_is_whole,
    files_of,
    save,
    state_of,
    store_in,
    tree_of,
)

HASH_DIFFERS = (
    "it does not have the content it was written with (its hash differs)"
)


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A storage to keep checkpoints in."""
    if request.param == "memory":
        return MemoryStorage()
    return LocalStorage(tmp_path, filesystem=QuickFileSystem())


@pytest.fixture
def store(storage: Storage) -> CheckpointStore:
    """A store without checkpoints."""
    return CheckpointStore(storage, clock=lambda: 1_234)


def spoil(storage: Storage, step: int, kind: str = "tensors") -> str:
    """Flips a bit in a file of a checkpoint; returns the file's name."""
    (name,) = (
        info.name
        for info in storage.list(f"checkpoints/step-{step:09d}/{kind}")
    )
    content = bytearray(storage.read(name))
    content[-1] ^= 1
    storage.replace(name, bytes(content))
    return name.rpartition("/")[2]


class Deaf(KeepPolicy):
    """Keeps nothing."""

    def __repr__(self) -> str:
        return "Deaf()"

    def kept(self, steps: object) -> frozenset[int]:
        return frozenset()


# Saving and loading.


def test_what_is_saved_is_loaded(store: CheckpointStore) -> None:
    """A checkpoint is bit by bit what was saved, and says what it is."""
    tensors = {"a": LazyTensor.of(np.arange(6, dtype=np.int16).reshape(2, 3))}
    manifest = store.save(7, attempt=3, tensors=tensors, state={"b": [1.5]})
    found = store.load(7)
    assert found.manifest == manifest
    assert (found.step, found.skipped) == (7, ())
    assert (manifest.step, manifest.attempt) == (7, 3)
    assert manifest.created == 1_234.0
    assert {key: array.tolist() for key, array in found.tensors.items()} == {
        "a": [[0, 1, 2], [3, 4, 5]]
    }
    assert found.tensors["a"].dtype == np.int16
    assert found.state == {"b": [1.5]}
    assert found.manifest.size_bytes == sum(
        len(store._storage.read(f"checkpoints/step-000000007/{name}"))
        for name in manifest.files
    )


def test_any_kind_of_checkpoint(store: CheckpointStore) -> None:
    """Several dtypes, no elements, no tensors: all come back."""
    save(store, 0)
    assert_is_whole(store.latest(), 0)
    store.save(1, attempt=1, tensors={}, state={})
    found = store.latest()
    assert found is not None
    assert (found.tensors, found.state) == ({}, {})


def test_loaded_tensors_cannot_be_written_to(store: CheckpointStore) -> None:
    """What was loaded cannot be changed by mistake."""
    save(store, 1)
    array = store.load(1).tensors["layers/dense/kernel"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_loaded_tensors_outlive_their_files(store: CheckpointStore) -> None:
    """A checkpoint that is deleted while it is in use stays readable."""
    save(store, 1)
    found = store.load(1)
    store.delete(1)
    assert_is_whole(found, 1)


def test_steps_are_found_in_order(store: CheckpointStore) -> None:
    """Steps are listed oldest first, by number and not by age or name."""
    assert store.steps() == []
    assert store.latest() is None
    for step in (9, 1_000_000_000, 10, 0):
        save(store, step)
    assert store.steps() == [0, 9, 10, 1_000_000_000]
    assert_is_whole(store.latest(), 1_000_000_000)
    assert_is_whole(store.latest(below=1_000_000_000), 10)
    assert_is_whole(store.latest(below=10), 9)
    assert store.latest(below=0) is None


@pytest.mark.parametrize("step", [-1, 10**18])
def test_steps_that_cannot_be(store: CheckpointStore, step: int) -> None:
    """What could never be found again is not saved."""
    with pytest.raises(ValueError, match=f"cannot be a step: {step}"):
        store.save(step, attempt=1, tensors={}, state={})
    assert [*store._storage.list()] == []


@pytest.mark.parametrize("attempt", [-1, 10**9])
def test_attempts_that_cannot_be(store: CheckpointStore, attempt: int) -> None:
    """Names that would be refused when read are not made."""
    with pytest.raises(ValueError, match=f"cannot be an attempt: {attempt}"):
        store.save(1, attempt=attempt, tensors={}, state={})
    assert store.steps() == []


def test_a_whole_step_is_never_overwritten(store: CheckpointStore) -> None:
    """Saving a step that is committed is refused, and changes nothing."""
    save(store, 1)
    before = store.manifest(1)
    with pytest.raises(StepExistsError) as caught:
        store.save(1, attempt=2, tensors={}, state={})
    assert caught.value.step == 1
    assert str(caught.value) == (
        "Step 1 is committed already, and a committed checkpoint is never "
        "overwritten."
    )
    assert before == store.manifest(1)
    assert_is_whole(store.load(1), 1)


@pytest.mark.parametrize("kind", ["tensors", "state", "manifest"])
def test_a_damaged_step_makes_way(
    storage: Storage, store: CheckpointStore, kind: str
) -> None:
    """A step whose checkpoint is damaged can be saved again."""
    save(store, 1)
    spoil(storage, 1, kind)
    save(store, 1)
    assert_is_whole(store.latest(), 1)
    assert len([*storage.list()]) == 3


def test_two_stores_in_one_storage(storage: Storage) -> None:
    """Stores under different folders do not see or touch each other."""
    first = CheckpointStore(storage)
    second = CheckpointStore(storage, prefix="final")
    save(first, 1)
    save(second, 2)
    assert (first.steps(), second.steps()) == ([1], [2])
    assert second.describe() == f"{storage.describe()}/final"
    second.sweep()
    second.delete(2)
    assert_is_whole(first.latest(), 1)


def test_a_state_that_is_no_json(
    storage: Storage, store: CheckpointStore
) -> None:
    """
    What JSON cannot hold is refused before anything is written, or a damaged
    checkpoint given up.
    """
    save(store, 1)
    spoil(storage, 1)
    before = {info.name: storage.read(info.name) for info in storage.list()}
    for step in (1, 2):
        with pytest.raises(TypeError):
            store.save(step, attempt=1, tensors={}, state={"a": object()})
    assert before == {i.name: storage.read(i.name) for i in storage.list()}


def test_a_clock_that_is_broken(storage: Storage) -> None:
    """A manifest that could not be read back is not written."""
    store = CheckpointStore(storage, clock=lambda: float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        save(store, 1)
    assert [*storage.list()] == []


def test_the_first_error_is_the_one_that_is_raised() -> None:
    """That clearing up fails too is not what the caller has to hear."""

    class Full(MemoryStorage):
        def create(self, name: str, chunks: Iterable[Any]) -> ObjectInfo:
            if name.endswith("manifest.json"):
                raise NoSpaceError(name, where="memory")
            return super().create(name, chunks)

        def delete(self, name: str) -> None:
            raise StorageError(5, "Input/output error")

    store = CheckpointStore(Full())
    with pytest.raises(NoSpaceError) as caught:
        save(store, 1)
    assert caught.value.name == "checkpoints/step-000000001/manifest.json"
    assert store.steps() == []


def test_a_store_does_not_grow(store: CheckpointStore) -> None:
    """What is known of a step is forgotten with it."""
    for step in range(10):
        save(store, step)
        store.retain(KeepLast(2))
    assert set(store._verdicts) == {8, 9}


@pytest.mark.parametrize("at", [0, 1])
def test_a_tensor_that_cannot_be_fetched(
    store: CheckpointStore, at: int
) -> None:
    """
    What fetching a tensor raises comes through; the step does not exist then,
    the one before it does, and it can be saved later.
    """
    save(store, 1)

    def fails() -> np.ndarray:
        raise ZeroDivisionError

    tensors = {"a": LazyTensor.of(np.ones(3))} if at else {}
    tensors["b"] = LazyTensor(np.dtype(np.int8), (1,), fails)
    with pytest.raises(ZeroDivisionError):
        store.save(2, attempt=1, tensors=tensors, state={})
    assert store.steps() == [1]
    assert len([*store._storage.list()]) == 3
    assert_is_whole(store.latest(), 1)
    save(store, 2)
    assert_is_whole(store.latest(), 2)


@pytest.mark.parametrize("use", ["load", "delete", "manifest"])
def test_steps_that_are_not_there(store: CheckpointStore, use: str) -> None:
    """A step that was never committed is an error that says which were."""
    save(store, 3)
    save(store, 20)
    with pytest.raises(StepNotFoundError) as caught:
        getattr(store, use)(4)
    assert caught.value.step == 4
    assert caught.value.available == (3, 20)
    assert str(caught.value) == (
        "No committed checkpoint for step 4. Committed steps: 3, 20. Leave "
        "the step out to take the latest one."
    )
    assert not store.looks_whole(4)


# Damage.


def test_damage_is_skipped_and_told(
    storage: Storage, store: CheckpointStore
) -> None:
    """The newest whole checkpoint is taken; what was passed over is listed."""
    for step in (1, 2, 3, 4):
        save(store, step)
    state = spoil(storage, 4, "state")
    tensors = spoil(storage, 3)
    found = store.latest()
    assert_is_whole(found, 2)
    assert found is not None
    assert found.skipped == (
        Skipped(4, f"{state}: {HASH_DIFFERS}"),
        Skipped(3, f"{tensors}: {HASH_DIFFERS}"),
    )
    with pytest.raises(DamagedCheckpointError) as caught:
        store.load(3)
    assert (caught.value.step, caught.value.reason) == found.skipped[1]
    assert str(caught.value) == (
        f"The checkpoint of step 3 is damaged: {tensors}: {HASH_DIFFERS}."
    )


def test_no_usable_checkpoint(storage: Storage, store: CheckpointStore) -> None:
    """If none verifies that is an error which lists each, and no beginning."""
    for step in (1, 2):
        save(store, step)
    names = [spoil(storage, step) for step in (2, 1)]
    with pytest.raises(NoUsableCheckpointError) as caught:
        store.latest()
    error = caught.value
    assert error.where == store.describe()
    assert error.skipped == (
        Skipped(2, f"{names[0]}: {HASH_DIFFERS}"),
        Skipped(1, f"{names[1]}: {HASH_DIFFERS}"),
    )
    assert str(error) == (
        f"None of the 2 checkpoint(s) in {store.describe()} can be used:\n"
        f"  step 2: {names[0]}: {HASH_DIFFERS}\n"
        f"  step 1: {names[1]}: {HASH_DIFFERS}\n"
        "Nothing was changed. Put the files back from a copy, use another run "
        "directory, or start over (--start_over, or bg.Run(run_dir, "
        "start_over=True); the present directory is "
        "then set aside, not deleted)."
    )


def test_a_step_that_is_known_and_gone(store: CheckpointStore) -> None:
    """
    A step that was committed and is gone is damage: it is told, and if it is
    the only one, it is no beginning.
    """
    with pytest.raises(NoUsableCheckpointError) as caught:
        store.latest(expected=5)
    assert caught.value.skipped == (Skipped(5, "manifest.json is missing"),)
    save(store, 4)
    found = store.latest(expected=5)
    assert_is_whole(found, 4)
    assert found is not None
    assert found.skipped == (Skipped(5, "manifest.json is missing"),)


@pytest.mark.parametrize("expected", [None, 0, 3, 4])
def test_a_head_that_lags_is_no_damage(
    store: CheckpointStore, expected: int | None
) -> None:
    """A commit newer than the one that is known is simply the newest."""
    save(store, 4)
    found = store.latest(expected=expected)
    assert_is_whole(found, 4)
    assert found is not None
    assert found.skipped == ()


def test_a_step_deleted_while_it_is_read(tmp_path: Path) -> None:
    """
    To whoever reads while the run goes on, a step that is deleted meanwhile
    is not there: it is not damaged.
    """
    save(store_in(tmp_path), 1)
    save(store_in(tmp_path), 2)

    class Overtaken(LocalStorage):
        def map(self, name: str) -> memoryview:
            if 2 in store_in(tmp_path).steps():
                store_in(tmp_path).delete(2)
            return super().map(name)

    reader = CheckpointStore(Overtaken(tmp_path))
    with pytest.raises(StepNotFoundError) as caught:
        reader.load(2)
    assert caught.value.available == (1,)


def test_a_storage_that_cannot_be_read(
    storage: Storage, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    "Cannot be read" is neither "there is none" nor "it is damaged": it is
    raised, and nothing is skipped or deleted for it.
    """
    for step in (1, 2, 3):
        save(store, step)
    before = sorted(info.name for info in storage.list())

    def fails(*_: object) -> None:
        raise StorageUnavailableError(5, "Input/output error")

    for method in ("read", "map", "info", "list"):
        fresh = CheckpointStore(storage)
        with monkeypatch.context() as patched:
            patched.setattr(storage, method, fails)
            with pytest.raises(StorageUnavailableError):
                fresh.latest()
            with pytest.raises(StorageUnavailableError):
                fresh.retain(KeepLast(2))
    assert before == sorted(info.name for info in storage.list())


# Deleting and keeping.


def test_deleting(storage: Storage, store: CheckpointStore) -> None:
    """A deleted step leaves nothing, and its neighbours are untouched."""
    for step in (1, 2, 3):
        save(store, step)
    store.delete(2)
    assert store.steps() == [1, 3]
    assert [*storage.list("checkpoints/step-000000002/")] == []
    assert_is_whole(store.load(1), 1)
    assert_is_whole(store.load(3), 3)
    save(store, 2)
    assert_is_whole(store.load(2), 2)


def test_deleting_removes_the_manifest_first() -> None:
    """What is half deleted does not show."""

    class Dying(MemoryStorage):
        def delete(self, name: str) -> None:
            super().delete(name)
            raise KeyboardInterrupt

    storage = Dying()
    store = CheckpointStore(storage)
    save(store, 1)
    with pytest.raises(KeyboardInterrupt):
        store.delete(1)
    assert store.steps() == []
    assert len([*storage.list()]) == 2


def test_files_that_vanish_are_deleted_already() -> None:
    """Somebody else's deleting of the same files is no error."""

    class Racing(MemoryStorage):
        def delete(self, name: str) -> None:
            super().delete(name)
            if "manifest" not in name:
                raise ObjectNotFoundError(name, where="memory")

    store = CheckpointStore(Racing())
    save(store, 1)
    store.delete(1)
    assert store.steps() == []


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (KeepLast(2), [5, 6]),
        (KeepLast(3), [4, 5, 6]),
        (KeepLast(100), [1, 2, 3, 4, 5, 6]),
        (KeepLast(1), [5, 6]),
        (KeepLast(0), [5, 6]),
        (KeepEvery(2), [2, 4, 5, 6]),
        (Deaf(), [5, 6]),
    ],
    ids=str,
)
def test_retaining(
    store: CheckpointStore, policy: KeepPolicy, expected: list[int]
) -> None:
    """What the policy does not keep goes, but for the two newest."""
    for step in range(1, 7):
        save(store, step)
    deleted = store.retain(policy)
    assert expected == store.steps()
    assert sorted(set(range(1, 7)) - set(expected)) == deleted
    for step in expected:
        assert_is_whole(store.load(step), step)
    assert store.retain(policy) == []


@pytest.mark.parametrize("count", [0, 1])
def test_retaining_with_nothing_to_fall_back_to(
    storage: Storage, store: CheckpointStore, count: int
) -> None:
    """As long as no two checkpoints are whole, nothing is deleted."""
    for step in (1, 2, 3):
        save(store, step)
    for step in (1, 2, 3)[count:]:
        spoil(storage, step)
    assert CheckpointStore(storage).retain(Deaf()) == []
    assert store.steps() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["tensors", "state", "manifest"])
@pytest.mark.parametrize("restored", [True, False])
def test_retaining_does_not_count_the_damaged(
    storage: Storage, store: CheckpointStore, restored: bool, kind: str
) -> None:
    """
    The two newest that verify stay, whatever is damaged: the last step to
    fall back to never goes for one that only looks whole.
    """
    for step in (1, 2, 3):
        save(store, step)
    spoil(storage, 3, kind)
    resumed = CheckpointStore(storage)
    if restored:
        assert_is_whole(resumed.latest(), 2)
    save(resumed, 4)
    assert resumed.retain(KeepLast(2)) == [1]
    assert_is_whole(resumed.load(2), 2)
    assert_is_whole(resumed.load(4), 4)
    save(resumed, 5)
    assert resumed.retain(KeepLast(2)) == [2, 3]
    assert resumed.steps() == [4, 5]


def test_retaining_reads_nothing_back_that_is_known(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As training goes on, keeping the newest costs no reading of tensors."""
    store = CheckpointStore(storage)
    save(store, 1)
    resumed = CheckpointStore(storage)
    assert_is_whole(resumed.latest(), 1)

    def fails(name: str) -> None:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(storage, "map", fails)
    for step in (2, 3, 4):
        put(resumed, step)
        resumed.retain(KeepLast(2))
    assert resumed.steps() == [3, 4]


def put(store: CheckpointStore, step: int) -> None:
    """Saves, as a training does that goes on for long."""
    tensors = {k: LazyTensor.of(v) for k, v in arrays_of(step).items()}
    store.save(step, attempt=1, tensors=tensors, state=state_of(step))


def test_the_folder_is_listed_once(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a save costs does not grow with what is kept."""
    store = CheckpointStore(storage)
    listed: list[str] = []
    list_ = storage.list

    def watched(prefix: str = "") -> Iterator[ObjectInfo]:
        listed.append(prefix)
        return list_(prefix)

    monkeypatch.setattr(storage, "list", watched)
    for step in range(1, 9):
        put(store, step)
        assert [c.step for c in store.commits()][-1] == step
        store.retain(KeepLast(4))
    assert listed.count("checkpoints/") == 1
    others = [p for p in listed if p != "checkpoints/"]
    assert others == [f"checkpoints/step-{s:09d}/" for s in (1, 2, 3, 4)]
    assert store.steps() == [5, 6, 7, 8] == CheckpointStore(storage).steps()


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_retaining_what_another_deleted(storage: Storage, gone: int) -> None:
    """A folder that is listed once may have lost a step since."""
    store = CheckpointStore(storage)
    for step in (1, 2, 3):
        put(store, step)
        store.retain(KeepLast(3))
    CheckpointStore(storage).delete(gone)
    put(store, 4)
    left = [step for step in (1, 2, 3, 4) if step != gone]
    assert store.retain(KeepLast(2)) == [s for s in left if s < left[-2]]
    assert store.steps() == left[-2:]
    assert_is_whole(store.latest(), 4)


def test_looks_whole(storage: Storage, store: CheckpointStore) -> None:
    """A quick look sees what is missing or too short, and reads no tensor."""
    for step in range(1, 5):
        save(store, step)
    spoil(storage, 1, "manifest")
    name = f"checkpoints/step-000000002/{spoil(storage, 2)}"
    storage.replace(name, storage.read(name)[:-1])
    storage.delete(f"checkpoints/step-000000003/{spoil(storage, 3, 'state')}")
    spoil(storage, 4)
    found = {step: store.looks_whole(step) for step in range(6)}
    assert found == {
        **{0: False, 1: False, 2: False, 3: False},
        **{4: True, 5: False},
    }


# Sweeping.


def test_sweeping(tmp_path: Path) -> None:
    """
    Sweeping removes what no manifest names, temporary files and folders
    that are empty then; committed checkpoints and strangers stay.
    """
    store = store_in(tmp_path)
    for step in (1, 2):
        save(store, step)
    before = tree_of(tmp_path)
    folder = tmp_path / "checkpoints"
    debris = [
        folder / "step-000000001" / "tensors-0001-01234567.safetensors",
        folder / "step-000000001" / "below" / "x",
        folder / "step-000000009" / "state-0001-01234567.json",
        folder / "step-000000009" / ".manifest.json.0123456789ab.tmp",
    ]
    strangers = [folder / "notes.txt", folder / "step-1" / "manifest.json"]
    for path in debris + strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    (folder / "step-000000010").mkdir()
    removed = store.sweep()
    expected = [path.relative_to(tmp_path).as_posix() for path in debris]
    assert sorted(expected) == sorted(removed)
    found = tree_of(tmp_path)
    assert set(found) - set(before) == {
        "checkpoints/notes.txt",
        "checkpoints/step-1",
        "checkpoints/step-1/manifest.json",
    }
    assert before.items() <= found.items()
    assert store.sweep() == []


def test_sweeping_leaves_what_it_cannot_judge(tmp_path: Path) -> None:
    """The files of a step whose manifest is damaged are left for repair."""
    store = store_in(tmp_path)
    save(store, 1)
    files_of(tmp_path, 1)["manifest"].write_bytes(b"{")
    before = tree_of(tmp_path)
    assert store.sweep() == []
    assert before == tree_of(tmp_path)


# The files.


def test_the_files_are_as_documented(tmp_path: Path) -> None:
    """A checkpoint is a folder of tensors, state and manifest.

    Their names say the step and the attempt; the manifest, which is JSON, has
    the digests of both.
    """
    save(store_in(tmp_path), 12)
    files = files_of(tmp_path, 12)
    assert sorted(files) == ["manifest", "state", "tensors"]
    assert files["tensors"].parent.name == "step-000000012"
    assert files["tensors"].match("tensors-0001-????????.safetensors")
    assert files["state"].match("state-0001-????????.json")
    manifest: Mapping[str, object] = json.loads(files["manifest"].read_bytes())
    assert manifest["format"] == "colab_keras_bg.checkpoint/1"
    assert manifest["step"] == 12
    assert set(manifest["files"]) == {
        files["tensors"].name,
        files["state"].name,
    }
    assert json.loads(files["state"].read_bytes())["note"] == "zwölf"


def test_names_are_never_used_again(tmp_path: Path) -> None:
    """The same step saved twice has files of different names."""
    store = store_in(tmp_path)
    names = set()
    for _ in range(20):
        save(store, 1)
        names |= set(store.manifest(1).files)
        store.delete(1)
    assert len(names) == 40
