"""How far a read has come, for whoever waits."""

from __future__ import annotations

import io
import sys

import pytest

from colab_keras_bg.journal.progress import ProgressBar


class Console(io.StringIO):
    """Standard error, at a terminal or in a file."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def shown(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool, secs: float, steps: int
) -> str:
    """What is shown of work that takes so long, in so many steps."""
    console = Console(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", console)
    now = [100.0]
    bar = ProgressBar(clock=lambda: now[0])
    for step in range(steps + 1):
        bar("reading", step * 1_000_000, steps * 1_000_000)
        now[0] += secs / steps
    return console.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_of_what_is_quick(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes less than a second is not shown."""
    assert "" == shown(monkeypatch, terminal=terminal, secs=0.9, steps=10)


def test_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal one line grows, and ends when all is done."""
    text = shown(monkeypatch, terminal=True, secs=5, steps=10)
    lines = text.split("\r")
    assert lines[0] == ""
    assert lines[1] == (
        "colab-keras-bg: reading [######------------------------]  20% of 10 MB"
    )
    assert lines[-1].endswith(f"[{'#' * 30}] 100% of 10 MB\n")
    assert text.count("\n") == 1


def test_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file there is a line now and then, and the last."""
    text = shown(monkeypatch, terminal=False, secs=25, steps=100)
    shares = [line.split("]")[1].split()[0] for line in text.splitlines()]
    assert shares == ["4%", "44%", "84%", "100%"]


def test_a_console_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there to see it changes nothing."""
    monkeypatch.setattr(sys, "stderr", None)
    ProgressBar()("reading", 0, 0)


def test_nothing_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nothing, nothing is shown."""
    assert "" == shown(monkeypatch, terminal=True, secs=0.1, steps=1)
