r"""What a terminal would show of what a program writes, line by line.

Invariant: a line that is rewritten (`\r`, `\b`, a cursor that goes up) comes
once, in its last state; of all other bytes none is lost, valid text or not.
Lines come in the order in which the program left them. The state between two
calls can be written down, and be gone on with by another process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["TerminalLines"]

# What makes a line other than its bytes: \b, \r, and what follows ESC, but for
# colours.
_MAY_MOVE = (b"\x08", b"\r", b"\x1b")
_MOVES = re.compile(rb"[\x08\r]|\x1b(?!\[[0-9;]*m)")
_LF, _CRLF = b"\n", b"\r\n"
# Keras' bar goes back by as many \b as it has printed, then by \r.
_BACK = re.compile(rb"\x08+\r")
_TOKEN = re.compile(
    "\x1b\\[([0-9;?]*)([@-~])"  # 1, 2: a control sequence
    "|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)"  # a window's title, a link
    "|\x1b[PX^_][^\x1b\n]*\x1b\\\\"  # device control, such as pictures
    "|\x1b[ -/]{0,4}[0-Z\\\\^-~]"  # other escapes
    "|([\r\n\b])"  # 3
    "|[^\r\n\b\x1b]+"
    "|\x1b"
)
# An escape sequence that may go on in the next block.
_OPEN_ESCAPE = re.compile(
    rb"\x1b(?:[ -/]{1,4}|\[[0-9;?]{0,30}|\][^\x07\x1b\n]{0,200}"
    rb"|[PX^_][^\x1b\n]{0,4000}\x1b?)?\Z"
)
_ESCAPE_BYTES = 4096  # The longest that is waited for.
_MOST_CELLS = 1 << 16  # What stands longer on a line is cut there.
_MOST_ROWS = 64  # A program that draws higher than that is not followed.
_QUIET_LINES = 200  # Without going up: it is done with that.

_Row = list[str]


class TerminalLines:
    """Takes bytes as they were written, gives lines as they were shown."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        """Begins with an empty line, or goes on.

        Args:
            state: What `state` was in another process.
        """
        found = state or {}
        # A cell is a character, behind the colours that are set before it.
        self._rows: list[_Row] = [list(r) for r in found.get("rows", [[]])]
        self._row = int(found.get("row", 0))
        self._column = int(found.get("column", 0))
        self._height = int(found.get("height", 0))
        self._quiet = int(found.get("quiet", 0))
        self._held: bytes = str(found.get("held", "")).encode("latin-1")
        self._colour = str(found.get("colour", ""))

    @property
    def state(self) -> dict[str, Any]:
        """What another process needs to go on from here, as JSON values."""
        return {
            "rows": self._rows,
            "row": self._row,
            "column": self._column,
            "height": self._height,
            "quiet": self._quiet,
            "held": self._held.decode("latin-1"),
            "colour": self._colour,
        }

    @property
    def open(self) -> bytes:
        """The lines that are not finished, as they are shown now."""
        rows = [_encoded(row) for row in self._rows]
        if rows and not rows[-1]:
            rows.pop()
        held = self._held.rstrip(b"\r")
        if held and rows:
            rows[-1] += held
        elif held:
            rows = [held]
        return b"\n".join(rows)

    def feed(self, block: bytes) -> bytes:
        r"""The lines that are finished by what was written now.

        Args:
            block: What was written, cut anywhere.

        Returns:
            Whole lines, each with its `\n`.
        """
        block = self._held + block
        self._held = b""
        if block.endswith(b"\r"):  # \n may follow.
            block, self._held = block[:-1], b"\r"
        block = block.replace(_CRLF, _LF)
        if self._is_plain and not (_may_move(block) and _MOVES.search(block)):
            return self._plain(block)
        lines = block.split(_LF)
        out = [self._line(line + _LF) for line in lines[:-1]]
        out.append(self._line(lines[-1]))
        return b"".join(out)

    def finish(self) -> bytes:
        """The lines that nobody will finish any more."""
        text = self._held.rstrip(b"\r")
        self._held = b""
        self._write(text.decode("utf-8", "surrogateescape"))
        rows, self._rows = self._rows, [[]]
        self._row = self._column = self._height = 0
        if not rows[-1]:
            rows.pop()
        return b"".join(_encoded(row) + _LF for row in rows)

    @property
    def _is_plain(self) -> bool:
        """Whether nothing is there but a line that grows."""
        return (
            self._height == 0
            and len(self._rows) == 1
            and self._column == len(self._rows[0])
            and not self._colour
        )

    def _plain(self, block: bytes) -> bytes:
        """Lines that are nothing but their bytes: most of what is written."""
        end = block.rfind(_LF) + 1
        done, rest = block[:end], block[end:]
        if len(rest) > _MOST_CELLS:
            done, rest = block + _LF, b""
        if done:
            done = _encoded(self._rows[0]) + done
            self._rows, self._column = [[]], 0
        self._open(rest)
        return done + self._cut()

    def _line(self, line: bytes) -> bytes:
        """A line, or what there is of the last one."""
        line = _last_drawn(line)
        out = []
        for start in range(0, len(line) - _MOST_CELLS, _MOST_CELLS):
            self._open(line[start : start + _MOST_CELLS], is_cut=False)
            out.append(self._scrolled() + self._cut())
        self._open(line[-((len(line) - 1) % _MOST_CELLS + 1) :])
        return b"".join(out) + self._scrolled() + self._cut()

    def _open(self, text: bytes, *, is_cut: bool = True) -> None:
        """Writes; what may go on in the next block waits for it."""
        held = _open_end(text) if is_cut else b""
        if held:
            text = text[: -len(held)]
            self._held = held + self._held
        self._write(text.decode("utf-8", "surrogateescape"))

    def _write(self, text: str) -> None:
        for token in _TOKEN.finditer(text):
            sequence, final, move = token.groups()
            if move == "\n":
                self._down()
            elif move == "\r":
                self._column = 0
            elif move == "\b":
                self._column = max(0, self._column - 1)
            elif final:
                self._obey(final, sequence, token[0])
            elif token[0].startswith("\x1b"):
                continue  # A title, a font: nothing of the line.
            else:
                self._put(token[0])

    def _put(self, text: str) -> None:
        """Writes characters over what is there, and beyond."""
        if not text:
            return
        row = self._rows[self._row]
        cells = list(text)
        if self._colour:
            cells[0] = self._colour + cells[0]
            self._colour = ""
        if self._column > len(row):
            row.extend(" " * (self._column - len(row)))
        end = self._column + len(cells)
        row[self._column : end] = cells
        self._column = end

    def _down(self) -> None:
        self._flush_colour()
        self._row += 1
        self._column = 0
        self._quiet += 1
        if self._row == len(self._rows):
            self._rows.append([])

    def _flush_colour(self) -> None:
        """A colour that is set at the end of a line stays there."""
        if self._colour:
            row = self._rows[self._row]
            if row:
                row[-1] += self._colour
            else:
                row.append(self._colour)
            self._colour = ""

    def _obey(self, final: str, sequence: str, whole: str) -> None:
        if final == "m":
            self._colour += whole
            return
        first = sequence.partition(";")[0]
        count = min(int(first), 1 << 12) if first.isdecimal() else None
        steps = max(1, count or 1)
        row = self._rows[self._row]
        if final in "AF":
            self._up(steps)
        elif final in "BE":
            self._row = min(self._row + steps, len(self._rows) - 1)
        elif final == "C":
            self._column += steps
        elif final == "D":
            self._column = max(0, self._column - steps)
        elif final == "G":
            self._column = steps - 1
        elif final == "K":
            self._erase(row, count or 0)
        elif final == "J":
            self._erase(row, count or 0)
            del self._rows[self._row + 1 :]
        if final in "EF":
            self._column = 0

    def _up(self, steps: int) -> None:
        steps = min(steps, _MOST_ROWS)
        missing = max(0, steps - self._row)
        # They have been given away already; they are drawn anew.
        self._rows[:0] = [[] for _ in range(missing)]
        self._row += missing - steps
        self._height = max(self._height, steps)
        self._quiet = 0

    def _erase(self, row: _Row, what: int) -> None:
        if what == 0:
            del row[self._column :]
        elif what == 1:
            row[: self._column] = " " * min(self._column, len(row))
        elif what == 2:
            row.clear()

    def _scrolled(self) -> bytes:
        """Rows that are too far up to be drawn again."""
        if self._quiet > _QUIET_LINES:
            self._height = 0
        done = self._row - self._height
        if done <= 0:
            return b""
        rows, self._rows = self._rows[:done], self._rows[done:]
        self._row -= done
        return b"".join(_encoded(row) + _LF for row in rows)

    def _cut(self) -> bytes:
        """What has become too long to be waited for."""
        if sum(map(len, self._rows)) <= _MOST_CELLS:
            return b""
        held, self._held = self._held, b""
        text = self.finish()
        self._held = held
        return text


def _last_drawn(line: bytes) -> bytes:
    """A line without those of its states that nothing is left of.

    Of a bar that was drawn a thousand times, each drawing covers the one
    before.
    """
    pieces = _BACK.sub(b"\r", line).split(b"\r")
    kept, covered = [pieces[-1]], 0
    for index in range(len(pieces) - 1, 0, -1):
        if _is_text(pieces[index]):
            covered = max(covered, len(pieces[index].rstrip(_LF)))
        before = pieces[index - 1]
        # The first goes on where the line stood before this block.
        if index == 1 or not _is_text(before) or len(before) > covered:
            kept.append(before)
    return b"\r".join(reversed(kept))


def _is_text(piece: bytes) -> bool:
    return piece.isascii() and not _may_move(piece)


def _may_move(text: bytes) -> bool:
    """Faster than a regular expression: a byte is looked for at a time."""
    return any(byte in text for byte in _MAY_MOVE)


def _encoded(row: Iterable[str]) -> bytes:
    return "".join(row).encode("utf-8", "surrogateescape")


def _open_end(text: bytes) -> bytes:
    """What may be the beginning of a character, or of a sequence."""
    escape = _OPEN_ESCAPE.search(text[-_ESCAPE_BYTES:])
    if escape:
        return escape[0]
    for size in range(1, min(4, len(text) + 1)):
        byte = text[-size]
        if byte >= 0xC0:  # The first of several.
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return text[-size:] if size < needed else b""
        if byte < 0x80:
            return b""
    return b""
