r"""What `files.list` is asked for, in the language of its `q`.

Invariant: a term that is not served is an error, never ignored. Served are
`name =` and `name contains` (a beginning of the name), `'ID' in parents`,
`mimeType =` and `!=`, `trashed =`, `sharedWithMe`, joined by `and`, and by
`or` in parentheses. In strings, `\'` and `\\` stand for `'` and `\`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from colab_keras_bg.testing.loopback.answers import ApiError
from colab_keras_bg.testing.loopback_drive.files import Files, StoredFile

__all__ = ["matcher"]

_Matches = Callable[[StoredFile], bool]
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*')|(?P<word>[A-Za-z]+)"
    r"|(?P<sign>!=|=|\(|\)))"
)


def matcher(query: str, files: Files) -> _Matches:
    """What a file has to be.

    Args:
        query: The `q`; empty for all.
        files: Tells what is in the trash.

    Raises:
        ApiError: 400, if it is not understood.
    """
    parser = _Parser(query, files)
    if not query.strip():
        return lambda file: True
    matches = parser.joined("and", all)
    if parser.tokens:
        raise parser.invalid()
    return matches


class _Parser:
    def __init__(self, query: str, files: Files) -> None:
        self._query, self._files = query, files
        self.tokens: list[str] = []
        place = 0
        query = query.rstrip()
        while place < len(query):
            found = _TOKEN.match(query, place)
            if not found:
                raise self.invalid()
            self.tokens.append(found[0].strip())
            place = found.end()

    def invalid(self) -> ApiError:
        return ApiError.invalid(f"Invalid Value: q={self._query!r}")

    def joined(
        self, word: str, whole: Callable[[list[bool]], bool]
    ) -> _Matches:
        terms = [self._term()]
        while self.tokens and self.tokens[0] == word:
            self._next()
            terms.append(self._term())
        return lambda file: whole([term(file) for term in terms])

    def _next(self, expected: str | None = None) -> str:
        if not self.tokens or expected not in (None, self.tokens[0]):
            raise self.invalid()
        return self.tokens.pop(0)

    def _text(self) -> str:
        token = self._next()
        if not token.startswith("'"):
            raise self.invalid()
        return re.sub(r"\\(.)", r"\1", token[1:-1])

    def _term(self) -> _Matches:
        first = self._next()
        if first == "(":
            inner = self.joined("or", any)
            self._next(")")
            return inner
        if first.startswith("'"):
            self.tokens.insert(0, first)
            parent = self._files.get(self._text()).id
            self._next("in")
            self._next("parents")
            return lambda file: file.parent == parent
        if first == "sharedWithMe":
            return lambda file: file.shared
        if first == "trashed":
            self._next("=")
            wanted = {"true": True, "false": False}.get(self._next())
            if wanted is None:
                raise self.invalid()
            return lambda file: self._files.is_trashed(file) == wanted
        sign, text = self._next(), self._text()
        if (first, sign) == ("name", "="):
            return lambda file: file.name.lower() == text.lower()
        if (first, sign) == ("name", "contains"):
            return lambda file: file.name.lower().startswith(text.lower())
        if (first, sign) == ("mimeType", "="):
            return lambda file: file.mime_type == text
        if (first, sign) == ("mimeType", "!="):
            return lambda file: file.mime_type != text
        raise self.invalid()
