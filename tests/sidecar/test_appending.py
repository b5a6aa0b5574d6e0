"""Files that grow, kept up with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colab_keras_bg.sidecar.appending import AppendedFile
from colab_keras_bg.storage import MemoryStorage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "log"


class Counting(MemoryStorage):
    """Counts the bytes that it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_bytes = 0

    def append(self, name: str, content: bytes, *, at: int) -> object:  # type: ignore[override]
        self.sent_bytes += len(content)
        return super().append(name, content, at=at)


def test_only_what_is_new_is_sent(path: Path) -> None:
    """Each byte is sent once, by one shipper or another, whole lines only."""
    remote = Counting()
    file = AppendedFile(path, remote, "log")
    assert not file.ship()
    assert not remote.exists("log")
    path.write_bytes(b"one\ntw")
    assert file.ship()
    assert remote.read("log") == b"one\n"
    assert not file.ship()
    path.write_bytes(b"one\ntwo\nthree\n")
    another = AppendedFile(path, remote, "log")
    assert another.ship()
    assert remote.read("log") == path.read_bytes()
    path.write_bytes(path.read_bytes() + bytes(5 << 20) + b"\nend\nx")
    assert another.ship()
    assert remote.read("log") == path.read_bytes()[:-1]
    assert remote.sent_bytes == path.stat().st_size - 1
    path.write_bytes(path.read_bytes() + b"\n")
    assert file.ship()  # It remembers what was there long ago.
    assert remote.read("log") == path.read_bytes()


def test_a_line_without_an_end(path: Path) -> None:
    """Megabytes without a newline wait for it."""
    remote = MemoryStorage()
    path.write_bytes(b"first\n" + b"x" * (3 << 20))
    AppendedFile(path, remote, "log").ship()
    assert remote.read("log") == b"first\n"


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.binary(max_size=6), st.booleans()),
        max_size=8,
    )
)
def test_however_it_is_cut_back(
    path: Path, changes: list[tuple[int, bytes, bool]]
) -> None:
    """
    Cut back and written on, by one shipper or a new one: what lies there is
    what lies here.
    """
    path.unlink(missing_ok=True)
    remote = MemoryStorage()
    file = AppendedFile(path, remote, "log")
    content = b""
    for cut, more, anew in changes:
        lines = content.splitlines(keepends=True)
        content = b"".join(lines[: max(0, len(lines) - cut)])
        content += more.replace(b"\r", b"") + b"\n"
        path.write_bytes(content)
        if anew:
            file = AppendedFile(path, remote, "log")
        file.ship()
        assert content == remote.read("log")
