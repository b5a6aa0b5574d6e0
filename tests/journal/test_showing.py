"""What is printed is shown to whoever watches, or a part of it."""

from __future__ import annotations

import os
from pathlib import Path

from colab_keras_bg.journal.raw_console import RawConsole
from colab_keras_bg.journal.showing import Shown, Thinned, in_notebook


class Screen:
    """What was shown, and the time, which a test moves on."""

    def __init__(self) -> None:
        self.text = b""
        self.now = 0.0

    def write(self, content: bytes) -> None:
        self.text += content

    def clock(self) -> float:
        return self.now

    @property
    def lines(self) -> list[str]:
        return self.text.decode().splitlines()


def thinned(screen: Screen) -> Thinned:
    """
    Shows a part on a screen.
    """
    return Thinned(screen.write, advice="logs RUN", clock=screen.clock)


def test_little_is_shown_as_it_comes() -> None:
    """
    Of little, all is shown at once, but for a line that is not finished.
    """
    screen = Screen()
    show = thinned(screen)
    show(b"one\ntwo\nthr")
    assert ["one", "two"] == screen.lines
    show(b"ee\n")
    show.finish()
    assert ["one", "two", "three"] == screen.lines


def test_a_few_lines_a_minute() -> None:
    """
    Of much, the newest line is shown every ten seconds, and the end as a
    whole; where all of it is, is said once.
    """
    screen = Screen()
    show = thinned(screen)
    for number in range(6000):
        screen.now = number / 100
        show(b"line %d\n" % number)
    before = len(screen.lines)
    assert 200 < before < 210
    show.finish()
    assert before + 40 <= len(screen.lines) <= before + 42
    assert [f"line {n}" for n in range(200)] == screen.lines[:200]
    assert [f"line {n}" for n in range(5990, 6000)] == screen.lines[-10:]
    said = [line for line in screen.lines if "logs RUN" in line]
    assert 1 == len(said)


def test_bar_that_never_ends() -> None:
    """
    A bar that rewrites its line is shown now and then, in its present state.
    """
    screen = Screen()
    show = thinned(screen)
    for percent in range(100):
        screen.now = percent
        show(b"\r%3d%%" % percent)
    assert 8 < len(screen.lines) < 12
    assert screen.lines == sorted(screen.lines)
    show(b"\r100%\n")
    show.finish()
    assert "100%" == screen.lines[-1]


def test_file_that_grows(tmp_path: Path) -> None:
    """
    What is appended is shown; what somebody has shown himself is not.
    """
    raw = RawConsole.of(tmp_path, 1)
    handle = raw.open()
    screen = Screen()
    shown = Shown(raw.path, screen.write)
    os.write(handle, b"theirs\n")
    shown.keep(handle, b"ours\n")
    os.write(handle, b"theirs, too\n")
    shown.keep(handle, b"ours, too\n")
    shown.show()
    os.write(handle, b"the last\n")
    shown.stop()
    os.close(handle)
    assert ["theirs", "theirs, too", "the last"] == screen.lines
    assert b"theirs\nours\ntheirs, too\nours, too\nthe last\n" == (
        raw.path.read_bytes()
    )


def test_what_was_given_back(tmp_path: Path) -> None:
    """
    Who is so slow that what he has not seen was given back to the disk is
    told how much that is, and sees the rest.
    """
    raw = RawConsole.of(tmp_path, 1)
    handle = raw.open()
    screen = Screen()
    shown = Shown(raw.path, screen.write)
    os.write(handle, b"x" * 79 + b"\n")
    os.write(handle, (b"y" * 79 + b"\n") * 50_000)
    raw.give_back(raw.size_bytes())
    os.write(handle, b"the last\n")
    shown.stop()
    os.close(handle)
    assert "the last" == screen.lines[-1]
    holes = os.stat(raw.path).st_blocks * 512 < raw.size_bytes()
    assert holes == ("MB are not shown here, but kept" in screen.lines[1])
    assert "\0" not in screen.text.decode()


def test_where_it_is_a_notebook(monkeypatch: object) -> None:
    """
    A process that a kernel has started knows that it is shown in a notebook.
    """
    assert hasattr(monkeypatch, "setenv")
    for name in ("JPY_PARENT_PID", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)  # type: ignore[attr-defined]
    assert not in_notebook()
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    assert in_notebook()
