"""Parts of files that grow, at a cost that does not."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.tails import sampled_lines, tail_lines

LINES = [b"line %d" % number for number in range(10_000)]


class Counting(LocalStorage):
    """Counts the bytes that were asked for."""

    asked = 0

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        self.asked += size_bytes
        return super().read_range(name, start, size_bytes)


@pytest.fixture
def storage(tmp_path: Path) -> Counting:
    """A storage with a file of many lines, the last of which is cut off."""
    (tmp_path / "log").write_bytes(b"\n".join(LINES) + b"\ncut o")
    (tmp_path / "long").write_bytes(b"x" * 10**6 + b"\nlast\n")
    return Counting(tmp_path)


@pytest.mark.parametrize("most_bytes", [1, 2, 12, 15, 25, 100, 5000, 10**7])
def test_tail(most_bytes: int, storage: Counting) -> None:
    """
    The last whole lines come, as many as fit, and no more is read.
    """
    found = tail_lines(storage, "log", most_bytes=most_bytes)
    assert found == LINES[len(LINES) - len(found) :]
    # What it takes to hold one line more than came, and the one cut off.
    more = sum(len(line) + 1 for line in LINES[-len(found) - 1 :]) + len(
        "cut o"
    )
    assert most_bytes < more or len(found) == len(LINES)
    assert storage.asked <= most_bytes + 1


def test_sample_of_all(storage: Counting) -> None:
    """
    Where all of it may be read, all whole lines come.
    """
    found = list(sampled_lines(storage, "log", most_bytes=10**7))
    assert found == LINES


@pytest.mark.parametrize("most_bytes", [8192, 20_000, 60_000])
def test_sample_of_some(most_bytes: int, storage: Counting) -> None:
    """
    Else lines from all over it come, each whole and once, in their order, the
    first and the last among them, and no more is read.
    """
    found = list(sampled_lines(storage, "log", most_bytes=most_bytes))
    places = [int(line.split()[1]) for line in found]
    assert places == sorted(set(places))
    assert set(found) <= set(LINES)
    assert (places[0], places[-1]) == (0, len(LINES) - 1)
    assert storage.asked <= most_bytes + 16
    assert max(b - a for a, b in itertools.pairwise(places)) < 9500


def test_a_long_line_is_passed_over(storage: Counting) -> None:
    """
    A line that is longer than what may be read is left out.
    """
    assert tail_lines(storage, "long", most_bytes=1000) == [b"last"]
    found = list(sampled_lines(storage, "long", most_bytes=10_000))
    assert found == [b"last"]


def test_nothing_there(storage: Counting) -> None:
    """
    Of what is not there, nothing comes.
    """
    assert tail_lines(storage, "none", most_bytes=100) == []
    assert list(sampled_lines(storage, "none", most_bytes=100)) == []
