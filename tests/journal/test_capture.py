"""What a process prints is kept, and shown as it was before."""

from __future__ import annotations

import errno
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from waiting import until

from colab_keras_bg.journal import capture as capture_module
from colab_keras_bg.journal.capture import Capture, unstoppable
from colab_keras_bg.journal.console_pump import ConsolePump
from colab_keras_bg.journal.console_reading import ConsoleReader
from colab_keras_bg.storage.local import LocalStorage

PRINTING = """
import ctypes, os, subprocess, sys
from pathlib import Path
from colab_keras_bg.journal.capture import Capture

print("before", flush=True)
capture = Capture(Path(sys.argv[1]), 1, thin=False)
capture.start()
libc = ctypes.CDLL(None)
for number in range(3):
    print("out", number)
    sys.stdout.flush()
    libc.dprintf(1, b"library %d\\n", ctypes.c_int(number))
    subprocess.run(["echo", f"child {number}"], check=True)
    print("err", number, file=sys.stderr)
print("terminal", sys.stdout.isatty(), sys.stderr.isatty())
print("no end", end="")
"""
ENDING = """
capture.stop()
print("\\nafter")
"""
DYING = """
import signal
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
IN_ORDER = [
    line
    for number in range(3)
    for line in (
        f"out {number}",
        f"library {number}",
        f"child {number}",
        f"err {number}",
    )
]


def kept(directory: Path) -> list[str]:
    """
    What is stored of the first attempt.
    """
    ConsolePump(directory).drain()
    reader = ConsoleReader(LocalStorage(directory))
    return [line.text.decode() for line in reader.lines()]


def run(
    directory: Path, *, end: str = ENDING, shell: str = "", **more: object
) -> subprocess.CompletedProcess[bytes]:
    """
    Runs the program that prints.
    """
    script = directory / "printing.py"
    script.write_text(textwrap.dedent(PRINTING + end))
    command = f"exec {sys.executable} {script} {directory} {shell}"
    return subprocess.run(
        ["/bin/sh", "-c", command], timeout=60, check=False, **more
    )  # type: ignore[call-overload,no-any-return]


def test_both_to_one_place(tmp_path: Path) -> None:
    """
    Python, a C library and a child, both streams: all of it is kept in the
    order in which it was written, and shown in that order.
    """
    ended = run(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    expected = [*IN_ORDER, "terminal False False", "no end"]
    assert expected == kept(tmp_path)
    assert ["before", *expected, "after"] == ended.stdout.decode().splitlines()


def test_each_to_its_place(tmp_path: Path) -> None:
    """
    Where errors are led elsewhere, they still are, and all is kept.
    """
    ended = run(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    errors = [line for line in IN_ORDER if line.startswith("err")]
    assert errors == ended.stderr.decode().splitlines()
    out = [line for line in IN_ORDER if line not in errors]
    shown = ended.stdout.decode().splitlines()
    assert shown == ["before", *out, "terminal False False", "no end", "after"]
    assert sorted(kept(tmp_path)) == sorted(
        [*IN_ORDER, "terminal False False", "no end"]
    )


def test_killed(tmp_path: Path) -> None:
    """
    What was written to the descriptors before SIGKILL is kept.
    """
    ended = run(
        tmp_path, end=DYING, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert ended.returncode == -signal.SIGKILL
    assert [*IN_ORDER, "terminal False False", "no end"] == kept(tmp_path)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(closed: str, tmp_path: Path) -> None:
    """
    With a descriptor closed, what is written to it is kept, and the other
    one leads where it did.
    """
    end = ENDING.replace('print("\\nafter")', "")
    code = end + "\nopen(sys.argv[1] + '/ended', 'w').close()\n"
    run(
        tmp_path,
        end=code,
        shell=closed,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert (tmp_path / "ended").exists()
    found = kept(tmp_path)
    assert [f"child {n}" for n in range(3)] == [
        line for line in found if line.startswith("child")
    ]
    assert [f"library {n}" for n in range(3)] == [
        line for line in found if line.startswith("library")
    ]


def test_terminal(tmp_path: Path) -> None:
    """
    At a terminal, what is seen is what was seen before, and Python is told
    that there is one.
    """
    master, slave = pty.openpty()
    script = tmp_path / "printing.py"
    script.write_text(textwrap.dedent(PRINTING + ENDING))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            ready, _, _ = select.select([master], [], [], 60)
            block = os.read(master, 65536) if ready else b""
        except OSError:
            break  # Nobody holds the other end any more.
        if not block:
            break
        seen += block
    assert 0 == process.wait(timeout=60)
    os.close(master)
    expected = ["before", *IN_ORDER, "terminal True True", "no end", "after"]
    assert expected == seen.decode().replace("\r\n", "\n").splitlines()


def test_reader_that_is_stuck(tmp_path: Path) -> None:
    """
    Whoever shows it and does not read holds nobody up.
    """
    script = tmp_path / "much.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from colab_keras_bg.journal.capture import Capture\n"
        "Capture(Path(sys.argv[1]), 1, thin=False).start()\n"
        "for number in range(40_000): print('line', number)\n"
        "sys.stdout.flush()\n"
        "Path(sys.argv[1], 'ended').touch()\n"
        "import os; os._exit(0)\n"
    )
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=write,
        stderr=write,
    )
    os.close(write)
    until((tmp_path / "ended").exists, what="it has printed all")
    assert 0 == process.wait(timeout=60)
    os.close(read)
    assert [f"line {n}" for n in range(40_000)] == kept(tmp_path)


def test_under_pytest(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    Under pytest, whose streams lead to files of its own, both see it.
    """
    capture = Capture(tmp_path, 1, thin=False)
    before = sys.stdout, sys.stderr
    capture.start()
    print("python")
    os.write(1, b"library\n")
    capture.stop()
    assert before == (sys.stdout, sys.stderr)
    print("not kept")
    assert ["library", "python"] == sorted(kept(tmp_path))
    out = capfd.readouterr().out
    assert ["library", "not kept", "python"] == sorted(out.splitlines())


def test_streams_that_are_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Where Python's streams are no files (a kernel's, or a test's), what is
    written to them is kept and shown there, once.
    """
    capture = Capture(tmp_path, 1, thin=False)
    before = sys.stdout, sys.stderr
    capture.start()
    print("python")
    print("error", file=sys.stderr)
    sys.stdout.writelines(["several\n", "lines\n"])
    capture.stop()
    assert before == (sys.stdout, sys.stderr)
    print("not kept", file=sys.stderr)
    assert not [s for s in before if "write" in vars(s)]
    assert ["python", "error", "several", "lines"] == kept(tmp_path)
    assert ("python\nseveral\nlines\n", "error\nnot kept\n") == (
        capsys.readouterr()
    )


KEEPING = """
import io, sys
from pathlib import Path
from colab_keras_bg.journal.capture import Capture

capture = Capture(Path(sys.argv[1]), 1, thin=False)
capture.start()
print("by Python's first stream", file=sys.__stdout__)
print("undecodable \\udcff")
theirs = io.StringIO()
sys.stderr = theirs
capture.stop()
assert sys.stderr is theirs
print("after")
"""


def test_streams_that_a_program_changes(tmp_path: Path) -> None:
    """
    What is written to Python's first streams is kept before the descriptors
    lead back, and bytes that are no text as they are; a stream that the
    program has put in place meanwhile stays.
    """
    ended = subprocess.run(
        [sys.executable, "-c", KEEPING, str(tmp_path)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    ConsolePump(tmp_path).drain()
    reader = ConsoleReader(LocalStorage(tmp_path))
    expected = {b"by Python's first stream", b"undecodable \xff"}
    assert expected == {line.text for line in reader.lines()}
    assert {*expected, b"after"} == set(ended.stdout.splitlines())


def test_thinned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Where it is thinned, all is kept, and the beginning and the end are shown.
    """
    capture = Capture(tmp_path, 1, thin=True, advice="logs RUN_DIR")
    capture.start()
    for number in range(1000):
        print("line", number)
    capture.stop()
    assert 1000 == len(kept(tmp_path))
    shown = capsys.readouterr().out.splitlines()
    assert "line 0" == shown[0]
    assert "line 999" == shown[-1]
    assert any("logs RUN_DIR" in line for line in shown)
    assert len(shown) < 300


def test_full_disk_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Printing to a full disk raises nothing; what is wrong otherwise does.
    """
    with open("/dev/full", "wb", buffering=0) as full:
        stream = unstoppable(full.fileno())
        stream.write("lost\n")
        stream.flush()
        stream.close()
    path = tmp_path / "file"
    path.touch()
    handle = os.open(path, os.O_RDONLY)
    stream = unstoppable(handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        stream.write("refused\n")
    os.close(handle)
    monkeypatch.undo()
    assert capture_module.unstoppable is unstoppable


@pytest.mark.parametrize(
    "dies",
    [
        "os._exit(0)",
        "os.abort()",
        "os.kill(os.getpid(), 9)",
        "ctypes.string_at(0)",
    ],
)
def test_last_words_are_seen(dies: str, tmp_path: Path) -> None:
    """
    What a program says right before it dies is seen where it led, too.
    """
    end = f"\nprint('the last words', flush=True)\n{dies}\n"
    read, write = os.pipe()
    run(tmp_path, end=end, stdout=write, stderr=subprocess.STDOUT)
    os.close(write)
    with os.fdopen(read) as pipe:
        seen = pipe.read()  # To the end: nobody holds it for long.
    assert "no endthe last words\n" in seen
    assert "no endthe last words" in kept(tmp_path)


def test_file_with_a_stream_s_number(tmp_path: Path) -> None:
    """
    A file of the program's that has got the number of a stream that was
    closed is the program's.
    """
    script = tmp_path / "rows.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "rows = open(sys.argv[1] + '/rows.csv', 'w')\n"
        "assert rows.fileno() == 1\n"
        "from colab_keras_bg.journal.capture import Capture\n"
        "capture = Capture(Path(sys.argv[1]), 1, thin=False)\n"
        "capture.start()\n"
        "rows.write('a row\\n')\n"
        "rows.flush()\n"
        "print('printed', file=sys.stderr)\n"
        "capture.stop()\n"
    )
    subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} {script} {tmp_path} >&-"],
        check=True,
        timeout=60,
        stderr=subprocess.DEVNULL,
    )
    assert "a row\n" == (tmp_path / "rows.csv").read_text()
    assert ["printed"] == kept(tmp_path)


@pytest.mark.parametrize("much", [False, True])
def test_full_disk_is_waited_for(
    much: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What there was no space for is written when there is; of more than can be
    kept, how much is lost is said in its place.
    """
    path = tmp_path / "out"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stream = unstoppable(handle)

    def full(self: object, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    stream.write("before\n")
    with monkeypatch.context() as patch:
        patch.setattr(capture_module._Unstoppable, "_put", full)
        for number in range(3):
            stream.write(f"line {number}\n")
        for _ in range(3 * much):
            stream.write("x" * 700_000 + "\n")
    for number in range(3, 5):
        stream.write(f"line {number}\n")
    stream.write("after\n")
    stream.flush()
    os.close(handle)
    lines = path.read_text().splitlines()
    expected = ["before", *(f"line {n}" for n in range(5)), "after"]
    assert expected == [n for n in lines if n.partition(" ")[0] in WORDS]
    assert much == any("bytes are lost: the disk was full" in x for x in lines)


WORDS = ("before", "line", "after")
