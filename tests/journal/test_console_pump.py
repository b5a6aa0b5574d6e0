"""What was written to the descriptors is stored, once, whoever is killed."""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import pytest
from waiting import until

from colab_keras_bg.journal import console_pump
from colab_keras_bg.journal.console_log import ConsoleLog, parsed
from colab_keras_bg.journal.console_pump import ConsolePump
from colab_keras_bg.journal.console_reading import ConsoleReader
from colab_keras_bg.journal.raw_console import RawConsole, raw_consoles
from colab_keras_bg.storage.local import LocalStorage


def write(
    directory: Path, content: bytes, *, attempt: int = 1, apart: bool = False
) -> RawConsole:
    """
    Appends to what an attempt has written.
    """
    raw = RawConsole.of(directory, attempt, errors_apart=apart)
    handle = raw.open()
    os.write(handle, content)
    os.close(handle)
    return raw


def stored(directory: Path) -> list[tuple[int, bytes]]:
    """
    What is stored, by attempt.
    """
    reader = ConsoleReader(LocalStorage(directory))
    return [(line.attempt, line.text) for line in reader.lines()]


def test_stored_with_its_time(tmp_path: Path) -> None:
    """
    Each line gets the time at which it was there; an unfinished one waits.
    """
    now = [1_795_000_000.25]
    pump = ConsolePump(tmp_path, clock=lambda: now[0])
    write(tmp_path, b"one\ntw")
    pump.pump()
    now[0] += 1.5
    write(tmp_path, b"o\nthree")
    pump.pump()
    log = tmp_path / "attempts/0001/console.log"
    assert log.read_bytes() == (
        b"2026-11-18T11:06:40.250Z one\n2026-11-18T11:06:41.750Z two\n"
    )
    pump.drain()
    assert log.read_bytes().endswith(b"41.750Z three\n")
    assert (1_795_000_000.25, b"one") == parsed(
        log.read_bytes().split(b"\n")[0]
    )


def test_line_that_stands_long(tmp_path: Path) -> None:
    """
    What stands on a line for a minute is stored as it is by then.
    """
    now = [1000.0]
    pump = ConsolePump(tmp_path, clock=lambda: now[0])
    write(tmp_path, b"epoch 1: 10%")
    for secs in (0, 10, 70):
        now[0] += secs
        pump.pump()
    assert [(1, b"epoch 1: 10%")] == stored(tmp_path)
    now[0] += 100
    pump.pump()  # It still stands there: that is stored already.
    write(tmp_path, b"\repoch 1: 20%\n")
    pump.pump()
    assert [(1, b"epoch 1: 10%"), (1, b"epoch 1: 20%")] == stored(tmp_path)


def test_two_streams(tmp_path: Path) -> None:
    """
    Where errors go elsewhere, both are stored in one log.
    """
    pump = ConsolePump(tmp_path)
    for number in range(3):
        write(tmp_path, b"out %d\n" % number)
        pump.pump()
        write(tmp_path, b"err %d\n" % number, apart=True)
        pump.pump()
    expected = [b"out 0", b"err 0", b"out 1", b"err 1", b"out 2", b"err 2"]
    assert [(1, text) for text in expected] == stored(tmp_path)
    # Another process goes on with both.
    write(tmp_path, b"out 3\n")
    ConsolePump(tmp_path).drain()
    assert 7 == len(stored(tmp_path))


def test_earlier_attempt(tmp_path: Path) -> None:
    """
    What an attempt that was killed has written is stored by the next one's,
    and takes no space any more.
    """
    write(tmp_path, b"killed in the mid", attempt=1)
    write(tmp_path, b"going on\n", attempt=2)
    ConsolePump(tmp_path).pump()
    assert [(1, b"killed in the mid"), (2, b"going on")] == stored(tmp_path)
    assert [2] == [raw.attempt for raw in raw_consoles(tmp_path)]


def test_same_attempt_again(tmp_path: Path) -> None:
    """
    When a process comes back to its attempt, its log is gone on with.
    """
    write(tmp_path, b"first\n")
    ConsolePump(tmp_path).drop()
    assert [] == raw_consoles(tmp_path)
    write(tmp_path, b"second\n")
    ConsolePump(tmp_path).drop()
    assert [(1, b"first"), (1, b"second")] == stored(tmp_path)


def test_middle_is_dropped(tmp_path: Path) -> None:
    """
    Of more than an attempt may keep, the middle goes; where and how much is
    said in its place, and no byte is counted twice.
    """
    pump = ConsolePump(tmp_path, limit_bytes=1_000_000)
    for start in range(0, 100_000, 1000):
        write(
            tmp_path,
            b"".join(b"line %06d\n" % n for n in range(start, start + 1000)),
        )
        pump.pump()
    lines = [text for _, text in stored(tmp_path)]
    kept = sum(
        path.stat().st_size for path in (tmp_path / "attempts/0001").iterdir()
    )
    assert 800_000 < kept < 1_200_000
    numbers = [int(t[5:]) for t in lines if t.startswith(b"line ")]
    assert sorted(set(numbers)) == numbers
    assert (0, 99_999) == (numbers[0], numbers[-1])
    (gap,) = (
        (before, after)
        for before, after in itertools.pairwise(numbers)
        if after != before + 1
    )
    said = [text for text in lines if b"dropped here" in text]
    assert 1 == len(said)
    lost_bytes = (gap[1] - gap[0] - 1) * len(b"line 000000\n" + b" " * 25)
    assert b"%.1f MB" % (lost_bytes / 1e6) in said[0]
    at = lines.index(said[0])
    assert lines[at + 1] == b"line %06d" % gap[1]
    assert any(b"the first 0 MB end here" in text for text in lines[:at])


def test_disk_is_given_back(tmp_path: Path) -> None:
    """
    What is stored takes no space in the raw file any more, at the same
    offsets.
    """
    raw = write(tmp_path, b"x" * 79 + b"\n")
    probe = os.open(raw.path, os.O_WRONLY)
    for _ in range(100):
        write(tmp_path, (b"x" * 79 + b"\n") * 1000)
    size_bytes = raw.size_bytes()
    ConsolePump(tmp_path, limit_bytes=200_000).drain()
    os.close(probe)
    assert size_bytes == raw.size_bytes()
    if _can_punch(tmp_path):
        assert os.stat(raw.path).st_blocks * 512 < size_bytes // 2
    # Whoever shows it may be a little behind.
    last = raw.path.read_bytes()[-900_000:]
    assert b"\0" not in last


def _can_punch(directory: Path) -> bool:
    path = directory / "probe"
    path.write_bytes(b"x" * (1 << 22))
    RawConsole(path, 1).give_back(1 << 22)
    return os.stat(path).st_blocks * 512 < 1 << 22


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What cannot be stored now is stored when there is space, and once.
    """
    pump = ConsolePump(tmp_path)
    write(tmp_path, b"one\n")
    pump.pump()
    append = ConsoleLog.append
    times = iter([errno.ENOSPC, errno.ENOSPC])

    def full(self: ConsoleLog, lines: bytes, *, when: float) -> None:
        append(self, lines[: len(lines) // 2], when=when)
        if (number := next(times, None)) is not None:
            raise OSError(number, "full")
        append(self, lines[len(lines) // 2 :], when=when)

    monkeypatch.setattr(ConsoleLog, "append", full)
    write(tmp_path, b"two\nTWO\n")
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            pump.pump()
    monkeypatch.undo()
    pump.pump()
    assert [(1, b"one"), (1, b"two"), (1, b"TWO")] == stored(tmp_path)


def test_line_that_another_process_began(tmp_path: Path) -> None:
    """
    The next process knows what stands on the line, and in which colour.
    """
    write(tmp_path, b"a\nhal")
    ConsolePump(tmp_path).pump()
    write(tmp_path, b"f of it\n")
    ConsolePump(tmp_path).pump()
    assert [(1, b"a"), (1, b"half of it")] == stored(tmp_path)


def test_line_across_turns(tmp_path: Path) -> None:
    """
    An earlier attempt that has more to store than a turn takes is stored as
    a whole before its raw output goes, and no line of it is cut.
    """
    first = write(tmp_path, (b"x" * 59_999 + b"\n") * 80)
    write(tmp_path, b"second\n", attempt=2)
    pump = ConsolePump(tmp_path)
    while pump.pump():
        pass
    pump.pump()
    assert not first.path.exists()
    texts = [text for attempt, text in stored(tmp_path) if attempt == 1]
    assert [b"x" * 59_999] * 80 == texts


def test_child_that_still_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The output of an earlier attempt is not removed while it grows.
    """
    first = write(tmp_path, b"one\n")
    write(tmp_path, b"second\n", attempt=2)
    size_bytes = RawConsole.size_bytes
    more = iter([b"two\n"])

    def grows(raw: RawConsole) -> int:
        if raw.path == first.path and (text := next(more, None)):
            write(tmp_path, text)
        return size_bytes(raw)

    monkeypatch.setattr(RawConsole, "size_bytes", grows)
    pump = ConsolePump(tmp_path)
    pump.pump()
    pump.pump()
    assert not first.path.exists()
    assert [(1, b"one"), (1, b"two"), (2, b"second")] == stored(tmp_path)


def test_space_for_what_comes_next(tmp_path: Path) -> None:
    """
    There is some disk for what is printed once the disk is full.
    """
    raw = write(tmp_path, b"one\n")
    ConsolePump(tmp_path).pump()
    if _can_punch(tmp_path):
        assert os.stat(raw.path).st_blocks * 512 > 1_000_000


def test_notes_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A try that failed leaves nothing behind.
    """
    raw = write(tmp_path, b"one\n")

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(console_pump.os, "replace", full)
    with pytest.raises(OSError, match="full"):
        ConsolePump(tmp_path).pump()
    assert [raw.path] == list(raw.path.parent.iterdir())


def test_log_that_is_written_in_part(tmp_path: Path) -> None:
    """
    Of a line that could be written only in part, nothing stays.
    """
    log = ConsoleLog(tmp_path, 1)
    log.append(b"one\n", when=0.0)
    state, path = log.state, tmp_path / "attempts/0001/console.log"
    before, limits = path.read_bytes(), getrlimit(RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    setrlimit(RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="part"):
            log.append(b"two\n", when=0.0)
    finally:
        setrlimit(RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (before, state) == (path.read_bytes(), log.state)


def test_log_that_is_not_as_noted(tmp_path: Path) -> None:
    """
    What is beyond the notes goes; where there is less, it goes on from there;
    without notes, only a line that was cut goes.
    """
    log = ConsoleLog(tmp_path, 1)
    log.append(b"one\n", when=0.0)
    state, folder = log.state, tmp_path / "attempts/0001"
    path = folder / "console.log"
    one = path.read_bytes()
    beyond = folder / "console-000000000000123.log"
    beyond.write_bytes(b"beyond\n")
    path.write_bytes(one + b"tor")
    assert state == ConsoleLog(tmp_path, 1, state=state).state
    assert (one, False) == (path.read_bytes(), beyond.exists())
    path.write_bytes(one + b"tor")
    assert state == ConsoleLog(tmp_path, 1).state
    assert one == path.read_bytes()
    path.write_bytes(one[:-2])
    shorter = ConsoleLog(tmp_path, 1, state=state)
    shorter.append(b"two\n", when=0.0)
    assert path.read_bytes().startswith(one[:-2] + b"1970")
    assert len(path.read_bytes()) == shorter.state["size_bytes"]


class PowerCut(BaseException):
    """Not an Exception: no `except Exception` can survive a power cut."""


@pytest.mark.parametrize("dies_at", range(7))
def test_killed_between(
    dies_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whichever call is the last, the next process stores what is missing, and
    nothing twice.
    """
    calls = iter(range(100))

    def dying(name: str, real: object) -> object:
        def call(*args: object, **more: object) -> object:
            if next(calls) == dies_at:
                raise PowerCut(name)
            return real(*args, **more)  # type: ignore[operator]

        return call

    pump = ConsolePump(tmp_path)
    write(tmp_path, b"10%\r20%")
    monkeypatch.setattr(
        console_pump.os, "replace", dying("replace", os.replace)
    )
    monkeypatch.setattr(
        ConsoleLog, "append", dying("append", ConsoleLog.append)
    )
    died = False
    for content in (b"\r30%\nnext\n", b"more\n", b"last"):
        try:
            pump.pump()
            write(tmp_path, content)
            pump.pump()
        except PowerCut:
            died = True
            write(tmp_path, b"" if content in _raw(tmp_path) else content)
            pump = ConsolePump(tmp_path)
    monkeypatch.undo()
    pump.drain()
    assert died
    assert [b"30%", b"next", b"more", b"last"] == [
        text for _, text in stored(tmp_path)
    ]


def _raw(directory: Path) -> bytes:
    return raw_consoles(directory)[0].path.read_bytes()


PUMPING = """
import sys
from pathlib import Path
from colab_keras_bg.journal.console_pump import ConsolePump
pump = ConsolePump(Path(sys.argv[1]))
while True:
    pump.pump()
"""

WRITING = """
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None)
number = 0
while True:
    os.write(1, b"python %d\\n" % number)
    libc.dprintf(2, b"library %d\\n", ctypes.c_int(number))
    if number % 50 == 0:
        subprocess.run(["echo", f"child {number}"], check=True)
    else:
        os.write(1, b"child %d\\n" % number)
    os.write(1, b"bar\\rbar 1\\rbar %d\\n" % number)
    number += 1
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that do not outlive the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_killed_at_random(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    """
    Whoever writes and whoever stores are killed again and again: after each,
    what was written to the descriptors is in the log, in order, once.
    """
    draw = random.Random(int(os.environ.get("CHAOS_SEED", "7")))
    for attempt in range(1, 6):
        raw = RawConsole.of(tmp_path, attempt)
        handle = raw.open()
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITING], stdout=handle, stderr=handle
        )
        os.close(handle)
        processes.append(writer)
        for _ in range(2):
            pumper = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(PUMPING), str(tmp_path)]
            )
            processes.append(pumper)
            until(raw.size_bytes, what="it writes")
            time.sleep(draw.uniform(0.05, 0.3))  # The moment of death.
            pumper.send_signal(signal.SIGKILL)
            pumper.wait()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        # What was written, as it stands in the file that was not given back.
        newest = _numbers_of(_tail(raw))
        ConsolePump(tmp_path).drain()
        found = [text for number, text in stored(tmp_path) if number == attempt]
        assert newest
        _check(found, newest)
    assert [1, 2, 3, 4, 5] == sorted({number for number, _ in stored(tmp_path)})


def _check(found: list[bytes], newest: list[tuple[bytes, int]]) -> None:
    """All numbers are there, in the order in which they were written."""
    pattern = re.compile(rb"(python|library|child|bar) (\d+)")
    whole = [m.groups() for text in found if (m := pattern.fullmatch(text))]
    assert len(found) - len(whole) <= 1  # One was cut off by its death.
    order = [b"python", b"library", b"child", b"bar"]
    expected = [(order[n % 4], b"%d" % (n // 4)) for n in range(len(whole))]
    assert expected == whole
    assert newest[-1] <= (whole[-1][0], int(whole[-1][1])) or len(whole) > 3


def _tail(raw: RawConsole) -> bytes:
    return raw.path.read_bytes()[-2000:]


def _numbers_of(content: bytes) -> list[tuple[bytes, int]]:
    found = re.findall(rb"^(python|library|child) (\d+)$", content, re.M)
    return [(kind, int(number)) for kind, number in found]
