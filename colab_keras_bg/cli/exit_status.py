"""What an exit status of the command line means.

Invariant: these five, and a program's own. Nothing else is returned.
"""

from __future__ import annotations

import signal

__all__ = ["DONE", "FAILED", "HELD", "RESUMABLE", "USAGE", "of_child"]

DONE = 0
FAILED = 1
HELD = 3
USAGE = 64  # EX_USAGE
RESUMABLE = 75  # EX_TEMPFAIL: run the same command again.

# Signals that mean the program itself is broken; every other one comes from
# outside, and the run can go on.
_CRASHES = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)


def of_child(return_code: int) -> tuple[int, str]:
    """The exit status that a program's end is passed on as, and the reason.

    Args:
        return_code: As `subprocess` gives it: negative for a signal.
    """
    if return_code == DONE:
        return DONE, "the program ended"
    if return_code == RESUMABLE:
        return RESUMABLE, "interrupted"
    if return_code > 0:
        return return_code, f"the program failed (exit status {return_code})"
    name = _name_of(-return_code)
    if -return_code in _CRASHES:
        return FAILED, f"the program crashed ({name})"
    return RESUMABLE, f"killed ({name})"


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # A real-time signal between the first and the last.
        return f"signal {number}"
