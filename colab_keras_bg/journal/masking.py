"""Secrets in what people and programs write, made unreadable.

Invariant: what is masked stays as it is when it is masked again. Rather too
much is masked than too little, but no plain number that is called a token:
`max_tokens=4096` is no secret, `password=4096` is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["MASK", "masked", "masked_command"]

MASK = "[masked]"

_SECRET = r"(?:secret|passw(?:or)?d|passphrase|pwd|credential)"  # noqa: S105
_KEYED = (
    r"(?:token(?!i[sz])|api[_-]?key|access[_-]?key|account[_-]?key"
    r"|private[_-]?key|authorization|(?<![A-Za-z])key(?![A-Za-z])"
    r"|signature|(?<![A-Za-z])sig(?![A-Za-z])|passcode|cookie|webhook)"
)
# In quotes, which a text in JSON escapes; or up to a space or a quote: what
# follows a comma in it may still belong to it.
_VALUE = r"(\\?\"[^\"\n]*\"|\\?'[^'\n]*'|\[masked\]|[^\s\"'<>}\]]+)"
_IS = r"[\w.-]{0,40}\\?[\"']?\s{0,4}(?:=|:(?!//))\s{0,4}"
_NAME = r"(?<![\w.-])[\w.-]{0,60}?"

_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
# Of a key of which the beginning was cut off.
_REST = re.compile(
    rf"(?:^[A-Za-z0-9+/=]{{16,100}}\n){{0,200}}{_END.pattern}", re.M
)
# What gives itself away by how it looks.
_LOOKS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"ya29\.[\w.-]{8,}"  # Google: access, refresh, API key, client secret
    r"|1//[\w-]{20,}"
    r"|AIza[\w-]{20,}"
    r"|GOCSPX-[\w-]{10,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}"  # GitHub, GitLab
    r"|github_pat_\w{16,}"
    r"|glpat-[\w-]{16,}"
    r"|hf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|sk-[\w-]{16,}"  # OpenAI and its like
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}"  # Amazon
    r"|xox[abeoprs]-[\w-]{8,}"  # Slack
    r"|hooks\.slack\.com/services/[\w/]{8,}"
    r"|[srp]k_(?:live|test)_\w{8,}"  # Stripe
    r"|npm_\w{16,}"
    r"|pypi-[\w-]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"  # JSON web tokens
    r")"
)
_BEARER = re.compile(
    r"\b(Bearer|Basic|Digest|ApiKey|(?<=Authorization: )token)(\s+)"
    r"(?!\[masked\])[\w+/.~=-]{8,}",
    re.I,
)
# A value of environment, as it is printed: WANDB_API_KEY 0123abcd.
_PRINTED = re.compile(
    r"\b([A-Z][A-Z0-9_]{0,40}(?:TOKEN|KEY|SECRET|PASSWORD)\s+)(\S{8,})"
)
# As people are told it: your password is hunter2, wandb login 0123abcd.
_TOLD = re.compile(
    rf"(\b(?:(?:{_SECRET}|token|key)\s+is:?|wandb:?\s+login)\s+)"
    r"(?=[^\s]*\d)([^\s\"'<>,;]{6,})",
    re.I,
)
# Colours stand between a name and its value.
_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_USER = re.compile(r"(?<=://)[^\s/@\"'<>]{1,200}@")
_ALWAYS = re.compile(f"({_NAME}{_SECRET}{_IS}){_VALUE}", re.I)
_MOSTLY = re.compile(f"({_NAME}{_KEYED}{_IS}){_VALUE}", re.I)
# As arguments of their own: --password hunter2.
_FLAG = re.compile(
    rf"(?<!\S)(--?[\w.-]{{0,60}}?(?:{_SECRET}|{_KEYED})[\w.-]{{0,40}}\s+)"
    r"(?!-)(\S+)",
    re.I,
)
_IS_FLAG = re.compile(
    rf"--?[\w.-]{{0,60}}?(?:{_SECRET}|{_KEYED})[\w.-]{{0,40}}", re.I
)
_PLAIN = re.compile(
    r"[+-]?[\d.,]{1,15}(?:e[+-]?\d{1,3})?|none|null|true|false", re.I
)


def masked(text: str) -> str:
    """A text without the secrets that can be told.

    Args:
        text: Any text, of one line or of many.

    >>> masked("login --user=me --password=hunter2")
    'login --user=me --password=[masked]'
    """
    plain = _COLOURS.sub("", text)
    if plain != text and _masked(plain) != plain:
        text = plain  # Rather without its colours.
    return _masked(text)


def _masked(text: str) -> str:
    text = _without_keys(text)
    text = _LOOKS.sub(MASK, text)
    text = _BEARER.sub(rf"\1\2{MASK}", text)
    text = _USER.sub(f"{MASK}@", text)
    text = _ALWAYS.sub(rf"\1{MASK}", text)
    text = _MOSTLY.sub(_unless_plain, text)
    text = _PRINTED.sub(_unless_plain, text)
    text = _TOLD.sub(_unless_plain, text)
    return _FLAG.sub(_unless_plain, text)


def masked_command(command: Sequence[str]) -> list[str]:
    """A command without the secrets that can be told.

    Args:
        command: The command, an argument each.
    """
    found: list[str] = []
    for argument in map(str, command):
        is_flag = argument[:2] == "--"
        if found and _IS_FLAG.fullmatch(found[-1]) and not is_flag:
            argument = argument if _PLAIN.fullmatch(argument) else MASK
        found.append(masked(argument))
    return found


def _without_keys(text: str) -> str:
    """Without keys in files' form; one without an end goes to the end."""
    kept, at = [], 0
    while begin := _BEGIN.search(text, at):
        kept += [text[at : begin.start()], MASK]
        end = _END.search(text, begin.end())
        at = end.end() if end else len(text)
    kept.append(text[at:])
    text = "".join(kept)
    return _REST.sub(MASK, text) if _END.search(text) else text


def _unless_plain(found: re.Match[str]) -> str:
    value = found[2].strip("\"'")
    return found[0] if _PLAIN.fullmatch(value) else found[1] + MASK
