"""Numbers out of records that anyone may have written, and as people read them.

Invariant: what is no finite number of a sensible size is none. Nothing here
raises, whatever it is given.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "any_number",
    "as_bytes",
    "as_count",
    "as_secs",
    "as_time",
    "as_value",
    "damage_in",
    "moment",
    "number",
    "records",
    "whole",
]

# Beyond the year 5000: no time that was told by a clock.
_LAST_MOMENT = 1e11


def number(value: Any) -> float | None:
    """A finite number, or None.

    Args:
        value: A field of a record.
    """
    if type(value) not in (int, float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def any_number(value: Any) -> float | None:
    """A number, NaN and infinity among them, or None.

    Args:
        value: A field of a record.
    """
    if type(value) not in (int, float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def whole(value: Any) -> int | None:
    """A whole number from 0 on, or None."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def moment(value: Any) -> float | None:
    """A time in seconds since 1970, or None."""
    found = number(value)
    return found if found is not None and 0 < found < _LAST_MOMENT else None


def records(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """The JSON objects among lines; what is none is passed over.

    Args:
        lines: Whole lines.
    """
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def damage_in(name: str, lines: Sequence[bytes]) -> list[str]:
    """What is to be said of lines that are no records; empty if all are.

    Args:
        name: Whose lines they are.
        lines: The last whole ones of it.
    """
    count = len(lines) - sum(1 for _ in records(lines))
    if not count:
        return []
    return [f"{name}: {count} of the last {len(lines)} lines are damaged"]


def as_secs(secs: float) -> str:
    """A time span: the two largest units.

    >>> as_secs(3725), as_secs(90_061), as_secs(2.5)
    ('1 h 02 min', '1 d 1 h', '2.5 s')
    """
    secs = max(0.0, secs)
    if secs < 10:
        return f"{secs:.1f} s"
    if secs < 100:
        return f"{secs:.0f} s"
    minutes = round(secs / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def as_bytes(count: float) -> str:
    """A size in the unit that suits it.

    >>> as_bytes(1_234_567), as_bytes(12), as_bytes(64e9)
    ('1.2 MB', '12 B', '64 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            digits = 1 if abs(count) < 9.95 and unit != "B" else 0
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def as_count(count: int) -> str:
    """A number of things, with its thousands apart.

    >>> as_count(1234567)
    '1,234,567'
    """
    return f"{count:,}"


def as_value(value: float) -> str:
    """A measured value, in few digits.

    >>> as_value(0.123456), as_value(12345.6), as_value(1e-7), as_value(0.0)
    ('0.1235', '12,346', '1e-07', '0')
    """
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def as_time(when: float) -> str:
    """A moment, in UTC, as far as it can be one."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))
    except (ValueError, OverflowError, OSError):
        return "a time that cannot be told"
