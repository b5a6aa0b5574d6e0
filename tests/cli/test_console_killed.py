"""Everything around a program is killed at random; nothing it said is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from commands import Workplace
from waiting import until

PRINTS = """\
import ctypes, os, pathlib, subprocess, sys, time
libc = ctypes.CDLL(None)
state = pathlib.Path("number")
number = int(state.read_text()) if state.exists() else 0
print("here", flush=True)
while number < int(sys.argv[1]):
    for _ in range(20):
        number += 1
        print("python", number, flush=True)
        libc.dprintf(2, b"library %d\\n", ctypes.c_int(number))
        os.write(1, b"bar 1\\rbar %d\\n" % number)
        if number % 40 == 0:
            subprocess.run(["echo", f"child {number}"], check=True)
    pathlib.Path("next").write_text(str(number))
    os.replace("next", state)
    time.sleep(0.01)
"""


def attempts(place: Workplace) -> int:
    """
    How many attempts there are.
    """
    return len(list(place.run_dir.glob("attempts/*")))


def prints(place: Workplace, attempt: int) -> bool:
    """
    Whether an attempt's program has begun.
    """
    if attempts(place) < attempt:
        return False
    return b"here" in place.console(attempt)


def has_ended(place: Workplace) -> bool:
    """
    Whether the last sidecar has.
    """
    report = place.run_dir / ".sidecar/report.json"
    return not is_alive(json.loads(report.read_text())["pid"])


def victims(supervisor: int) -> dict[str, int]:
    """
    The processes of a run, by what they are.
    """
    found = {"supervisor": supervisor}
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    for child in children.read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        name = "sidecar" if b"colab_keras_bg.sidecar" in command else "trainer"
        found[name] = int(child)
    return found


def check(place: Workplace) -> int:
    """
    Of each attempt, all that its program had written is there, in order, and
    nothing twice; the number of lines.
    """
    count = 0
    for folder in place.attempts():
        lines = place.console(int(folder)).decode().splitlines()
        pattern = re.compile(r"(python|library|bar|child) (\d+)")
        found = [m.groups() for line in lines if (m := pattern.fullmatch(line))]
        if not found:
            continue
        first = int(found[0][1])
        expected = []
        number = first
        while len(expected) < len(found):
            expected += [(kind, str(number)) for kind in KINDS]
            if number % 40 == 0:
                expected.append(("child", str(number)))
            number += 1
        assert expected[: len(found)] == found, folder
        assert len(lines) - len(found) <= 2  # "here", and one that was cut.
        count += len(found)
    return count


KINDS = ("python", "library", "bar")


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random(kills: int, place: Workplace) -> None:
    """
    Trainer, sidecar and supervisor are killed with SIGKILL, one of them or
    all, at random moments: after each, the log has what was written.
    """
    draw = random.Random(int(os.environ.get("CHAOS_SEED", "11")))
    program = place.program(PRINTS)
    for _ in range(kills):
        before = attempts(place)
        process = place.start(
            "train", "--run_dir=run", program, "--", "1000000000"
        )
        until(partial(prints, place, before + 1), what="the program prints")
        time.sleep(draw.uniform(0.0, 0.5))  # The moment of death.
        there = victims(process.pid)
        chosen = draw.choice([*there, "all", "all"])
        for name, pid in there.items():
            if chosen in (name, "all"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if chosen == "sidecar":
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        # A sidecar may still store what it has found.
        until(partial(has_ended, place), what="the sidecar has ended")
        assert check(place) > 0
    (place.path / "number").write_text("999999900")
    place.train(program, "--", "1000000000")
    assert check(place) > 0


def is_alive(pid: int) -> bool:
    """
    Whether a process is there, and is not only waited for.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
