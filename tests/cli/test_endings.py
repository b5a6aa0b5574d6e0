"""How a program ends is how the command ends, and what it leaves on record."""

from __future__ import annotations

import signal

import pytest
from commands import Workplace

from colab_keras_bg.cli import exit_status

# What a program does last; the status and the reason that come of it.
ENDINGS = [
    ("pass", 0, "the program ended"),
    ("os._exit(0)", 0, "the program ended"),
    ("sys.exit(5)", 5, "the program failed (exit status 5)"),
    ("sys.exit(-1)", 255, "the program failed (exit status 255)"),
    ("sys.exit('sorry')", 1, "the program failed (exit status 1)"),
    ("raise ValueError('no')", 1, "the program failed (exit status 1)"),
    ("raise BaseException('cut')", 1, "the program failed (exit status 1)"),
    ("sys.exit(75)", 75, "interrupted"),
    ("raise KeyboardInterrupt", 75, "interrupted"),
    ("die(signal.SIGKILL)", 75, "killed (SIGKILL)"),
    ("die(signal.SIGSEGV)", 1, "the program crashed (SIGSEGV)"),
]

BEFORE = """\
import os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
die = lambda number: os.kill(os.getpid(), number)
"""


@pytest.mark.parametrize(
    ("last", "status", "reason"), ENDINGS, ids=[e[0] for e in ENDINGS]
)
def test_exit_status(
    last: str, status: int, reason: str, place: Workplace
) -> None:
    """
    The exit status is the program's own; 75 means that the run can go on, and
    says how; only a program that ended well is done.
    """
    ended = place.train(place.program(BEFORE + last))
    assert ended.status == status, ended.err
    attempt = place.record("attempts/0001/attempt.json")
    assert (attempt["exit_status"], attempt["reason"]) == (status, reason)
    assert attempt["ended"] >= attempt["started"]
    assert (place.run_dir / "DONE").exists() == (status == 0)
    last_line = ended.err.splitlines()[-1]
    if status:
        assert f"{reason}; nothing is committed yet" in last_line
    else:
        assert "colab-keras-bg: done, after " in last_line
    again = "run the same command again" in last_line
    assert again == (status == exit_status.RESUMABLE)


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        (signal.SIGKILL, 75, "killed (SIGKILL)"),
        (signal.SIGTERM, 75, "killed (SIGTERM)"),
        (signal.SIGHUP, 75, "killed (SIGHUP)"),
        (signal.SIGRTMIN + 1, 75, f"killed (signal {signal.SIGRTMIN + 1})"),
        (signal.SIGABRT, 1, "the program crashed (SIGABRT)"),
        (signal.SIGBUS, 1, "the program crashed (SIGBUS)"),
        (signal.SIGFPE, 1, "the program crashed (SIGFPE)"),
        (signal.SIGILL, 1, "the program crashed (SIGILL)"),
    ],
)
def test_killed_or_crashed(number: int, status: int, reason: str) -> None:
    """
    A signal that a broken program gives itself is a failure; any other comes
    from outside, and the run can go on.
    """
    assert exit_status.of_child(-number) == (status, reason)


def test_traceback(place: Workplace) -> None:
    """
    An uncaught exception leaves the traceback that Python itself prints, and
    none of our own lines in it.
    """
    program = place.program(
        """\
        def inner():
            raise ValueError("the loss is not a number")

        class Cut(BaseException):
            pass

        try:
            inner()
        except ValueError as error:
            raise Cut("no more") from error
        """
    )
    expected = place.run(python=program).err
    assert expected.startswith("Traceback")
    assert place.train(program).out.decode() == expected
    assert place.console().decode() == expected


def test_syntax_error(place: Workplace) -> None:
    """So does a program that cannot be compiled."""
    program = place.program("print('never')\ndef f(:\n")
    expected = place.run(python=program).err
    assert "SyntaxError" in expected
    assert place.train(program).out.decode() == expected


def test_traceback_of_a_function(place: Workplace) -> None:
    """The traceback of a called function begins in its module."""
    place.program("def main():\n    1 / 0\n", name="job.py")
    printed = place.train("job:main").out.decode().splitlines()
    assert printed[0] == "Traceback (most recent call last):"
    assert printed[1] == f'  File "{place.path}/job.py", line 2, in main'
    assert printed[-1] == "ZeroDivisionError: division by zero"


def test_text_of_sys_exit(place: Workplace) -> None:
    """`sys.exit(text)` prints the text, as Python does."""
    program = place.program("import sys; sys.exit('no such data set')")
    assert place.train(program).out == b"no such data set\n"


def test_hook_of_a_program(place: Workplace) -> None:
    """A program's own `sys.excepthook` is called; if it fails, both show."""
    program = place.program(
        """\
        import sys
        def hook(kind, error, trace):
            print("hooked", kind.__name__, error, trace.tb_lineno)
            raise LookupError("of the hook")
        sys.excepthook = hook
        raise ValueError("of the program")
        """
    )
    printed = place.train(program).out.decode()
    assert printed.startswith("hooked ValueError of the program 6\n")
    assert "LookupError: of the hook" in printed
    assert "ValueError: of the program" in printed


def test_another_run_is_held(place: Workplace) -> None:
    """A program that finds its own second run held ends with status 3."""
    holder = place.start_waiting()
    program = place.program(
        "import colab_keras_bg as bg\nbg.Run('run').open()\n"
    )
    ended = place.run("train", "--run_dir=other", program)
    assert ended.status == exit_status.HELD
    assert b"held by another live attempt" in ended.out
    assert b"Traceback" not in ended.out
    assert holder.poll() is None
