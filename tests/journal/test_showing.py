"""What is printed is shown to whoever watches, or a part of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from colab_keras_bg.journal import shower as shower_module
from colab_keras_bg.journal import showing
from colab_keras_bg.journal.raw_console import RawConsole
from colab_keras_bg.journal.showing import (
    Shower,
    Shown,
    Thinned,
    in_notebook,
    written_to,
)


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


def test_bar_that_stands_still() -> None:
    """
    A bar that has not moved is not shown once more.
    """
    screen = Screen()
    show = thinned(screen)
    for second in range(0, 100, 5):
        screen.now = second
        show(b"" if second else b"50%")
    assert ["50%"] == screen.lines


class FullPipe:
    """A pipe that nobody has read for long; it does not block who writes."""

    def __init__(self, *, blocking: bool = False) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        self.filling = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.filling += os.write(self.writing, b"." * 4096)
        os.set_blocking(self.writing, blocking)

    def rest(self, size_bytes: int) -> bytes:
        """What was written after it was full; waits for so much."""
        found = b""
        while len(found) < self.filling + size_bytes:
            if not select.select([self.reading], [], [], 20)[0]:
                raise TimeoutError(f"only {len(found)} bytes came")
            found += os.read(self.reading, 1 << 16)
        return found[self.filling :]

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


def test_reader_that_takes_his_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What a pipe does not take at once is written later, as a whole.
    """
    pipe, waits = FullPipe(), threading.Event()
    waiting = select.select

    def waited(*given: Any) -> Any:
        waits.set()
        return waiting(*given)

    monkeypatch.setattr(showing.select, "select", waited)
    write = written_to(pipe.writing)
    writer = threading.Thread(target=write, args=(b"x" * 200_000,), daemon=True)
    writer.start()
    assert waits.wait(30)
    assert b"x" * 200_000 == pipe.rest(200_000)
    writer.join(30)
    assert not writer.is_alive()
    pipe.close()


def test_process_and_a_reader_that_takes_his_time(tmp_path: Path) -> None:
    """
    The same of a process that shows.
    """
    path, pipe = tmp_path / "file", FullPipe()
    path.write_bytes(b"x" * 200_000)
    shower = Shower(path, pipe.writing, start=0)
    time.sleep(0.3)
    assert b"x" * 200_000 == pipe.rest(200_000)
    shower.stop()
    pipe.close()


def test_reader_that_never_comes(tmp_path: Path) -> None:
    """
    Whoever does not take what is shown is waited for, but not for ever.
    """
    path, pipe = tmp_path / "file", FullPipe(blocking=True)
    path.write_bytes(b"more")
    shower = Shower(path, pipe.writing, start=0)
    time.sleep(0.3)
    shower.stop(patience_secs=0.1)
    assert shower._process.poll() is not None
    shown = Shown(path, written_to(pipe.writing))
    shown.start()
    time.sleep(0.3)
    stopping = threading.Thread(
        target=shown.stop, kwargs={"patience_secs": 0.1}, daemon=True
    )
    stopping.start()
    stopping.join(30)
    assert not stopping.is_alive()
    pipe.rest(4)
    pipe.close()


def test_fork_ends_nobody_s_showing(tmp_path: Path) -> None:
    """
    A fork that cleans up leaves it to its parent.
    """
    path, out = tmp_path / "file", tmp_path / "out"
    path.touch()
    with out.open("wb") as shown:
        shower = Shower(path, shown.fileno(), start=0)
        child = os.fork()
        if child == 0:
            shower.stop(patience_secs=0.1)
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.3)
        assert shower._process.poll() is None
        path.write_bytes(b"later")
        shower.stop()
    assert b"later" == out.read_bytes()


@pytest.mark.parametrize("key", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_keys_are_for_others(key: signal.Signals, tmp_path: Path) -> None:
    """
    A key that interrupts the program, or a terminal that is closed, does not
    end the showing of what the program says to that.
    """
    path, out = tmp_path / "file", tmp_path / "out"
    path.write_bytes(b"first")
    with out.open("wb") as shown:
        shower = Shower(path, shown.fileno(), start=0)
        until(out.read_bytes, what="it is at work")
        shower._process.send_signal(key)
        time.sleep(0.1)
        path.write_bytes(b"first, then this")
        shower.stop()
    assert b"first, then this" == out.read_bytes()


def test_last_words_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What is written right before the end is told is shown, too.
    """
    path, out = tmp_path / "file", tmp_path / "out"
    path.touch()

    def told() -> bool:
        path.write_bytes(b"last words")
        return True

    monkeypatch.setattr(shower_module, "_is_told", told)
    monkeypatch.setattr(shower_module.signal, "signal", lambda *given: None)
    monkeypatch.setattr(shower_module.os, "set_blocking", lambda *given: None)
    with out.open("wb") as shown:
        arguments = [str(path), "0", str(shown.fileno()), str(os.getppid())]
        monkeypatch.setattr(sys, "argv", ["shower.py", *arguments])
        shower_module.main()
    assert b"last words" == out.read_bytes()


FORKING = """
import os, signal, sys, time
from pathlib import Path
from colab_keras_bg.journal.showing import Shower
out = os.dup(1)
shower = Shower(Path(sys.argv[1]), out, start=0)
if os.fork() == 0:
    os.close(out)
    os.close(1)  # The pipe to whoever shows stays open here.
    time.sleep(60)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_though_a_worker_lives(tmp_path: Path) -> None:
    """
    Workers that were forked outlive who is killed; the showing does not.
    """
    path = tmp_path / "file"
    path.write_bytes(b"all of it")
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING, str(path)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        # To the end: whoever shows has let go of it.
        out, _ = process.communicate(timeout=20)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert b"all of it" == out


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


def test_where_it_is_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that a kernel has started knows that it is shown in a notebook.
    """
    for name in ("JPY_PARENT_PID", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    assert not in_notebook()
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    assert in_notebook()
