"""What is said to whoever watches, if anybody does."""

from __future__ import annotations

import io
import os
import sys

import pytest

from colab_keras_bg.journal.announce import printable, say


def test_say(capsys: pytest.CaptureFixture[str]) -> None:
    """A message is a line under our name, on standard error."""
    say("saving step 3 failed: no space. Training goes on.")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "colab-keras-bg: saving step 3 failed: no space. Training goes on.\n"
    )


def test_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Several lines are kept as they are."""
    say("skipped:\n  step 3\n  step 2")
    expected = "colab-keras-bg: skipped:\n  step 3\n  step 2\n"
    assert capsys.readouterr().err == expected


def gone() -> None:
    """No stream at all, as under `2>&-`."""
    return None


def closed() -> io.TextIOWrapper:
    """A stream that somebody has closed."""
    stream = io.TextIOWrapper(io.BytesIO())
    stream.close()
    return stream


def nobody_reads() -> io.TextIOWrapper:
    """A pipe whose reader has gone away."""
    read, write = os.pipe()
    os.close(read)
    raw = os.fdopen(write, "wb", buffering=0)
    return io.TextIOWrapper(raw, write_through=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [gone, closed, nobody_reads])
def test_nobody_hears(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A console that is gone, closed or broken stops nothing."""
    assert callable(stream)
    standard_error = stream()
    monkeypatch.setattr(sys, "stderr", standard_error)
    say("saved")
    say("saved again")
    monkeypatch.undo()
    if standard_error is not None and not standard_error.closed:
        standard_error.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("step 3 — gespült 水 🎉", "step 3 — gespült 水 🎉"),
        ("a\nb", "a\nb"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\r\t\x7f\x9b", "\\r\\t\\x7f\\x9b"),
        ("abc\u202egnp.exe\u2066", "abc\\u202egnp.exe\\u2066"),
        ("file\udcff", "file\\udcff"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """What a terminal would obey is shown instead; ends of lines stay."""
    assert printable(text) == shown
    assert printable(text).encode()


def test_say_commands_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Names and reasons read from files are made printable."""
    say("skipped: \x1b[2J")
    assert capsys.readouterr().err == "colab-keras-bg: skipped: \\x1b[2J\n"
