"""What is printed in a notebook's kernel, of the version that is installed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from colab_keras_bg.journal.console_reading import ConsoleReader
from colab_keras_bg.report.status import read_status
from colab_keras_bg.storage.local import LocalStorage

manager = pytest.importorskip("jupyter_client.manager")
pytest.importorskip("ipykernel")

PRINTING = """
import os, subprocess, sys
logging.warning("logged")
for number in range(3):
    print("python", number, flush=True)
    os.write(1, b"library %d\\n" % number)
    subprocess.run(["echo", f"child {number}"], check=True)
    print("error", number, file=sys.stderr, flush=True)
os.write(2, b"\\xff\\xfe not text \\xc3\\n")
"""
EXPECTED = ["WARNING:root:logged"] + [
    line
    for number in range(3)
    for line in (
        f"python {number}",
        f"library {number}",
        f"child {number}",
        f"error {number}",
    )
]


class Kernel:
    """A kernel that cells are given to."""

    def __init__(self) -> None:
        self._manager, self._client = manager.start_new_kernel(
            kernel_name="python3"
        )

    def run(self, code: str) -> str:
        """
        Runs a cell; returns what it shows.
        """
        asked = self._client.execute(textwrap.dedent(code))
        out = ""
        while True:
            message: dict[str, Any] = self._client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                out += content["text"]
            elif message["msg_type"] == "error":
                out += f"{content['ename']}: {content['evalue']}\n"
            elif content.get("execution_state") == "idle":
                return out

    def end(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A kernel for all tests of this module."""
    made = Kernel()
    yield made
    made.end()


def stored(directory: Path) -> list[str]:
    """
    What is kept of a run, lines that are not stored yet, too.
    """
    reader = ConsoleReader(LocalStorage(directory))
    lines = reader.all_lines(directory)
    return [line.text.decode("utf-8", "backslashreplace") for line in lines]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_all_is_kept_and_shown(kernel: Kernel, tmp_path: Path) -> None:
    """
    Python's own streams, descriptors and children: in order in the log, and
    in the cell what was there before; nothing breaks on what is no text.
    """
    kernel.run("import logging; logging.basicConfig()")
    shown = kernel.run(
        f"import colab_keras_bg as bg\n"
        f"run = bg.Run({str(tmp_path)!r}, resources='off', report='off')\n"
        "run.__enter__()\n"
        + PRINTING
        + "run.__exit__(None, None, None)\nprint('after', type(sys.stdout))\n"
    )
    found = stored(tmp_path)
    assert EXPECTED == found[: len(EXPECTED)]
    assert [r"\xff\xfe not text \xc3"] == found[len(EXPECTED) :]
    lines = shown.splitlines()
    assert [line for line in EXPECTED if line[:5] == "pytho"] == [
        line for line in lines if line.startswith("python")
    ]
    assert 3 == sum(line.startswith("error") for line in lines)
    assert "Tee" not in shown
    assert "after <class 'ipykernel.iostream.OutStream'>" in shown


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ends_with_the_cell(kernel: Kernel, tmp_path: Path) -> None:
    """
    A cell that raises leaves the next one as it was; the run that is gone on
    with keeps what is printed from then on.
    """
    shown = kernel.run(
        "import sys, colab_keras_bg as bg\n"
        f"run = bg.Run({str(tmp_path)!r}, resources='off', report='off')\n"
        "run.open()\n"
        "print('kept')\n"
        "raise ValueError('the cell ends')\n"
    )
    assert "ValueError: the cell ends" in shown
    assert "OutStream'>" in kernel.run("print(type(sys.stdout))")
    kernel.run("print('between')")
    kernel.run(
        "run.training_begins()\nprint('again')\n"
        "run.close(reason='over', exit_status=0)\n"
    )
    assert ["kept", "again"] == stored(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_training_that_was_left(kernel: Kernel, tmp_path: Path) -> None:
    """
    A cell that was interrupted while it trained is not told to be running for
    as long as the kernel lives; run again, it is.
    """
    begin = "run.training_begins()\nrun.at_step({}, epoch=0)\n"
    looks = (
        "for _ in range(200):\n"
        "    run._heartbeat.beat()\n"
        "    time.sleep(0.05)\n"
        f"    state = read_status({str(tmp_path)!r}).state\n"
        "    if state == {!r}: break\n"
        "print('it is', state)\n"
    )
    running, left = looks.format("running"), looks.format("interrupted")
    shown = kernel.run(
        "import time, colab_keras_bg as bg\n"
        "from colab_keras_bg.report.status import read_status\n"
        f"run = bg.Run({str(tmp_path)!r}, resources='off', report='off')\n"
        f"run.open()\n{begin.format(7)}{running}raise KeyboardInterrupt\n"
    )
    assert "it is running" in shown
    assert "it is interrupted" in kernel.run(left)
    found = read_status(tmp_path)
    assert "interrupted" == found.state
    assert "run the cell again" in found.reason
    assert "paused" in kernel.run("print(run._repr_html_())")
    watched = f"bg.watch({str(tmp_path)!r})"
    assert "interrupted: its cell has ended" in kernel.run(watched)
    assert "it is running" in kernel.run(begin.format(8) + running)
    # Steps in a loop of the user's own, cell by cell, are told as such.
    assert "it is interrupted" in kernel.run(left)
    step = "run.at_step(9 + _, epoch=0)"
    turn = running.replace("run._heartbeat", f"{step}; run._heartbeat", 1)
    assert "it is running" in kernel.run(turn)
    kernel.run("run.close(reason='over', exit_status=0)")
    assert "over" == read_status(tmp_path).reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_much_is_thinned(kernel: Kernel, tmp_path: Path) -> None:
    """
    Of much, a notebook is shown a few lines; all of it is kept.
    """
    shown = kernel.run(
        "import colab_keras_bg as bg\n"
        f"run = bg.Run({str(tmp_path)!r}, resources='off', report='off')\n"
        "run.open()\n"
        "for number in range(5000): print('line', number)\n"
        "run.close(reason='over', exit_status=0)\n"
    )
    assert [f"line {n}" for n in range(5000)] == stored(tmp_path)
    lines = shown.splitlines()
    assert 200 < len(lines) < 300
    assert ("line 0", "line 4999") == (lines[0], lines[-1])
    assert any(f"colab-keras-bg logs {tmp_path}" in line for line in lines)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_watched_from_a_cell(kernel: Kernel, tmp_path: Path) -> None:
    """
    A cell that is opened again shows what was missed, and follows; when it is
    interrupted, the run goes on.
    """
    kernel.run(
        "import colab_keras_bg as bg, _thread, threading\n"
        f"run = bg.Run({str(tmp_path)!r}, resources='off', report='off')\n"
        "run.open()\nprint('missed')\n"
    )
    until(lambda: ["missed"] == stored(tmp_path), what="it is stored")
    shown = kernel.run(
        "threading.Timer(1.0, _thread.interrupt_main).start()\n"
        f"bg.watch({str(tmp_path)!r})\n"
    )
    assert "missed\n" in shown
    assert "no longer watched; the run goes on" in shown
    assert "True" in kernel.run("print(run.is_open)")
    kernel.run("run.close(reason='over', exit_status=0)")
    assert "interrupted: over" in kernel.run(f"bg.watch({str(tmp_path)!r})")
