"""What is kept of a run besides its checkpoints, as a person asks for it.

Invariant: checked as a whole before anything is touched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from colab_keras_bg.checkpoint.policies import secs_of
from colab_keras_bg.errors import UsageError

__all__ = ["NOTHING", "WatchOptions", "bytes_of"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([kMG]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_LEAST_CONSOLE_BYTES = 10**5
_OFF = (None, False, "off", "")


@dataclass(frozen=True)
class WatchOptions:
    """What is watched, and how often.

    Attributes:
        console_bytes: How much is kept of what an attempt prints; 0 if its
            output is not looked at.
        resources_secs: How often it is measured what is used; 0 for never.
        report_secs: How often the report is written; 0 for never.
    """

    console_bytes: int = 64 * 10**6
    resources_secs: float = 10.0
    report_secs: float = 600.0

    @property
    def wanted(self) -> bool:
        """Whether anything is."""
        return bool(
            self.console_bytes or self.resources_secs or self.report_secs
        )

    @classmethod
    def of(
        cls,
        *,
        console: str | bool | None = "64MB",
        resources: str | bool | None = "10s",
        report: str | bool | None = "10m",
    ) -> WatchOptions:
        """Takes them as they are written; `"off"` turns one off.

        Args:
            console: How much is kept of what an attempt prints, such as
                `"64MB"`.
            resources: A time such as `"10s"`.
            report: A time such as `"10m"`.

        Raises:
            UsageError: If one cannot be meant.
        """
        return cls(
            console_bytes=_console(console),
            resources_secs=_every("resources", resources, least_secs=1.0),
            report_secs=_every("report", report, least_secs=10.0),
        )


NOTHING = WatchOptions(console_bytes=0, resources_secs=0.0, report_secs=0.0)


def bytes_of(text: str) -> int | None:
    """The bytes that a size such as `"64MB"` means; None if it is none.

    Args:
        text: What was given.
    """
    match = _SIZE.fullmatch(text.strip())
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def _console(console: str | bool | None) -> int:
    if console in _OFF:
        return 0
    if console is True:
        return WatchOptions.console_bytes
    found = bytes_of(str(console))
    if found is None or found < _LEAST_CONSOLE_BYTES:
        raise UsageError(
            f"console={console!r} cannot be meant: give how much is kept of "
            "what an attempt prints, 100kB or more, such as '64MB', or 'off'."
        )
    return found


def _every(name: str, given: str | bool | None, *, least_secs: float) -> float:
    if given in _OFF:
        return 0.0
    if given is True:
        return float(getattr(WatchOptions, f"{name}_secs"))
    found = secs_of(str(given))
    if found is None or found < least_secs:
        raise UsageError(
            f"{name}={given!r} cannot be meant: give a time of "
            f"{least_secs:.0f} s or more, such as '30s' or '10m', or 'off'."
        )
    return found
