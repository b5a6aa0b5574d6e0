"""Text from anywhere, as HTML.

Invariant: what is no markup of ours comes out of `shown`, and of nothing
else: escaped, without secrets that can be told, without what a browser would
obey instead of showing, and not too long.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from colab_keras_bg.journal.announce import printable
from colab_keras_bg.journal.masking import masked

__all__ = ["console_html", "ends", "shown", "table"]

_SGR = re.compile(r"\x1b\[([0-9;]{0,40})m")
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_BOLD, _DIM, _ITALIC, _UNDERLINED = "1", "2", "3", "4"
_STYLES = {_BOLD: "b", _DIM: "d", _ITALIC: "i", _UNDERLINED: "u"}


def ends(text: str, most: int) -> str:
    """A text that is not too long: its beginning and its end.

    >>> ends("abcdefghij", 5)
    'abc…ij'
    """
    if len(text) <= most:
        return text
    tail = most // 2
    return f"{text[: most - tail]}…{text[len(text) - tail :]}"


def shown(text: object, *, most: int = 300) -> str:
    """A text as a page shows it.

    Args:
        text: Any text.
        most: How many characters of it are shown.
    """
    # What is cut off could be the half of a secret: it is cut twice.
    found = ends(masked(ends(str(text), 4 * most)), most)
    return _escaped(found)


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, name: str = ""
) -> str:
    """A table that a narrow page can be swiped through.

    Args:
        head: What stands above, as HTML.
        rows: The cells, as HTML.
        name: Its class.
    """
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="swipe"><table class="{name}"><thead><tr>{top}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def console_html(
    lines: Sequence[str], *, most: int = 400, most_bytes: int = 150_000
) -> str:
    """Lines of a console, in their colours.

    Args:
        lines: What was printed, with its escape sequences.
        most: How many characters of a line are shown.
        most_bytes: How much HTML there may be: the newest lines.
    """
    text = masked("\n".join(ends(line, 4 * most) for line in lines))
    found: list[str] = []
    size_bytes = 0
    for line in reversed(text.split("\n")):
        one = _coloured(ends(line, most))
        size_bytes += len(one.encode()) + 1
        if size_bytes > most_bytes:
            break
        found.append(one)
    return "\n".join(reversed(found))


def _coloured(line: str) -> str:
    parts = _SGR.split(line)
    found, active = [_escaped(parts[0])], set[str]()
    for codes, text in zip(parts[1::2], parts[2::2], strict=True):
        active = _after(active, codes)
        if not text:
            continue
        names = " ".join(sorted(active))
        opened = f'<span class="{names}">' if names else ""
        found.append(f"{opened}{_escaped(text)}{'</span>' * bool(names)}")
    return "".join(found)


def _after(active: set[str], codes: str) -> set[str]:
    """The classes behind an escape sequence; what it means beyond is passed."""
    found = set(active)
    each = iter(codes.split(";"))
    for code in each:
        if code in ("", "0"):
            found.clear()
        elif code in _STYLES:
            found.add(_STYLES[code])
        elif code in ("38", "48"):
            break  # One of many colours: its parameters follow.
        elif code == "39":
            found = {name for name in found if not name.startswith("c-")}
        elif len(code) == 2 and code[0] in "39" and code[1] in "01234567":
            found = {name for name in found if not name.startswith("c-")}
            found.add(f"c-{_NAMES[int(code[1])]}")
    return found
