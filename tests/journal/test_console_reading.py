"""What was printed, read back while it is still being stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from colab_keras_bg.journal import console_reading
from colab_keras_bg.journal.console_pump import ConsolePump, read_notes
from colab_keras_bg.journal.console_reading import ConsoleReader
from colab_keras_bg.journal.raw_console import RawConsole
from colab_keras_bg.storage.interface import ObjectInfo
from colab_keras_bg.storage.local import LocalStorage


class Watched(LocalStorage):
    """Counts what is read, and does something before it lists."""

    def __init__(self, root: Path, before: Callable[[], object]) -> None:
        super().__init__(root)
        self.before, self.reads = before, 0

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.before()
        return super().list(prefix)

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        self.reads += 1
        return super().read_range(name, start, size_bytes)


def prints(
    directory: Path, content: bytes, *, attempt: int = 1, apart: bool = False
) -> None:
    """Appends to what an attempt has written."""
    raw = RawConsole.of(directory, attempt, errors_apart=apart)
    raw.path.parent.mkdir(parents=True, exist_ok=True)
    with raw.path.open("ab") as file:
        file.write(content)


def numbers(begin: int, end: int) -> bytes:
    """Lines with these numbers."""
    return b"".join(b"%d\n" % n for n in range(begin, end))


@pytest.mark.parametrize("moment", ["listed", "noted"])
def test_stored_while_it_is_read(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    However the pump comes in between, each line comes once, in order, and all
    that was there at the beginning comes.
    """
    pump = ConsolePump(tmp_path, limit_bytes=1 << 30)
    written, turns = 0, 0
    # What is stored is given back to the disk, but for a megabyte.
    count = 60_000 if moment == "noted" else 1000

    def goes_on() -> None:
        nonlocal written, turns
        if turns == 6:
            return
        turns += 1
        prints(tmp_path, numbers(written, written + count) + b"open")
        pump.pump()
        prints(
            tmp_path,
            b"\r\x1b[K" + numbers(written + count, written + 2 * count),
        )
        written += 2 * count

    def noted(raw: RawConsole) -> Mapping[str, Any]:
        found = read_notes(raw)
        goes_on()
        return found

    for _ in range(3):
        goes_on()
    before, storage = written, LocalStorage(tmp_path)
    if moment == "listed":
        storage = Watched(tmp_path, goes_on)
    else:
        monkeypatch.setattr(console_reading, "read_notes", noted)
    reader = ConsoleReader(storage)
    found = [line.text for line in reader.all_lines(tmp_path)]
    assert turns > 3
    assert before <= len(found) <= written
    assert [b"%d" % n for n in range(len(found))] == found


def test_nothing_is_held(tmp_path: Path) -> None:
    """
    The first line comes before more than a block was read, however much there
    is of however many attempts.
    """
    for attempt in (1, 2):
        prints(tmp_path, numbers(0, 400_000), attempt=attempt)
    ConsolePump(tmp_path).drain()
    prints(tmp_path, b"last\n", attempt=2)
    storage = Watched(tmp_path, lambda: None)
    lines = ConsoleReader(storage).all_lines(tmp_path)
    assert b"0" == next(lines).text
    assert 1 == storage.reads
    rest = [line.text for line in lines]
    assert 800_000 == len(rest)
    assert b"last" == rest[-1]


def test_two_streams(tmp_path: Path) -> None:
    """
    Of an attempt whose errors go elsewhere, both are there, once each.
    """
    prints(tmp_path, numbers(0, 10))
    prints(tmp_path, b"E1\n", apart=True)
    ConsolePump(tmp_path).pump()
    prints(tmp_path, numbers(10, 12))
    prints(tmp_path, b"E2\n", apart=True)
    reader = ConsoleReader(LocalStorage(tmp_path))
    found = [line.text for line in reader.all_lines(tmp_path)]
    assert [b"%d" % n for n in range(12)] == [
        text for text in found if text.isdigit()
    ]
    assert [b"E1", b"E2"] == [t for t in found if t.startswith(b"E")]
