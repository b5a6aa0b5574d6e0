"""`verify`: reads everything of a run back.

Invariant: the exit status is 0 only if nothing is damaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command, one_name
from colab_keras_bg.journal.announce import printable
from colab_keras_bg.report.verification import verify_run

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
    """It has no flags of its own."""


def _run(values: Any, names: Sequence[str]) -> int:
    run_dir = one_name(names, what="RUN_DIR")
    found = verify_run(run_dir)
    for line in found.whole:
        print(f"whole    {line}")
    for line in found.damaged:
        print(f"DAMAGED  {printable(line)}")
    if found.damaged:
        print(f"{len(found.damaged)} damaged, {len(found.whole)} whole")
        return exit_status.FAILED
    print(f"nothing is damaged; {len(found.whole)} checkpoint(s) whole")
    return exit_status.DONE


COMMAND = Command(
    name="verify",
    synopsis="RUN_DIR",
    summary="Read all checkpoints back; exit status 1 if any is damaged.",
    define=_define,
    run=_run,
)
