"""A spool is shipped, and the remote is a valid run at every moment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest
from checkpoint.saves import (
    QuickFileSystem,
    arrays_of,
    assert_is_whole,
    state_of,
)

from colab_keras_bg.checkpoint.head import Head
from colab_keras_bg.checkpoint.keeping import KeepLast
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import RunHeldError, StorageUnavailableError
from colab_keras_bg.sidecar.fence import Fence
from colab_keras_bg.sidecar.shipping import Shipper
from colab_keras_bg.storage import LocalStorage, MemoryStorage, Storage
from colab_keras_bg.storage.interface import ObjectInfo
from colab_keras_bg.tensor import LazyTensor
from colab_keras_bg.testing.faulty_storage import FaultyStorage


class Spool:
    """A trainer's end."""

    def __init__(self, directory: Path, attempt: int = 1) -> None:
        self.directory = directory
        self.storage = LocalStorage(directory, filesystem=QuickFileSystem())
        self.store = CheckpointStore(self.storage)
        self.attempt = attempt

    def save(self, step: int, *, kept: int = 2) -> None:
        """Saves as a training does that goes on."""
        tensors = {k: LazyTensor.of(v) for k, v in arrays_of(step).items()}
        with (self.directory / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
        self.store.save(
            step, attempt=self.attempt, tensors=tensors, state=state_of(step)
        )
        self.store.retain(KeepLast(kept))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool")


def shipper(
    spool: Spool, remote: Storage, name: str = "a", step: int | None = None
) -> Shipper:
    """One that holds the run."""
    fence = Fence(remote, holder=name, machine=f"machine {name}")
    fence.look()
    fence.take(run_id="run", step=step)
    return Shipper(spool.storage, remote, fence, keep_policy=KeepLast(2))


def assert_is_valid(remote: Storage, least: int | None = None) -> int | None:
    """
    Fails unless the remote is a run to go on from: what HEAD names is there
    and whole, and the reports up to it. Returns that step.
    """
    head = Head.read(remote)
    step = head.step if head else None
    if step is None:
        assert least is None
        return None
    assert_is_whole(CheckpointStore(remote).load(step), step)
    lines = remote.read("metrics.jsonl").splitlines()
    assert step in [json.loads(line)["step"] for line in lines]
    newest = CheckpointStore(remote).latest(expected=step)
    assert newest is not None
    assert newest.step >= step
    assert least is None or step >= least
    return step


def test_what_is_saved_is_shipped(spool: Spool) -> None:
    """Step after step arrives, becomes durable, and what is old goes."""
    remote = MemoryStorage()
    made = shipper(spool, remote)
    assert not made.ship()
    assert made.durable.step is None
    for step in range(1, 6):
        spool.save(step)
        assert made.due() == [step]
        assert made.ship()
        assert not made.ship()
        assert made.durable.step == step
        assert assert_is_valid(remote) == step
    assert CheckpointStore(remote).steps() == [4, 5] == spool.store.steps()
    here = {i.name: i.size_bytes for i in spool.storage.list("checkpoints/")}
    there = {i.name: i.size_bytes for i in remote.list("checkpoints/")}
    assert here == there
    assert not list((spool.directory / ".pins").iterdir())


def test_the_newest_goes_first(spool: Spool) -> None:
    """Of several that wait, the newest is what a person would lose."""
    remote = MemoryStorage()
    made = shipper(spool, remote)
    for step in range(1, 5):
        spool.save(step, kept=3)
    assert made.due() == [4, 3, 2]
    made.ship()
    assert made.durable.step == 4
    made.ship()
    assert made.durable.step == 4
    assert Head.read(remote).step == 4  # type: ignore[union-attr]
    assert CheckpointStore(remote).steps() == [3, 4]


def test_what_is_unchanged_is_not_sent_again(spool: Spool) -> None:
    """A tensor that is referred to is on the other side already."""
    remote = FaultyStorage(MemoryStorage())
    made = shipper(spool, remote)
    for step in (1, 2, 3):
        spool.save(step)
        made.ship()
    sent = [call for call in remote.calls if call.startswith("upload")]
    assert len(sent) == len(set(sent)) == 6
    # The frozen tensor of step 1 is still needed.
    assert_is_whole(CheckpointStore(remote).load(3), 3)
    manifest = CheckpointStore(remote).manifest(3)
    assert [origin for origin, _ in manifest.origins] == [1]


def test_what_is_given_up_meanwhile_is_shipped_whole(spool: Spool) -> None:
    """A save and the giving up of what is being sent change nothing."""
    backing = MemoryStorage()
    remote = FaultyStorage(backing)
    made = shipper(spool, remote)
    spool.save(1)

    def meanwhile(number: int, call: str) -> None:
        if call.startswith("upload") and "tensors" in call:
            remote.fails = lambda number, call: None
            for step in (2, 3, 4):
                spool.save(step)
            assert spool.store.steps() == [3, 4]

    remote.fails = meanwhile
    assert made.ship()
    assert assert_is_valid(backing) == 1
    assert made.ship()
    assert assert_is_valid(backing) == 4


@pytest.mark.parametrize("fault", ["before", "after"])
def test_the_network_is_gone_at_any_call(
    spool: Spool, tmp_path: Path, fault: str
) -> None:
    """
    Whichever call is the last that comes through, the remote is valid, and
    the same shipper or a new one brings everything there.
    """
    counted = FaultyStorage(MemoryStorage())
    ship_three(spool, counted, lambda: None)
    number_of_calls = len(counted.calls)
    assert number_of_calls > 30
    for dies_at in range(number_of_calls):
        again = Spool(tmp_path / f"{fault}-{dies_at}")
        again.directory.mkdir()
        backing = MemoryStorage()
        remote = FaultyStorage(
            backing,
            fails=lambda number, call, at=dies_at: (
                fault if number == at else "before" if number > at else None
            ),
        )
        with pytest.raises(StorageUnavailableError):
            ship_three(again, remote, lambda: None)
        durable = assert_is_valid(backing)
        remote.fails = lambda number, call: None
        again.save(9)
        if Head.read(backing) is None or dies_at % 2:
            made = shipper(again, remote, step=durable)
        else:
            made = last_made[-1]
        while made.ship():
            pass
        assert assert_is_valid(backing, durable) == 9
        there = CheckpointStore(backing)
        there.sweep()
        assert set(there.steps()) <= {1, 2, 3, 9}
        named = {
            f"checkpoints/step-{step:09d}/{file}"
            for step in there.steps()
            for file in there.manifest(step).files
        }
        needed = named | {
            f"checkpoints/step-{origin:09d}/{file}"
            for step in there.steps()
            for origin, file in there.manifest(step).origins
        }
        assert needed <= {info.name for info in backing.list()}


last_made: list[Shipper] = []


def ship_three(
    spool: Spool, remote: Storage, between: Callable[[], object]
) -> None:
    """Ships three steps."""
    made = shipper(spool, remote)
    last_made[:] = [made]
    for step in (1, 2, 3):
        spool.save(step)
        made.ship()
        between()


def test_after_each_call_the_remote_is_valid(spool: Spool) -> None:
    """Whoever looks at any moment sees a run to go on from."""
    backing = MemoryStorage()
    seen: list[int | None] = []

    def look(number: int, call: str) -> None:
        if Head.read(backing):
            seen.append(assert_is_valid(backing, seen[-1] if seen else None))

    remote = FaultyStorage(backing, fails=look)
    ship_three(spool, remote, lambda: None)
    assert {None, 1, 2} <= set(seen)


@pytest.mark.parametrize("kind", ["tensors", "state"])
@pytest.mark.parametrize("damage", ["flipped", "shortened", "missing"])
def test_damage_here_is_not_shipped(
    spool: Spool, kind: str, damage: str
) -> None:
    """A file that is not what was written is told of, not sent on."""
    remote = MemoryStorage()
    made = shipper(spool, remote)
    spool.save(1)
    made.ship()
    spool.save(2)
    (path,) = spool.directory.glob(f"checkpoints/step-000000002/{kind}-*")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        flipped = bytes([content[0] ^ 1]) + content[1:]
        path.write_bytes(flipped if damage == "flipped" else content[:-1])
    assert not made.ship()
    (skipped,) = made.skipped
    assert skipped.step == 2
    assert path.name in skipped.reason
    assert assert_is_valid(remote) == 1
    assert CheckpointStore(remote).steps() == [1]
    spool.save(3)
    made.ship()
    assert assert_is_valid(remote) == 3


def test_what_arrives_damaged_is_sent_again(spool: Spool) -> None:
    """A byte that changes on its way is found out."""

    class Lossy(MemoryStorage):
        def upload(self, name: str, path: Path) -> object:  # type: ignore[override]
            content = path.read_bytes()
            if not lost and "tensors" in name:
                lost.append(name)
                content = content[:-1] + b"?"
            return self.create(name, [content])

    lost: list[str] = []
    remote = Lossy()
    made = shipper(spool, remote)
    spool.save(1)
    with pytest.raises(StorageUnavailableError, match="not arrived"):
        made.ship()
    assert lost
    assert Head.read(remote).step is None  # type: ignore[union-attr]
    made.ship()
    assert assert_is_valid(remote) == 1


def test_the_loser_ships_nothing(spool: Spool, tmp_path: Path) -> None:
    """Who was taken over from learns it before anything is sent."""
    remote = MemoryStorage()
    first = shipper(spool, remote)
    spool.save(1)
    first.ship()
    second = shipper(spool, remote, "b", step=1)
    before = {info.name: remote.read(info.name) for info in remote.list()}
    spool.save(2)
    with pytest.raises(RunHeldError):
        first.ship()
    after = {info.name: remote.read(info.name) for info in remote.list()}
    assert before == after
    assert second.due() == [2, 1]  # What it finds there, it looks at.


def test_a_take_over_in_the_last_moment(spool: Spool, tmp_path: Path) -> None:
    """
    What the loser commits after its last look is void, and makes way for the
    winner's own.
    """
    backing = MemoryStorage()
    remote = FaultyStorage(backing)
    first = shipper(spool, remote)
    spool.save(1)
    first.ship()
    spool.save(2)
    winner: list[Shipper] = []
    (tmp_path / "other").mkdir()
    other = Spool(tmp_path / "other", attempt=2)
    other.save(1)

    def meanwhile(number: int, call: str) -> None:
        if call.startswith("create") and "manifest" in call:
            remote.fails = lambda number, call: None
            winner.append(shipper(other, backing, "b", step=1))

    remote.fails = meanwhile
    with pytest.raises(RunHeldError):
        first.ship()
    assert CheckpointStore(backing).steps() == [1, 2]  # Void.
    assert Head.read(backing).step == 1  # type: ignore[union-attr]
    other.save(2)
    winner[0].ship()
    while winner[0].ship():
        pass
    assert assert_is_valid(backing) == 2
    assert CheckpointStore(backing).manifest(2).attempt == 2
    assert first.durable.step == 1


def test_pins_where_there_are_no_links(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without hard links is shipped from all the same."""
    remote = MemoryStorage()
    made = shipper(spool, remote)
    spool.save(1)

    def no_links(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "link", no_links)
    made.ship()
    assert assert_is_valid(remote) == 1


def test_another_step_is_published_with_its_attempt(spool: Spool) -> None:
    """HEAD names the attempt that has made the commit."""
    remote = MemoryStorage()
    made = shipper(spool, remote)
    spool.attempt = 4
    spool.save(1)
    made.ship()
    head = Head.read(remote)
    assert head is not None
    assert (head.attempt, head.run_id) == (4, "run")
    assert head == replace(head, step=1)


class Unreliable(MemoryStorage):
    """Tells checksums of what it has; it loses a bit of the first tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.loses = True

    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        content = bytearray(b"".join(chunks))
        if self.loses and name.endswith(".safetensors"):
            content[-1] ^= 1
            self.loses = False
        super().create(name, [bytes(content)])
        return self.info(name)

    def info(self, name: str) -> ObjectInfo:
        content = self.read(name)
        return ObjectInfo(
            name, len(content), crc32c=f"{google_crc32c.value(content):08x}"
        )


def test_what_arrives_otherwise_is_sent_again(spool: Spool) -> None:
    """
    What the far end says it has is compared by checksum; what is not as it
    was sent is not called durable, and is sent again.
    """
    remote = Unreliable()
    made = shipper(spool, remote)
    spool.save(1)
    with pytest.raises(StorageUnavailableError, match="not arrived as it was"):
        made.ship()
    assert made.durable.step is None
    assert CheckpointStore(remote).steps() == []
    assert made.ship()
    assert assert_is_valid(remote) == 1


def test_what_is_not_kept_there_is_not_sent_for_ever(spool: Spool) -> None:
    """
    More is kept here than there: what the far end gives up is sent once, and
    again only if the training commits that step anew.
    """
    remote = MemoryStorage()
    made = shipper(spool, remote)
    for step in range(1, 6):
        spool.save(step, kept=9)
    shipped = 0
    while made.ship():
        shipped += 1
        assert shipped <= 5
    assert CheckpointStore(remote).steps() == [4, 5]
    assert made.due() == []
    spool.store.delete(2)
    spool.save(2, kept=9)
    assert made.due() == [2]


def test_a_manifest_that_is_gone_there(spool: Spool) -> None:
    """
    Somebody removes or damages the manifest of a step that is about to be
    given up: what is saved goes on to be shipped.
    """
    remote = MemoryStorage()
    made = shipper(spool, remote)
    for step in range(1, 3):
        spool.save(step, kept=4)
        made.ship()
    manifest = "checkpoints/step-000000001/manifest.json"
    remote.replace(manifest, remote.read(manifest)[:20])
    remote.delete("checkpoints/step-000000002/manifest.json")
    for step in range(3, 6):
        spool.save(step, kept=4)
        while made.ship():
            pass
        assert made.durable.step == step
    assert assert_is_valid(remote, least=5) == 5


def test_what_goes_before_a_commit(spool: Spool) -> None:
    """
    There is no manifest before what led to it is there; if that cannot be
    shipped, the checkpoint waits.
    """
    remote = MemoryStorage()
    fence = Fence(remote, holder="a", machine="machine a")
    fence.look()
    fence.take(run_id="run", step=None)
    listed: list[list[str]] = []
    answers = [StorageUnavailableError("not now"), None]

    def goes_before() -> None:
        listed.append([info.name for info in remote.list("checkpoints/")])
        if (error := answers.pop(0)) is not None:
            raise error

    made = Shipper(
        spool.storage,
        remote,
        fence,
        keep_policy=KeepLast(2),
        goes_before=goes_before,
    )
    spool.save(1)
    with pytest.raises(StorageUnavailableError, match="not now"):
        made.ship()
    assert CheckpointStore(remote).steps() == []
    assert made.ship()
    assert CheckpointStore(remote).steps() == [1]
    assert 2 == len(listed)
    assert not any(n.endswith("manifest.json") for each in listed for n in each)
