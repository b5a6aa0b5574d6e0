"""`logs`: one stream over all attempts."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from commands import Workplace
from waiting import until

from colab_keras_bg.cli import exit_status
from colab_keras_bg.errors import StorageUnavailableError, UsageError
from colab_keras_bg.journal.attempts import Attempt, Attempts
from colab_keras_bg.journal.console_log import ConsoleLog
from colab_keras_bg.journal.console_pump import ConsolePump
from colab_keras_bg.journal.console_reading import ConsoleLine
from colab_keras_bg.journal.raw_console import RawConsole
from colab_keras_bg.journal.terminal import TerminalLines
from colab_keras_bg.report import console as console_module
from colab_keras_bg.report.console import RunConsole, fitted, shown, watch
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.lock import DirectoryLock


def printed(
    run_dir: Path, attempt: int, *lines: bytes, when: float = 1e9
) -> None:
    """
    Makes a run that has printed something.
    """
    storage = LocalStorage(run_dir)
    Attempts(storage).write(
        Attempt(number=attempt, started=when, pid=1, host="here")
    )
    log = ConsoleLog(run_dir, attempt)
    log.append(b"".join(line + b"\n" for line in lines), when=when)


def test_all_attempts(place: Workplace) -> None:
    """
    What all attempts have printed comes in order, also of one that was killed
    with everything around it.
    """
    program = place.program(
        """\
        import os, pathlib, signal
        if pathlib.Path("second").exists():
            print("second")
        else:
            pathlib.Path("second").touch()
            print("first")
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        """
    )
    assert place.train(program).status == -signal.SIGKILL
    lines = place.run("logs", "run").out.decode().splitlines()
    assert ["first"] == lines[1:]
    assert place.train(program).status == exit_status.DONE
    lines = place.run("logs", "run").out.decode().splitlines()
    theirs = [line for line in lines if not line.startswith("colab-keras-bg:")]
    assert ["first", "second"] == theirs
    lines = place.run("logs", "--attempt=2", "run").out.decode().splitlines()
    assert "first" not in lines
    assert "second" in lines


def test_follow(place: Workplace) -> None:
    """
    --follow shows what comes, and ends when the run does.
    """
    program = place.program(
        """\
        import pathlib, time
        print("one")
        pathlib.Path("started").touch()
        while not pathlib.Path("go on").exists():
            time.sleep(0.01)
        print("two")
        """
    )
    training = place.start("train", "--run_dir=run", program)
    until((place.path / "started").exists, what="the program has started")
    following = place.start("logs", "--follow", "run")
    assert following.stdout is not None
    seen = b""
    while b"one\n" not in seen:
        seen += os.read(following.stdout.fileno(), 1000)
    (place.path / "go on").touch()
    ended = place.end(following)
    assert ended.status == exit_status.DONE
    assert b"two\n" in ended.out
    assert place.end(training).status == exit_status.DONE


def test_line_that_is_being_written(place: Workplace) -> None:
    """
    On a terminal, a progress bar is seen before its line has ended, in its
    present state, and once; a pipe gets lines only.
    """
    printed(place.run_dir, 1, b"one")
    lock = DirectoryLock.acquire(place.run_dir, holder="a trainer")
    raw = RawConsole.of(place.run_dir, 1)
    handle = raw.open()
    os.write(handle, b"10%")
    pump = ConsolePump(place.run_dir)
    pump.pump()
    master, slave = pty.openpty()
    process = place.start("logs", "-f", "run", stdout=slave)
    os.close(slave)
    seen = b""

    def until_seen(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(master, 1000)

    until_seen(b"one\r\n\r\x1b[K10%")
    os.write(handle, b"\r20%")
    until_seen(b"\r\x1b[K20%")
    os.write(handle, b"\r30%\ntwo\n")
    pump.pump()
    until_seen(b"two\r\n")
    os.close(handle)
    lock.release()
    with contextlib.suppress(OSError):
        while block := os.read(master, 1000):
            seen += block
    os.close(master)
    assert 0 == process.wait(timeout=60)
    assert b"one\n30%\ntwo\n" == TerminalLines().feed(seen)
    assert b"%" not in place.run("logs", "run").out.replace(b"30%", b"")


def test_interrupted_follower(place: Workplace) -> None:
    """
    Whoever follows and is interrupted leaves the run alone.
    """
    training = place.start_waiting()
    following = place.start("logs", "-f", "run")
    assert following.stdout is not None
    seen = b""
    while b"here\n" not in seen:
        seen += os.read(following.stdout.fileno(), 1000)
    following.send_signal(signal.SIGINT)
    ended = place.end(following)
    assert (exit_status.DONE, "") == (ended.status, ended.err)
    assert training.poll() is None


def test_since_and_times(place: Workplace) -> None:
    """
    --since leaves out what is older; --times shows when each line was there.
    """
    now = time.time()
    printed(place.run_dir, 1, b"old", when=now - 7200)
    printed(place.run_dir, 2, b"new", when=now - 60)
    out = place.run("logs", "run", "--since=1h", "--times").out.decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z new\n", out)
    long_ago = place.run("logs", "run", "--since=2020-01-01").out
    assert b"old\nnew\n" == long_ago
    assert b"" == place.run("logs", "run", "--since=1s").out
    soon = datetime.now() + timedelta(minutes=10)
    for when, seen in (
        (soon, b"old\nnew\n"),
        (soon - timedelta(hours=1), b"new\n"),
    ):
        assert seen == place.run("logs", "run", f"--since={when:%H:%M}").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "There is no run in "),
        (["run", "--attempt=7"], "There is no attempt 7 in "),
        (["run", "--since=yesterday"], "--since=yesterday cannot be meant"),
        (["run", "--attempt=0"], "--attempt=0 cannot be meant"),
    ],
)
def test_bad_usage(arguments: list[str], told: str, place: Workplace) -> None:
    """
    What cannot be meant ends with 64 and one line.
    """
    printed(place.run_dir, 1, b"text")
    ended = place.run("logs", *arguments)
    assert exit_status.USAGE == ended.status
    assert told in ended.err
    assert 1 == len(ended.err.splitlines())


HOSTILE = b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \xc2\x9b2J \x1b[2J \xff"


def test_very_bytes_to_a_pipe(place: Workplace) -> None:
    """
    A pipe gets the bytes that were printed.
    """
    printed(place.run_dir, 1, HOSTILE)
    assert HOSTILE + b"\n" == place.run("logs", "run").out


def test_nothing_that_a_terminal_obeys(place: Workplace) -> None:
    """
    A terminal gets colours, and no other command.
    """
    printed(place.run_dir, 1, HOSTILE)
    master, slave = pty.openpty()
    process = place.start("logs", "run", stdout=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            block = os.read(master, 1000)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(master)
    assert 0 == process.wait(timeout=60)
    assert b"\x1b[31mred\x1b[0m" in seen
    rest = seen.replace(b"\x1b[31m", b"").replace(b"\x1b[0m", b"")
    assert b"\x1b" not in rest
    assert b"\x07" not in rest
    assert "\x9b" not in rest.decode()
    assert rb"\x1b]0;title\x07" in rest


def test_without_colours() -> None:
    """
    Where there are no colours, none is left.
    """
    line = ConsoleLine(1, None, b"\x1b[1mbold\x1b[0m")
    assert "bold" == shown(line, colours=False)


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        (b"a\tb", "a\tb"),
        ("a\u202eb".encode(), "a\\u202eb"),
        (b"\x1b[8mhidden\x1b[0m", "hidden\x1b[0m\x1b[0m"),
        (b"\x1b[1;8mhidden", "hidden\x1b[0m"),
        (b"\x1b[38;5;8mgrey", "\x1b[38;5;8mgrey\x1b[0m"),
        (b"\x1b[38;5;999999999mred", "red\x1b[0m"),
    ],
)
def test_as_a_terminal_shows_it(printed: bytes, seen: str) -> None:
    """
    Tabs and colours stay; nothing is hidden, or turned around.
    """
    assert seen == shown(ConsoleLine(1, None, printed), colours=True)


def test_attempt_of_which_nothing_is_there(place: Workplace) -> None:
    """
    What is missing is said, rather than passed over.
    """
    printed(place.run_dir, 1, b"one")
    printed(place.run_dir, 2, b"two")
    (place.run_dir / "attempts/0002/console.log").unlink()
    ended = place.run("logs", "--attempt=2", "run")
    assert (0, b"") == (ended.status, ended.out)
    assert "nothing that attempt 2 has printed is there" in ended.err
    assert b"one\n" == place.run("logs", "run").out


@pytest.mark.parametrize(
    ("text", "width", "seen"),
    [
        ("short", 10, "short"),
        ("exactly", 7, "exactly"),
        ("longer", 3, "lon"),
        ("水水水", 5, "水水"),
        ("e\u0301e\u0301x", 2, "e\u0301e\u0301"),
        ("", 5, ""),
        ("x", 0, ""),
    ],
)
def test_fits_on_a_line(text: str, width: int, seen: str) -> None:
    """
    Wide characters take two cells, and accents none.
    """
    assert seen == fitted(text, width)


def test_reader_that_has_had_enough(place: Workplace) -> None:
    """
    `logs | head` is no failure.
    """
    printed(place.run_dir, 1, *(b"line %d" % n for n in range(200_000)))
    process = place.start("logs", "run", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"line 0\n" == process.stdout.readline()
    process.stdout.close()
    assert 0 == process.wait(timeout=60)


class Unsteady(RunConsole):
    """A run that cannot be read now and then."""

    failures: ClassVar[list[bool]] = []

    def lines(self) -> Iterator[ConsoleLine]:
        if self.failures and self.failures.pop(0):
            raise StorageUnavailableError("the bucket does not answer.")
        yield from super().lines()


def test_network_that_goes_and_comes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    A run that cannot be read for a while is followed when it can be again;
    that is said once.
    """
    printed(tmp_path, 1, b"one")
    lock = DirectoryLock.acquire(tmp_path, holder="a trainer")
    Unsteady.failures[:] = [False, True, True, False, True]
    rounds = itertools.count(1)

    def sleep(secs: float) -> None:
        if next(rounds) == 4:
            ConsoleLog(tmp_path, 1).append(b"two\n", when=1e9)
            lock.release()

    out: list[str] = []
    monkeypatch.setattr(console_module, "RunConsole", Unsteady)
    watch(tmp_path, write=out.append, sleep=sleep)
    assert ["one", "two"] == [line for line in out if " " not in line][-2:]
    assert "interrupted" in out[-1]
    said = capsys.readouterr().err
    assert 2 == said.count("the bucket does not answer")
    Unsteady.failures[:] = [True]
    with pytest.raises(StorageUnavailableError):
        watch(tmp_path, follow=False, write=out.append)


def test_thinned_in_a_notebook(tmp_path: Path) -> None:
    """
    Of much that comes while a notebook watches, a part is shown, with the end
    and where all of it is; before, all that was asked for.
    """
    printed(tmp_path, 1, *(b"old %d" % n for n in range(500)))
    lock = DirectoryLock.acquire(tmp_path, holder="a trainer")
    rounds = itertools.count(1)

    def sleep(secs: float) -> None:
        number = next(rounds)
        lines = b"".join(b"new %d.%d\n" % (number, n) for n in range(100))
        ConsoleLog(tmp_path, 1).append(lines, when=1e9)
        if number == 10:
            lock.release()

    out: list[str] = []
    watch(tmp_path, lines=300, thin=True, write=out.append, sleep=sleep)
    lines = "\n".join(out).split("\n")
    assert 300 == sum(line.startswith("old") for line in lines)
    assert 230 < sum(line.startswith("new") for line in lines) < 250
    assert "new 11.99" in lines
    assert any(f"colab-keras-bg logs {tmp_path}" in line for line in lines)


def test_lines_that_cannot_be_shown(tmp_path: Path) -> None:
    """
    A negative number of lines is refused.
    """
    printed(tmp_path, 1, b"one")
    with pytest.raises(UsageError, match="lines=-1"):
        watch(tmp_path, lines=-1)


def test_watch_a_run_that_has_ended(tmp_path: Path) -> None:
    """
    Watching shows the newest lines, and how the run has ended.
    """
    printed(tmp_path, 1, *(b"line %d" % n for n in range(10)))
    out: list[str] = []
    watch(tmp_path, lines=2, write=out.append)
    assert out == [
        "colab-keras-bg: the last 2 of 10 lines",
        "colab-keras-bg: attempts/0001",
        "line 8",
        "line 9",
        "colab-keras-bg: interrupted: killed",
    ]
