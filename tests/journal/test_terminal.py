"""Lines as a terminal would have shown them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_keras_bg.journal.terminal import TerminalLines


def shown(*blocks: bytes) -> bytes:
    """
    What becomes of blocks; each is taken by another process.
    """
    out, state = b"", None
    for block in blocks:
        lines = TerminalLines(state)
        out += lines.feed(block)
        state = json.loads(json.dumps(lines.state))
    return out + TerminalLines(state).finish()


BAR = b"".join(
    b"%3d/100 [%-10s]" % (i, b"=" * (i // 10)) + b"\b" * 20 + b"\r"
    for i in range(101)
)
TQDM = b"\n" + b"\n".join(
    b"inner %3d%%\x1b[A\router %3d%%" % (i, i // 2) for i in range(0, 101, 10)
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"one\ntwo", b"one\ntwo\n"),
        (b"dos\r\nlines\r\n", b"dos\nlines\n"),
        (b"10%\r55%\r100%\n", b"100%\n"),
        (b"a long line\rshort\n", b"shortg line\n"),
        (b"a long line\r\x1b[Kshort\n", b"short\n"),
        (b"a long line\x1b[2K\rshort\n", b"short\n"),
        (b"abc\b\bX\n", b"aXc\n"),
        (BAR + b"100/100 done" + b" " * 8 + b"\n", b"100/100 done        \n"),
        ("naïve\rNA\n".encode(), "NAïve\n".encode()),
        (b"\xff\xfe\x00\x07 binary\n", b"\xff\xfe\x00\x07 binary\n"),
        (b"\x1b[31mred\x1b[0m\n", b"\x1b[31mred\x1b[0m\n"),
        (b"\x1b[?25l\x1b]0;title\x07text\x1b[?25h\n", b"text\n"),
        (b"a\x1bPq#0;1;2\x1b\\b\x1b_Gf=1;AA\x1b\\c\n", b"abc\n"),
        (b"\x1bPnever ends\nnext\n", b"never ends\nnext\n"),
        (b"\x1b]0;never ends\nnext\n", b"]0;never ends\nnext\n"),
        (b"one\ntwo\n\x1b[2AONE\nTWO\n", b"one\ntwo\nONE\nTWO\n"),
        (b"a\nb\x1b[1;1Hc\n", b"a\nbc\n"),
        (b"col\x1b[9Gumn\n", b"col     umn\n"),
        (b"", b""),
        (b"\n\n", b"\n\n"),
        (b"\r\r\r", b""),
    ],
)
def test_last_state(written: bytes, expected: bytes) -> None:
    """
    A line that is rewritten comes once, in its last state; all else comes as
    it was written.
    """
    assert expected == shown(written)


def test_bars_below_each_other() -> None:
    """
    Two bars that a program draws by going up come once each, but for the line
    that had been given away before it first went up.
    """
    lines = shown(TQDM + b"\n\n").split(b"\n")
    assert 1 == sum(line.startswith(b"inner") for line in lines)
    assert 1 == sum(line.startswith(b"outer") for line in lines)
    assert b"outer  50%" in lines


@given(
    st.lists(
        st.sampled_from(
            b"text|\r|\n|\b|\x1b[A|\x1b[K|\x1b[32m|"
            b"\xc3\xa4|\xff|\x1b|\r\n|\x1b[2J|12".split(b"|")
        ),
        max_size=30,
    ),
    st.data(),
)
def test_cut_anywhere(pieces: list[bytes], data: st.DataObject) -> None:
    """
    It does not matter where what is written is cut, nor who goes on.
    """
    written = b"".join(pieces)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(written)))))
    ends = [*cuts, len(written)]
    blocks = [
        written[start:end] for start, end in zip([0, *cuts], ends, strict=True)
    ]
    assert shown(written) == shown(*blocks)


@given(st.binary(max_size=200).filter(lambda b: not set(b) & set(b"\b\r\x1b")))
def test_plain_bytes(written: bytes) -> None:
    """
    Bytes that move nothing come as they are, whatever they are.
    """
    end = b"" if written.endswith(b"\n") or not written else b"\n"
    assert written + end == shown(written)


@given(st.text("ab\r\b\n", max_size=40))
def test_as_a_terminal_has_it(text: str) -> None:
    """
    Moves within a line do what they do in a terminal.
    """
    screen: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        row: list[str] = []
        at = 0
        for character in line:
            if character == "\r":
                at = 0
            elif character == "\b":
                at = max(0, at - 1)
            else:
                row[at : at + 1] = [character]
                at += 1
        screen.append("".join(row))
    if not screen[-1]:
        screen.pop()
    expected = "".join(f"{row}\n" for row in screen)
    # A carriage return at the very end may belong to a newline to come.
    assert expected.encode() == shown(text.encode())


def test_open_line() -> None:
    """
    What stands on a line that is not finished can be looked at.
    """
    lines = TerminalLines()
    assert b"done\n" == lines.feed(b"done\n10%\r50%")
    assert b"50%" == lines.open
    assert b"" == lines.feed(b"\r60%")
    assert b"60%" == lines.open
    assert b"60%\n" == lines.finish()
    assert b"" == lines.open


@pytest.mark.parametrize("piece", [b"x", b"x\b\r", b"\x1b[32mx"])
def test_line_without_end(piece: bytes) -> None:
    """
    A line that never ends is cut, so that what is held stays small.
    """
    lines = TerminalLines()
    out = b""
    for _ in range(40):
        out += lines.feed(piece * 10_000)
    assert len(json.dumps(lines.state)) < 2_000_000
    if piece == b"x":
        assert 400_000 == len((out + lines.finish()).replace(b"\n", b""))
