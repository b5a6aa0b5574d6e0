"""Signals reach the program, and no trainer outlives its supervisor."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from commands import Workplace
from waiting import until

from colab_keras_bg.cli import exit_status

SEES = """\
import pathlib, signal, sys, threading

def see(number, frame):
    print("saw", signal.Signals(number).name)
    pathlib.Path("seen").touch()
    if number in (signal.SIGTERM, signal.SIGINT):
        sys.exit(7)

for number in (SIGNALS):
    signal.signal(number, see)
pathlib.Path("started").touch()
while True:
    threading.Event().wait(0.1)
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    """The processes that a process has started, but for the sidecar."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in path.read_text().split()]
    return [child for child in found if not is_sidecar(child)]


def is_sidecar(pid: int) -> bool:
    """Whether a process is one."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"colab_keras_bg.sidecar" in command


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_program_handles_it(name: str, place: Workplace) -> None:
    """A program with a handler sees the signal, and ends as it likes."""
    source = SEES.replace("SIGNALS", f"signal.{name},")
    supervisor = place.start_waiting(source=source)
    supervisor.send_signal(signal.Signals[name])
    ended = place.end(supervisor)
    assert ended.out.decode() == f"saw {name}\n"
    assert ended.status == 7


def test_signals_that_end_nothing(place: Workplace) -> None:
    """The program sees signals of its own choice and goes on."""
    source = SEES.replace("SIGNALS", "signal.SIGUSR1, signal.SIGTERM,")
    supervisor = place.start_waiting(source=source)
    supervisor.send_signal(signal.SIGUSR1)
    until((place.path / "seen").exists, what="the program has seen it")
    assert supervisor.poll() is None
    supervisor.send_signal(signal.SIGTERM)
    assert place.end(supervisor).out == b"saw SIGUSR1\nsaw SIGTERM\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SIGTERM", "interrupted"),
        ("SIGINT", "interrupted"),
        ("SIGHUP", "killed (SIGHUP)"),
    ],
)
def test_program_without_handlers(
    name: str, reason: str, place: Workplace
) -> None:
    """A program that handles nothing is interrupted, and can go on."""
    supervisor = place.start_waiting()
    supervisor.send_signal(signal.Signals[name])
    ended = place.end(supervisor)
    assert ended.status == exit_status.RESUMABLE
    assert f"{reason}; nothing is committed" in ended.err
    attempt = place.record("attempts/0001/attempt.json")
    assert (attempt["exit_status"], attempt["reason"]) == (75, reason)


def test_cleanup_on_sigterm(place: Workplace) -> None:
    """SIGTERM ends a program as `sys.exit` does: its `finally` runs."""
    source = """\
        import pathlib, threading
        try:
            pathlib.Path("started").touch()
            threading.Event().wait()
        finally:
            print("cleaned up")
    """
    supervisor = place.start_waiting(source=source)
    supervisor.terminate()
    assert place.end(supervisor).out == b"cleaned up\n"


def test_nohup(place: Workplace) -> None:
    """What was to be ignored when we were started stays ignored."""
    nohup = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "os.execv(sys.executable,"
        " [sys.executable, '-m', 'colab_keras_bg', *sys.argv[1:]])"
    )
    program = place.program(
        """\
        import pathlib, signal, threading
        print(signal.getsignal(signal.SIGHUP).name)
        pathlib.Path("started").touch()
        while not pathlib.Path("go").exists():
            threading.Event().wait(0.01)
        """
    )
    script = place.program(nohup, name="nohup.py")
    supervisor = place.start("train", "--run_dir=run", program, python=script)
    until((place.path / "started").exists, what="the program has started")
    supervisor.send_signal(signal.SIGHUP)
    (place.path / "go").touch()
    ended = place.end(supervisor)
    assert (ended.status, ended.out) == (exit_status.DONE, b"SIG_IGN\n")


WAITS_ONCE = """\
import pathlib, signal, threading
if pathlib.Path("started").exists():
    raise SystemExit("here again")
signal.signal(signal.SIGTERM, HANDLER)
pathlib.Path("started").touch()
threading.Event().wait()
"""


@pytest.mark.parametrize("handler", ["signal.SIG_DFL", "signal.SIG_IGN"])
def test_supervisor_killed(handler: str, place: Workplace) -> None:
    """
    If the supervisor is killed the trainer is gone too, whatever it handles,
    and the same command can be run again at once.
    """
    source = WAITS_ONCE.replace("HANDLER", handler)
    supervisor = place.start_waiting(source=source)
    [trainer] = children(supervisor.pid)
    supervisor.kill()
    supervisor.wait()
    ended = place.train("waits.py")
    assert not is_alive(trainer)
    assert ended.out == b"here again\n"
    assert place.attempts() == ["0001", "0002"]
    assert place.record("attempts/0001/attempt.json")["ended"] is None


def test_worker_outlives_the_trainer(place: Workplace) -> None:
    """
    A worker that the program forked and that outlives it keeps neither the
    run nor the command waiting.
    """
    source = """\
        import os, pathlib, threading
        if os.fork() == 0:
            pathlib.Path("worker").write_text(str(os.getpid()))
            threading.Event().wait()
        while not pathlib.Path("worker").exists():
            threading.Event().wait(0.01)
        print("ended")
    """
    program = place.program(source)
    try:
        ended = place.train(program)
        assert (ended.status, ended.out) == (exit_status.DONE, b"ended\n")
        assert is_alive(int((place.path / "worker").read_text()))
        other = place.program("print('the next')", name="other.py")
        assert place.train(other).out == b"the next\n"
    finally:
        os.kill(int((place.path / "worker").read_text()), signal.SIGKILL)


def test_workers_of_a_killed_trainer(place: Workplace) -> None:
    """What a trainer forked is killed with it when it is killed."""
    source = """\
        import os, pathlib, signal, threading
        if os.fork() == 0:
            pathlib.Path("worker").write_text(str(os.getpid()))
            threading.Event().wait()
        while not pathlib.Path("worker").exists():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = place.train(place.program(source))
    assert ended.status == exit_status.RESUMABLE
    worker = int((place.path / "worker").read_text())
    until(lambda: not is_alive(worker), what="the worker is dead")


def test_forked_worker_ends_on_sigterm(place: Workplace) -> None:
    """
    A pool of workers ends its processes by SIGTERM. Ours has no handler that
    waits for the main thread, and the program's own handlers stay.
    """
    source = """\
        import os, pathlib, signal
        def forked():
            child = os.fork()
            if child == 0:
                handler = signal.getsignal(signal.SIGTERM)
                print(getattr(handler, "name", handler is own), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        def own(number, frame): pass
        forked()
        signal.signal(signal.SIGTERM, own)
        forked()
    """
    ended = place.train(place.program(source))
    assert ended.out == b"SIG_DFL\nTrue\n"
