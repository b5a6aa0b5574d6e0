"""Checkpoints by someone who knows the format and means us ill.

All hashes are right here: what is refused is refused for what it says.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colab_keras_bg.checkpoint import manifest as manifests
from colab_keras_bg.checkpoint.hashing import Digest, Hasher, content_hash
from colab_keras_bg.checkpoint.manifest import FORMAT, Manifest
from colab_keras_bg.checkpoint.tensors import hash_of_view, parse
from colab_keras_bg.errors import DamagedCheckpointError

from .saves import assert_is_whole, save, store_in, tree_of

TENSORS = "tensors-0001-01234567.safetensors"
STATE = "state-0001-01234567.json"
HUGE = 2**64
DIGITS = "9" * 5_000  # More than Python is willing to convert.


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Holds the checkpoint of step 1; step 2 is for the attacker."""
    save(store_in(tmp_path / "run"), 1)
    (tmp_path / "run" / "checkpoints" / "step-000000002").mkdir()
    return tmp_path / "run"


def digest_of(content: bytes) -> Digest:
    """The right digest of a file."""
    hasher = Hasher()
    hasher.update(content)
    return hasher.digest()


def safetensors(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header: text, or what becomes JSON."""
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text.encode())) + text.encode() + data


def body_of(**changes: Any) -> dict[str, Any]:
    """What an ordinary manifest of step 2 says, and then something else."""
    body = {
        "step": 2,
        "attempt": 1,
        "created": 1.5,
        "tensors_file": TENSORS,
        "state_file": STATE,
        "files": {
            TENSORS: vars(digest_of(safetensors({}))),
            STATE: vars(digest_of(b"{}")),
        },
        "tensors": {},
        "references": {},
        "metrics": {},
        "format": FORMAT,
    }
    return body | changes


def canonical(body: object) -> bytes:
    """As the manifest is written."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return text.encode() + b"\n"


def sealed(body: Mapping[str, Any]) -> bytes:
    """A manifest that carries its own, right hash."""
    return canonical({**body, "xxh3_128": content_hash(canonical(body))})


def commit(
    run: Path,
    *,
    manifest: bytes | None = None,
    tensors: bytes | None = None,
    state: bytes = b"{}",
    keys: Sequence[str] = (),
) -> None:
    """Puts step 2 in place as an attacker would."""
    tensors = safetensors({}) if tensors is None else tensors
    folder = run / "checkpoints" / "step-000000002"
    (folder / TENSORS).write_bytes(tensors)
    (folder / STATE).write_bytes(state)
    if manifest is None:
        manifest = Manifest(
            step=2,
            attempt=1,
            created=1.5,
            tensors_file=TENSORS,
            state_file=STATE,
            files={TENSORS: digest_of(tensors), STATE: digest_of(state)},
            tensors={key: hash_in(tensors, key) for key in keys},
        ).to_bytes()
    (folder / "manifest.json").write_bytes(manifest)


def hash_in(file: bytes, key: str) -> str:
    """The right hash of a tensor, if the file can be read so far."""
    with contextlib.suppress(ValueError, KeyError):
        return hash_of_view(parse(memoryview(file))[key])
    return "0" * 32


def assert_is_refused(run: Path, name: str, reason: str = "") -> None:
    """
    Fails unless step 2 is passed over because of the named file, and looking
    at it in every way raises nothing else and changes nothing.
    """
    before = tree_of(run.parent)
    store = store_in(run)
    found = store.latest()
    assert_is_whole(found, 1)
    assert found is not None
    ((step, told),) = found.skipped
    assert step == 2
    assert told.startswith(f"{name}: {reason}"), told
    assert len(told) < 400
    with pytest.raises(DamagedCheckpointError):
        store.load(2)
    store.looks_whole(2)
    assert store.sweep() == []
    assert before == tree_of(run.parent)
    store.delete(2)
    assert store.steps() == [1]


def test_the_attackers_tools_work(run: Path) -> None:
    """What the tests below change would be accepted unchanged."""
    data = np.arange(3, dtype=np.int16)
    tensors = safetensors(
        {"a": {"dtype": "I16", "shape": [3], "data_offsets": [0, 6]}},
        data.tobytes(),
    )
    commit(run, tensors=tensors, keys=["a"])
    found = store_in(run).latest()
    assert found is not None
    assert (found.step, found.skipped) == (2, ())
    assert found.tensors["a"].tolist() == [0, 1, 2]
    commit(run, manifest=sealed(body_of()))
    found = store_in(run).latest()
    assert found is not None
    assert (found.step, found.skipped) == (2, ())


# Manifests.


def files_named(name: str) -> dict[str, Any]:
    """A manifest whose tensors lie in a file of this name."""
    files = body_of()["files"]
    return {"tensors_file": name, "files": {**files, name: files[TENSORS]}}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../../outside",
        "../step-000000001/" + TENSORS,
        "x/" + TENSORS,
        "./" + TENSORS,
        TENSORS + "/../x",
        TENSORS + "\n",
        TENSORS + "\0",
        "\0",
        "tensors-\u0660\u0660\u0660\u0661-01234567.safetensors",
        "tensors-0001-0123456g.safetensors",
        "tensors-0001-01234567.pickle",
        "tensors-0001-01234567.json",
        "TENSORS-0001-01234567.safetensors",
        "manifest.json",
        "..\\..\\x",
        "gs://bucket/x",
        "x" * 100_000,
    ],
    ids=lambda name: ascii(name)[:40],
)
@pytest.mark.parametrize("used", [True, False], ids=["used", "beside"])
def test_names_in_a_manifest(name: str, used: bool, run: Path) -> None:
    """
    A name that we could not have made is refused, whether it is used or only
    listed: it would be read, hashed, or deleted with the checkpoint.
    """
    changes = files_named(name)
    if not used:
        changes.pop("tensors_file")
    commit(run, manifest=sealed(body_of(**changes)))
    assert_is_refused(run, "manifest.json", "it does not hold what a manifest")


NOT_NUMBERS = (
    *(-1, HUGE, True, False, None, "2", 2.0, 2.5, [2], {"2": 2}),
    *(float("nan"), float("inf"), float("-inf"), -0.0),
)


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize("key", ["step", "attempt", "size_bytes"])
def test_numbers_in_a_manifest(key: str, value: object, run: Path) -> None:
    """What is no number of things is refused, however much it looks so."""
    body = body_of()
    where = body["files"][STATE] if key == "size_bytes" else body
    where[key] = value
    commit(run, manifest=sealed(body))
    assert_is_refused(run, "manifest.json", "it does not hold what a manifest")


@pytest.mark.parametrize(
    "value",
    [None, 1, True, "1.5", [], {}, float("nan"), float("inf"), 10**400],
    ids=lambda value: repr(value)[:20],
)
def test_times_in_a_manifest(value: object, run: Path) -> None:
    """What is no time is refused."""
    commit(run, manifest=sealed(body_of(created=value)))
    assert_is_refused(run, "manifest.json", "it does not hold what a manifest")


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        True,
        [],
        {},
        "",
        "0" * 31,
        "0" * 33,
        "G" * 32,
        "A" * 32,
        "\u0660" * 32,
        "0" * 32 + "\n",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("place", ["file", "crc", "tensor"])
def test_hashes_in_a_manifest(place: str, value: object, run: Path) -> None:
    """What is no hash of the right length is refused."""
    body = body_of()
    if place == "tensor":
        body["tensors"] = {"a": value}
    else:
        key = "xxh3_128" if place == "file" else "crc32c"
        body["files"][TENSORS][key] = value
    commit(run, manifest=sealed(body))
    assert_is_refused(run, "manifest.json", "it does not hold what a manifest")


@pytest.mark.parametrize(
    "key",
    [
        "step",
        "attempt",
        "created",
        "tensors_file",
        "state_file",
        "files",
        "tensors",
    ],
)
@pytest.mark.parametrize("value", [None, 7, "x", [], [[]], {"x": 7}, {"x": []}])
def test_other_types_in_a_manifest(key: str, value: object, run: Path) -> None:
    """A value of another type, or none at all, is refused."""
    if (key, value) != ("attempt", 7):
        commit(run, manifest=sealed(body_of(**{key: value})))
        assert_is_refused(run, "manifest.json")
    body = body_of()
    del body[key]
    (run / "checkpoints" / "step-000000002").mkdir(exist_ok=True)
    commit(run, manifest=sealed(body))
    assert_is_refused(run, "manifest.json", "it does not hold what a manifest")


def nested(depth: int) -> str:
    """JSON that is deeper than any stack."""
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "it is not a manifest"),
        (b"7", "it is not a manifest"),
        (b'"x"', "it is not a manifest"),
        (b"null", "it is not a manifest"),
        (b"NaN", "it is not a manifest"),
        (b"{}", "it is not a manifest"),
        (b"\xff\xfe{}", "it is not a manifest"),
        (b"\xef\xbb\xbf{}", "it is not a manifest"),
        (DIGITS.encode(), "it is not a manifest"),
        (nested(100_000).encode(), "it is not a manifest"),
        (f'{{"format": {nested(100_000)}}}'.encode(), "it is not a manifest"),
        (f'{{"format": {nested(900)}}}'.encode(), "its format is unreadable"),
        (b'{"format": {}}', "its format is unreadable"),
        (b'{"format": "%s"}' % (b"x" * 10_000), "its format is 'xxxx"),
        (b'{"format": "colab_keras_bg.checkpoint/2"}', "its format is 'colab"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_contents_of_a_manifest(content: bytes, reason: str, run: Path) -> None:
    """What is no manifest of this format is refused."""
    commit(run, manifest=content)
    assert_is_refused(run, "manifest.json", reason)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"step":2', b'"step":7,"step":2'),
        lambda text: text.replace(b'"step":2', b'"step":2,"step":2'),
        lambda text: text.replace(b'"step":2', b'"step": 2'),
        lambda text: text.replace(b'"step"', rb'"\u0073tep"'),
        lambda text: text.replace(b'"created":1.5', b'"created":1.50'),
        lambda text: text.replace(b'"attempt":1', b'"attempt":1,"x":1'),
        lambda text: text.replace(b'"xxh3_128"', b'"xxh3-128"'),
        lambda text: text.rstrip(b"\n"),
        lambda text: b" " + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: json.dumps(json.loads(text)).encode(),
    ],
    ids=range(11),
)
def test_other_forms_of_a_manifest(change: Any, run: Path) -> None:
    """
    Duplicate keys, other keys, other blanks, another encoding: what is not
    byte for byte what we would have written is refused.
    """
    text = sealed(body_of())
    assert change(text) != text
    commit(run, manifest=change(text))
    assert_is_refused(run, "manifest.json")


def test_an_extra_key_in_a_sealed_manifest(run: Path) -> None:
    """A key that we do not know is refused, even if the hash covers it."""
    commit(run, manifest=sealed(body_of(extra=1)))
    assert_is_refused(run, "manifest.json", "its content does not match")


@pytest.mark.parametrize("step", [1, 3, 0])
def test_another_step_in_a_manifest(step: int, run: Path) -> None:
    """A manifest of another step is refused where it lies."""
    commit(run, manifest=sealed(body_of(step=step)))
    assert_is_refused(run, "manifest.json", f"it belongs to step {step}")


def test_files_that_take_each_others_place(run: Path) -> None:
    """State is not read as tensors, nor tensors as state."""
    commit(
        run, manifest=sealed(body_of(tensors_file=STATE, state_file=TENSORS))
    )
    assert_is_refused(run, "manifest.json", "it does not hold what a manifest")


@pytest.mark.parametrize("key", ["tensors_file", "state_file"])
def test_a_file_without_a_digest(key: str, run: Path) -> None:
    """A file that the manifest uses, and does not list, is refused."""
    other = {
        "tensors_file": "tensors-0001-76543210.safetensors",
        "state_file": "state-0001-76543210.json",
    }[key]
    commit(run, manifest=sealed(body_of(**{key: other})))
    assert_is_refused(run, "manifest.json", "it does not hold what a manifest")


@pytest.mark.parametrize("key", ["crc32c", "xxh3_128"])
def test_a_checksum_that_is_wrong(key: str, run: Path) -> None:
    """Each of the two checksums is compared, though either would do."""
    body = body_of()
    body["files"][TENSORS][key] = "0" * len(body["files"][TENSORS][key])
    commit(run, manifest=sealed(body))
    assert_is_refused(run, TENSORS, "it does not have the content")


def test_a_gigantic_manifest(run: Path) -> None:
    """A manifest that claims a terabyte is not even read."""
    commit(run)
    path = run / "checkpoints" / "step-000000002" / "manifest.json"
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    found = store_in(run).latest()
    assert_is_whole(found, 1)
    assert found is not None
    assert found.skipped[0].reason == (
        "manifest.json: it is larger than 67108864 bytes"
    )


def test_a_manifest_too_large_is_not_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be read back is an error when it is saved."""
    monkeypatch.setattr(manifests, "MAX_BYTES", 500)
    with pytest.raises(ValueError, match="is larger than 500"):
        save(store_in(run), 3)
    assert store_in(run).steps() == [1]


def test_a_file_that_claims_a_size(run: Path) -> None:
    """A size that a file does not have is told before anything is read."""
    body = body_of()
    body["files"][TENSORS]["size_bytes"] = 2**62
    commit(run, manifest=sealed(body))
    assert_is_refused(
        run, TENSORS, "it has 10 bytes instead of 4611686018427387904"
    )


# States.


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b'"position"',
        b"\xff",
        nested(100_000).encode(),
        b'{"a":' * 100_000,
        b'{"a": %s}' % DIGITS.encode(),
    ],
    ids=lambda value: str(value)[:20],
)
def test_states(state: bytes, run: Path) -> None:
    """A state that is no JSON object is refused, however deep it is."""
    commit(run, state=state)
    assert_is_refused(run, STATE, "it is not ")


# Tensors.


def entry(
    dtype: object = "F32", shape: object = (), offsets: object = (0, 4)
) -> dict[str, object]:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


SIZES = ([2**62, 2], [2**32, 2**32], [HUGE], [HUGE, 0], [0, 2**62, 2**62])


@pytest.mark.parametrize(
    ("header", "data"),
    [
        # No header.
        ("", b""),
        ("{", b""),
        ("[]", b""),
        ("7", b""),
        ("null", b""),
        ('"x"', b""),
        ("\0", b""),
        (nested(100_000), b""),
        ('{"a":' * 100_000, b""),
        (DIGITS, b""),
        # No entry.
        ({"a": None}, b""),
        ({"a": []}, b""),
        ({"a": "x"}, b""),
        ({"a": {}}, b""),
        ({"a": {"data_offsets": [0, 0]}}, b""),
        # Dtypes.
        ({"a": entry("F33")}, b"1234"),
        ({"a": entry("f32")}, b"1234"),
        ({"a": entry("O")}, b"12345678"),
        ({"a": entry("|S4")}, b"1234"),
        ({"a": entry("")}, b"1234"),
        ({"a": entry(None)}, b"1234"),
        ({"a": entry(["F32"])}, b"1234"),
        ({"a": entry({"F32": 1})}, b"1234"),
        ({"a": entry(32)}, b"1234"),
        # Shapes.
        ({"a": entry(shape=None)}, b"1234"),
        ({"a": entry(shape=1)}, b"1234"),
        ({"a": entry(shape="1")}, b"1234"),
        ({"a": entry(shape={"1": 1})}, b"1234"),
        ({"a": entry(shape=[-1])}, b"1234"),
        ({"a": entry(shape=[-1, -1])}, b"1234"),
        ({"a": entry(shape=[1.0])}, b"1234"),
        ({"a": entry(shape=[True])}, b"1234"),
        ({"a": entry(shape=["1"])}, b"1234"),
        ({"a": entry(shape=[[1]])}, b"1234"),
        ({"a": entry(shape=[None])}, b"1234"),
        ({"a": entry(shape=[2])}, b"1234"),
        ({"a": entry(shape=[0])}, b"1234"),
        ({"a": entry(shape=[1] * 65)}, b"1234"),
        ({"a": entry(shape=[1] * 100_000)}, b"1234"),
        ({"a": entry(shape=[10**4_000] * 1_000)}, b"1234"),
        *(({"a": entry(shape=size)}, b"1234") for size in SIZES),
        *(({"a": entry(shape=size, offsets=[0, 0])}, b"") for size in SIZES),
        ({"a": entry(shape=[0] + [2**31] * 40, offsets=[0, 0])}, b""),
        # Offsets.
        ({"a": entry(offsets=None)}, b"1234"),
        ({"a": entry(offsets=4)}, b"1234"),
        ({"a": entry(offsets="04")}, b"1234"),
        ({"a": entry(offsets=[])}, b"1234"),
        ({"a": entry(offsets=[0])}, b"1234"),
        ({"a": entry(offsets=[0, 4, 4])}, b"1234"),
        ({"a": entry(offsets=[0.0, 4.0])}, b"1234"),
        ({"a": entry(offsets=[False, 4])}, b"1234"),
        ({"a": entry("U8", offsets=[0, True])}, b"1"),
        ({"a": entry(offsets=["0", "4"])}, b"1234"),
        ({"a": entry(offsets=[[0], [4]])}, b"1234"),
        ({"a": entry(offsets=[None, None])}, b"1234"),
        ({"a": entry(offsets=[float("nan")] * 2)}, b"1234"),
        ({"a": entry(offsets=[-4, 0])}, b"1234"),
        ({"a": entry(offsets=[4, 0])}, b"1234"),
        ({"a": entry(offsets=[0, 3])}, b"123"),
        ({"a": entry(offsets=[0, 5])}, b"12345"),
        ({"a": entry(offsets=[HUGE, HUGE + 4])}, b"1234"),
        ({"a": entry(offsets=[1, 5])}, b"12345"),
        # The file's length.
        ({"a": entry()}, b""),
        ({"a": entry()}, b"123"),
        ({"a": entry()}, b"12345"),
        ({}, b"1"),
        # Several.
        ({"a": entry(), "b": entry()}, b"1234"),
        ({"a": entry(), "b": entry()}, b"12345678"),
        ({"a": entry(), "b": entry(offsets=[2, 6])}, b"12345678"),
        ({"a": entry(), "b": entry(offsets=[5, 9])}, b"123456789"),
        ({"a": entry(), "b": entry(offsets=["4", "8"])}, b"12345678"),
        ({"a": entry(), "b": entry(offsets=[{}, {}])}, b"12345678"),
        (
            f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}',
            b"1234",
        ),
        (
            '{"a": {"dtype": "F32", "dtype": "I32", "shape": [], '
            '"data_offsets": [0, 4]}}',
            b"1234",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_headers(header: object, data: bytes, run: Path) -> None:
    """
    A header that lies about sizes, shapes, dtypes or places, or is none, is
    refused, without taking its word for how much memory to ask for.
    """
    commit(run, tensors=safetensors(header, data), keys=["a"])
    assert_is_refused(run, TENSORS, "the ")


NOT_VALID = "the header's entry of 'a' is not valid"
DOES_NOT_FIT = "the place of 'a' does not fit its shape"


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ({"a": entry(shape=[-1])}, b"1234", NOT_VALID),
        ({"a": entry(shape=[2**63, 0], offsets=[0, 0])}, b"", NOT_VALID),
        ({"a": entry(shape=[10**4_000] * 9)}, b"1234", NOT_VALID),
        ({"a": entry(shape=[1] * 65)}, b"1234", NOT_VALID),
        ({"a": entry(offsets=[0, 3])}, b"123", DOES_NOT_FIT),
        ({"a": entry(offsets=[4, 8])}, b"12345678", DOES_NOT_FIT),
        ({"a": entry()}, b"123", "the file ends before 'a' does"),
        ({"a": entry()}, b"12345", "the file is longer or shorter than its"),
        (
            {"a": entry(shape=[2**62, 0], offsets=[0, 0])},
            b"",
            "the shape of 'a' is not valid",
        ),
        ({"x" * 5_000: entry("X")}, b"1234", "the header's entry of 'xxxx"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_reasons(header: object, data: bytes, reason: str, run: Path) -> None:
    """What is told is what is wrong, at the first look that shows it."""
    commit(run, tensors=safetensors(header, data), keys=["a"])
    assert_is_refused(run, TENSORS, reason)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"\0" * 7,
        struct.pack("<Q", 0),
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100_000_001) + b"{}",
        struct.pack(">Q", 2) + b"{}",
    ],
    ids=ascii,
)
def test_lengths_of_headers(content: bytes, run: Path) -> None:
    """A header longer than the file, or than any header, is refused."""
    commit(run, tensors=content, keys=[])
    assert_is_refused(run, TENSORS, "the header")


@pytest.mark.parametrize("keys", [[], ["b"], ["a", "b"]])
def test_other_tensors_than_those_of_the_manifest(
    keys: Sequence[str], run: Path
) -> None:
    """Tensors that are not those the manifest lists are refused."""
    tensors = safetensors({"a": entry()}, b"1234")
    commit(run, tensors=tensors, keys=keys)
    assert_is_refused(
        run, TENSORS, "its tensors are not those of manifest.json"
    )
