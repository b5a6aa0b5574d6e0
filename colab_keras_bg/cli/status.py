"""`status`: one screen on where a run stands.

Invariant: it answers whatever the run directory holds; that a run is damaged
or has failed is an answer, and no failure of the command.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command, one_name
from colab_keras_bg.report.status import as_text, read_status

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean(
        "json", False, "Print a JSON object instead.", flag_values=values
    )


def _run(values: Any, names: Sequence[str]) -> int:
    status = read_status(one_name(names, what="RUN_DIR"))
    if values.json:
        print(json.dumps(status.to_json(), indent=1))
    else:
        print(as_text(status, now=time.time()))
    return exit_status.DONE


COMMAND = Command(
    name="status",
    synopsis="[flags] RUN_DIR",
    summary="Show where a run stands, and which step is safe.",
    define=_define,
    run=_run,
)
