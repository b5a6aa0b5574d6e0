"""The names of a checkpoint's files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.checkpoint.layout import (
    data_file_name,
    is_data_file_name,
    step_directory,
    step_of,
)
from colab_keras_bg.storage.interface import check_name


@given(step=st.integers(0, 10**18 - 1))
def test_steps_and_their_folders(step: int) -> None:
    """Every step has a folder of its own, whose name is an object's."""
    assert step_of(step_directory(step)) == step
    assert check_name(step_directory(step))


def test_folders_sort_as_steps() -> None:
    """Up to a milliard steps a listing shows them in order."""
    assert step_directory(1_234) == "step-000001234"
    steps = [0, 9, 10, 123, 999_999_999]
    assert sorted(map(step_directory, steps)) == [*map(step_directory, steps)]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "step-",
        "step-1",
        "step-00000001",
        "step-0000000001",
        "step--00000001",
        "step-+00000001",
        "step-00000001 ",
        "step-000000001\n",
        "step-000000001/",
        "step-\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661",
        "step-" + "1" * 19,
        "Step-000000001",
        "xstep-000000001",
        "step-00000000a",
        "step_000000001",
    ],
    ids=ascii,
)
def test_other_folders(name: str) -> None:
    """A folder that we could not have named belongs to no step."""
    assert step_of(name) is None


@pytest.mark.parametrize(
    ("kind", "suffix"), [("tensors", "safetensors"), ("state", "json")]
)
@pytest.mark.parametrize("attempt", [0, 1, 9_999, 123_456_789])
def test_data_files(kind: str, suffix: str, attempt: int) -> None:
    """A file's name says kind and attempt, and is made only once."""
    names = {data_file_name(kind, attempt=attempt) for _ in range(50)}
    assert len(names) == 50
    other = {"tensors": "state", "state": "tensors"}[kind]
    for name in names:
        assert name.startswith(f"{kind}-{attempt:04d}-")
        assert name.endswith(f".{suffix}")
        assert is_data_file_name(name)
        assert is_data_file_name(name, kind)
        assert not is_data_file_name(name, other)
        assert check_name(name)


def test_other_kinds_of_file() -> None:
    """There are two kinds of data file, and no third."""
    with pytest.raises(KeyError):
        data_file_name("weights", attempt=1)
