"""What a program prints is shown, kept, and never waited for."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from commands import Workplace
from waiting import until

from colab_keras_bg.cli import exit_status

PRINTS = """\
import os, sys
for number in range(300):
    print("out", number)
    print("err", number, file=sys.stderr)
    os.system(f"echo child {number}") if number % 100 == 0 else None
"""


def expected_lines() -> list[str]:
    """What that program prints."""
    lines = []
    for number in range(300):
        lines += [f"out {number}", f"err {number}"]
        lines += [f"child {number}"] * (number % 100 == 0)
    return lines


def test_order(place: Workplace) -> None:
    """
    Both streams and those of child processes come out on standard output in
    the order in which they were written, and are in the attempt's console.
    """
    ended = place.train(place.program(PRINTS))
    assert ended.out.decode().splitlines() == expected_lines()
    assert place.console() == ended.out


@pytest.mark.parametrize("victim", ["trainer", "supervisor"])
def test_all_that_was_written_before_a_kill(
    victim: str, place: Workplace
) -> None:
    """Everything written before SIGKILL is in the console, to the byte."""
    who = {"trainer": "os.getpid()", "supervisor": "os.getppid()"}[victim]
    program = place.program(
        f"""\
        import os, signal
        print("x" * 100_000, flush=False)
        os.write(2, b"the last words")
        os.kill({who}, signal.SIGKILL)
        signal.pause()
        """
    )
    ended = place.train(program)
    # A line that long is kept in two.
    expected = b"x" * 100_000 + b"\nthe last words"
    kept = place.console().replace(b"x\nx", b"xx")
    assert kept == expected + b"\n"
    if victim == "trainer":
        assert (ended.status, ended.out) == (exit_status.RESUMABLE, expected)
    else:
        assert ended.status == -signal.SIGKILL


def test_any_bytes(place: Workplace) -> None:
    """Bytes that are no text pass through, and are kept but for moves."""
    everything = bytes(range(256)) * 2
    program = place.program("import os; os.write(1, bytes(range(256)) * 2)")
    ended = place.train(program)
    assert ended.out == everything
    assert bytes(range(0x1C, 0x100)) in place.console()


def test_progress_is_kept_in_its_last_state(place: Workplace) -> None:
    """A line that is rewritten is shown as it comes, and kept once."""
    program = place.program(
        """\
        for percent in range(101):
            print(f"\\r{percent}%", end="", flush=True)
        print()
        """
    )
    ended = place.train(program)
    assert ended.out == b"".join(b"\r%d%%" % n for n in range(101)) + b"\n"
    assert place.console() == b"100%\n"


def test_what_we_say_is_kept(place: Workplace) -> None:
    """What the command says of the attempt is kept with its console."""
    place.train(place.program("print('mine')"))
    first, mine, last = place.console_lines()
    assert (b"mine", True) == (mine, b"attempt 1" in first)
    assert last.startswith(b"colab-keras-bg: done, after")


def test_thinned_in_a_notebook(place: Workplace) -> None:
    """
    A command that a notebook has started shows a part of what is much, and
    where all of it is.
    """
    program = place.program("for number in range(5000): print(number)")
    ended = place.train(program, environment={"JPY_PARENT_PID": "1"})
    shown = ended.out.decode().splitlines()
    assert 200 < len(shown) < 300
    assert ("0", "4999") == (shown[0], shown[-1])
    assert (
        f"all of it: colab-keras-bg logs {place.run_dir}" in ended.out.decode()
    )
    assert place.console().split() == [b"%d" % n for n in range(5000)]
    ended = place.run(
        *("train", "--run_dir=other", "--show=all", program),
        environment={"JPY_PARENT_PID": "1"},
    )
    assert 5000 == len(ended.out.splitlines())


def test_console_off(place: Workplace) -> None:
    """With --console=off nothing that was printed is left."""
    ended = place.train("--console=off", place.program("print('secret')"))
    assert ended.out == b"secret\n"
    left = {name: content for name, content in place.files().items()}
    del left["program.py"]
    assert not [name for name, found in left.items() if b"secret" in found]


def test_shown_while_it_runs(place: Workplace) -> None:
    """What is printed shows at once, not when the program ends."""
    supervisor = place.start_waiting()
    assert supervisor.stdout is not None
    assert os.read(supervisor.stdout.fileno(), 100) == b"here\n"
    assert supervisor.poll() is None


def test_ours_and_theirs_apart(place: Workplace) -> None:
    """Our lines go to standard error, so that the output is the program's."""
    ended = place.train(place.program("print('mine')"))
    assert ended.out == b"mine\n"
    first, last = ended.err.splitlines()
    assert first == f"colab-keras-bg: run {place.run_dir}, attempt 1"
    assert last.startswith("colab-keras-bg: done, after ")


def test_each_attempt_has_its_own(place: Workplace) -> None:
    """An attempt's console holds what it printed, and no other's."""
    program = place.program(
        """\
        import pathlib, sys
        again = pathlib.Path("before").exists()
        pathlib.Path("before").touch()
        print("second" if again else "first")
        sys.exit(0 if again else 75)
        """
    )
    place.train(program)
    place.train(program)
    assert place.console(1) == b"first\n"
    assert place.console(2) == b"second\n"


def reader_gone(place: Workplace, program: str) -> subprocess.Popen[bytes]:
    """A run whose output nobody reads: the reading end is closed."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        return place.start("train", "--run_dir=run", program, stdout=pipe)


def output_closed(place: Workplace, program: str) -> subprocess.Popen[bytes]:
    """A run that was started without any of the three streams."""
    script = place.program(
        """\
        import os, sys
        for descriptor in range(3):
            os.close(descriptor)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
        """,
        name="closes.py",
    )
    arguments = ("-m", "colab_keras_bg", "train", "--run_dir=run", program)
    return place.start(*arguments, python=script)


def output_full(place: Workplace, program: str) -> subprocess.Popen[bytes]:
    """A run whose output goes to a full disk."""
    with open("/dev/full", "wb") as full:
        return place.start("train", "--run_dir=run", program, stdout=full)


@pytest.mark.parametrize("start", [reader_gone, output_closed, output_full])
def test_nobody_watches(start: object, place: Workplace) -> None:
    """
    A reader that goes away, a closed or a full output neither stops the
    program nor changes how it ends; its console is whole.
    """
    assert callable(start)
    ended = place.end(start(place, place.program(PRINTS)))
    assert (ended.status, ended.out) == (exit_status.DONE, b"")
    assert place.console().decode().splitlines() == expected_lines()
    assert "Traceback" not in ended.err
    assert place.record("DONE")["reason"] == "the program ended"


def test_slow_reader(place: Workplace) -> None:
    """A reader that does not read does not make the program wait."""
    program = place.program(
        """\
        import pathlib
        for _ in range(1000):
            print("x" * 1000)
        pathlib.Path("printed").touch()
        """
    )
    supervisor = place.start("train", "--run_dir=run", program)
    until((place.path / "printed").exists, what="the program has printed all")
    expected = (b"x" * 1000 + b"\n") * 1000
    assert place.console() == expected
    assert place.end(supervisor).out == expected


def test_status_read_halfway(place: Workplace) -> None:
    """Whoever reads but the first line of a status breaks nothing."""
    place.train(place.program("pass"))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        ended = place.end(place.start("status", "run", stdout=pipe))
    assert (ended.status, ended.err) == (exit_status.DONE, "")
