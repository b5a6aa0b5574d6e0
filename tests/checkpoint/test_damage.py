"""Every kind of damage to every file of the newest checkpoint."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colab_keras_bg.errors import NoUsableCheckpointError

from .saves import assert_is_whole, files_of, save, store_in, tree_of

KINDS = ("tensors", "state", "manifest")
FLIPS = 300


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Holds the checkpoints of steps 1, 2 and 3."""
    store = store_in(tmp_path / "run")
    for step in (1, 2, 3):
        save(store, step)
    return tmp_path / "run"


def assert_is_found_out(run: Path, file: Path) -> None:
    """
    Fails unless step 3 is passed over with a reason that names the file, the
    previous step is taken, and looking changes nothing.
    """
    before = tree_of(run)
    found = store_in(run).latest(expected=3)
    assert_is_whole(found, 2)
    assert found is not None
    ((step, reason),) = found.skipped
    assert step == 3
    assert reason.startswith((f"{file.name}: ", f"{file.name} is ")), reason
    assert before == tree_of(run)


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte short": lambda content: content[:-1],
    "one byte long": lambda content: content[:1],
    "seven bytes long": lambda content: content[:7],
    "a head of it": lambda content: content[:64],
    "half of it": lambda content: content[: len(content) // 2],
    "without its head": lambda content: content[8:],
    "zeros": lambda content: bytes(len(content)),
    "zeros after 64 bytes": lambda c: c[:64] + bytes(len(c) - 64),
    "one byte more": lambda content: content + b"\n",
    "twice": lambda content: content * 2,
}
# What is no file any more.
PLACES = (
    "deleted",
    "a folder",
    "a link to a copy outside",
    "a link to a secret",
    "a link to itself",
)
DAMAGES = (*CONTENTS, *PLACES)


def do(damage: str, path: Path) -> None:
    """Does a damage to a file."""
    if damage in CONTENTS:
        path.write_bytes(CONTENTS[damage](path.read_bytes()))
    elif damage == "a link to a copy outside":
        outside = path.parents[3] / f"outside {path.name}"
        path.rename(outside)
        path.symlink_to(outside)
    else:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
            (path / "x").write_bytes(b"1")
        elif damage.startswith("a link"):
            path.symlink_to(path if "itself" in damage else "/etc/passwd")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage(kind: str, damage: str, run: Path) -> None:
    """Whatever happened to a file, it is found out, named and passed over."""
    file = files_of(run, 3)[kind]
    do(damage, file)
    assert_is_found_out(run, file)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_another_step(kind: str, run: Path) -> None:
    """A file swapped with the same file of another step is found out."""
    mine, other = files_of(run, 3)[kind], files_of(run, 1)[kind]
    content = mine.read_bytes()
    mine.write_bytes(other.read_bytes())
    if kind != "tensors":  # Those of step 1 are needed by all.
        other.write_bytes(content)
    assert_is_found_out(run, mine)


def test_the_folder_of_another_step(run: Path) -> None:
    """A whole checkpoint under another step's name is found out."""
    folder = run / "checkpoints"
    shutil.rmtree(folder / "step-000000003")
    shutil.copytree(folder / "step-000000001", folder / "step-000000003")
    assert_is_found_out(run, files_of(run, 3)["manifest"])
    found = store_in(run).latest()
    assert found is not None
    assert found.skipped[0].reason == "manifest.json: it belongs to step 1"


@pytest.mark.parametrize("target", ["step-000000001", "outside"])
def test_a_link_in_the_folders_place(target: str, run: Path) -> None:
    """A step's folder that is a link is no checkpoint."""
    folder = run / "checkpoints" / "step-000000003"
    (run.parent / "outside").mkdir()
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / target)
    assert_is_found_out(run, folder / "manifest.json")


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes(kind: str, run: Path) -> None:
    """
    Hundreds of bytes, each flipped for itself, and none goes unnoticed; put
    back, the checkpoint is whole again.
    """
    file = files_of(run, 3)[kind]
    content = file.read_bytes()
    draw = random.Random(f"flips of {kind}")
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        file.write_bytes(flipped)
        found = store_in(run).latest()
        assert found is not None
        assert found.step == 2
        assert found.skipped[0].reason.startswith(f"{file.name}: ")
    file.write_bytes(content)
    assert_is_whole(store_in(run).latest(), 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit(kind: str, run: Path) -> None:
    """Each single bit of each file, flipped for itself, is noticed."""
    file = files_of(run, 3)[kind]
    content = file.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        found = store_in(run).latest()
        assert found is not None
        assert found.step == 2


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=150,
    deadline=None,
)
@given(
    kind=st.sampled_from(KINDS),
    start=st.floats(0, 1),
    length=st.integers(0, 40),
    instead=st.binary(max_size=60),
)
def test_random_damage(
    run: Path, kind: str, start: float, length: int, instead: bytes
) -> None:
    """Any stretch of any file replaced by any other bytes is found out."""
    file = files_of(run, 3)[kind]
    content = file.read_bytes()
    begin = int(start * len(content))
    changed = content[:begin] + instead + content[begin + length :]
    file.write_bytes(changed)
    try:
        found = store_in(run).latest()
        assert found is not None
        assert found.step == (3 if changed == content else 2)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_left(kind: str, damage: str, tmp_path: Path) -> None:
    """
    If no checkpoint verifies, that is an error that lists each, and no byte
    on the disk has changed.
    """
    run = tmp_path / "run"
    steps = (1, 2)
    for step in steps:
        save(store_in(run), step)
    files = {step: files_of(run, step)[kind] for step in steps}
    for file in files.values():
        do(damage, file)
    before = tree_of(run)
    with pytest.raises(NoUsableCheckpointError) as caught:
        store_in(run).latest(expected=2)
    assert before == tree_of(run)
    gone = kind == "manifest" and damage in PLACES
    # Of an older step without a manifest nobody knows that it ever was.
    expected = [2] if gone else [2, 1]
    assert expected == [skipped.step for skipped in caught.value.skipped]
    for skipped in caught.value.skipped:
        assert files[skipped.step].name in skipped.reason
        assert f"step {skipped.step}: {skipped.reason}" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_training_goes_on_after_damage(
    kind: str, damage: str, run: Path
) -> None:
    """
    From the previous checkpoint the next ones are saved, and the damaged one
    is in nobody's way: also its own step, unless something that is no file of
    ours sits in its place.
    """
    do(damage, files_of(run, 3)[kind])
    store = store_in(run)
    assert_is_whole(store.latest(), 2)
    store.sweep()
    in_the_way = kind == "manifest" and damage in PLACES[1:]
    if not in_the_way:
        save(store, 3)
        assert_is_whole(store.latest(), 3)
    save(store, 4)
    assert_is_whole(store.latest(expected=4), 4)
