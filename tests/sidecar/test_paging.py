"""The sidecar has the report written, and is not held up by it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from an_hour import a_run_of_an_hour
from waiting import until

from colab_keras_bg.sidecar import exchange
from colab_keras_bg.sidecar.duties import Duties, duties_of
from colab_keras_bg.sidecar.exchange import Orders
from colab_keras_bg.sidecar.paging import Paging

# Writes a line into a file for each time that it was started.
COUNTS = "open('count', 'a').write('x')"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, secs: float) -> None:
        self.now += secs
        threading.Event().wait(0.001)


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def paging(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Paging]:
    """Makes a duty that starts a program in the spool, every 600 s."""
    monkeypatch.chdir(tmp_path)
    exchange.write(tmp_path, Orders(launch="a"))

    def make(program: str) -> Paging:
        command = [sys.executable, "-S", "-c", program]
        return Paging(
            *(tmp_path,),
            every_secs=600.0,
            command=command,
            clock=clock,
            sleep=clock.sleep,
        )

    return make


def count(path: Path) -> int:
    """How often the program was started."""
    file = path / "count"
    return len(file.read_text()) if file.exists() else 0


def is_done(duty: Paging) -> Callable[[], bool]:
    """Whether the program that the duty has started was looked after."""

    def look() -> bool:
        duty.do()
        return duty._child is None

    return look


def test_when(
    paging: Callable[[str], Paging], clock: Clock, tmp_path: Path
) -> None:
    """
    The first is written after a minute, and then one each interval.
    """
    duty = paging(COUNTS)
    duty.do()
    clock.now += 59
    duty.do()
    assert duty._child is None
    clock.now += 1
    duty.do()
    until(is_done(duty), what="the report")
    assert count(tmp_path) == 1
    clock.now += 599
    duty.do()
    assert duty._child is None
    clock.now += 1
    duty.do()
    until(is_done(duty), what="the report")
    assert count(tmp_path) == 2


def test_one_at_a_time_and_not_for_ever(
    paging: Callable[[str], Paging], clock: Clock
) -> None:
    """
    Nobody waits for one that takes long; it is alone, at the lowest priority,
    and ended after two minutes.
    """
    duty = paging("import time; time.sleep(600)")
    clock.now += 60
    duty.do()
    child = duty._child
    assert child is not None
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == 19
    clock.now += 100
    duty.do()
    assert duty._child is child
    clock.now += 21
    with pytest.raises(OSError, match="took longer than 120 s"):
        duty.do()
    assert child.returncode == -9


def test_a_failure_is_told_once(
    paging: Callable[[str], Paging], clock: Clock
) -> None:
    """
    That it fails is told for a minute, in its own last words, and then not
    again until one has succeeded.
    """
    duty = paging("import sys; sys.exit('colab-keras-bg: no such thing.')")
    duties = Duties([duty], clock=clock)
    clock.now += 60

    def problem() -> str | None:
        duties._try(duty, duty.do)
        return duties.problem

    until(lambda: problem() is not None, what="the problem")
    expected = "report.html cannot be written: colab-keras-bg: no such thing."
    assert problem() == expected
    clock.now += 61
    assert problem() is None
    for _ in range(3):
        clock.now += 600
        assert problem() is None
        until(is_done(duty), what="the report")
        assert problem() is None


def test_end(
    paging: Callable[[str], Paging], clock: Clock, tmp_path: Path
) -> None:
    """
    At the end it is written once more, and waited for; not of a run that was
    over at once, unless there is one that would be out of date.
    """
    duty = paging(COUNTS)
    duty.finish()
    assert count(tmp_path) == 0
    (tmp_path / "report.html").touch()
    duty.finish()
    assert count(tmp_path) == 1
    (tmp_path / "report.html").unlink()
    clock.now += 30
    duty.finish()
    assert count(tmp_path) == 2
    assert duty._child is None


def test_end_is_not_waited_for_long(
    paging: Callable[[str], Paging], clock: Clock
) -> None:
    """
    The end waits for twenty seconds, and not at all once another sidecar
    waits for this one.
    """
    duty = paging("import time; time.sleep(600)")
    clock.now += 30
    begun = clock.now
    duty.finish()
    assert clock.now - begun == pytest.approx(20, abs=0.5)
    assert duty._child is None
    exchange.write(duty._spool, Orders(launch="b"))
    begun = clock.now
    duty.finish()
    assert clock.now == begun


def test_ours(tmp_path: Path) -> None:
    """
    The duty that a sidecar has writes the report of its spool.
    """
    path = a_run_of_an_hour(tmp_path).path
    orders = Orders(report_secs=600.0)
    exchange.write(path, orders)
    [duty] = duties_of(path, orders)._duties
    assert isinstance(duty, Paging)
    duty._start()
    until(is_done(duty), what="the report")
    assert "11,900" in (path / "report.html").read_text()
    assert duties_of(path, Orders())._duties == []
