"""`status`: one screen on where a run stands.

Invariant: it answers whatever the run directory holds; that a run is damaged
or has failed is an answer, and no failure of the command. Watching a run, or
no longer watching it, leaves it alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command, one_name
from colab_keras_bg.errors import StorageUnavailableError, UsageError
from colab_keras_bg.report.overview import Overview, read_overview
from colab_keras_bg.report.text import as_text

__all__ = ["COMMAND", "watched"]

_REFRESH_SECS = 2.0
# Who reads the output of a program that watches wants no line twice a second.
_REPEAT_SECS = 10.0


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean(
        "json", False, "Print a JSON object instead.", flag_values=values
    )
    flags.DEFINE_boolean(
        "watch",
        False,
        "Go on showing it, until the run ends or Ctrl-C is pressed; the run "
        "goes on.",
        short_name="w",
        flag_values=values,
    )


def _run(values: Any, names: Sequence[str]) -> int:
    run_dir = one_name(names, what="RUN_DIR")
    if values.watch and values.json:
        raise UsageError("--watch is for people, and --json for programs.")
    overview = read_overview(run_dir)
    if values.json:
        print(json.dumps(overview.to_json(), indent=1))
    elif values.watch:
        _watch(run_dir, overview)
    elif sys.stdout.isatty():
        from rich.console import Console

        from colab_keras_bg.report.screen import screen

        Console().print(screen(overview, now=time.time()))
    else:
        print(_plain(overview))
    return exit_status.DONE


def _watch(run_dir: str, overview: Overview) -> None:
    try:
        if sys.stdout.isatty():
            _watch_on_terminal(run_dir, overview)
            return
        for found in watched(run_dir, overview, every_secs=_REPEAT_SECS):
            print(f"{_plain(found)}\n", flush=True)
    except KeyboardInterrupt:
        return  # The run goes on.


def _watch_on_terminal(run_dir: str, overview: Overview) -> None:
    from rich.live import Live

    from colab_keras_bg.report.screen import screen

    with Live(auto_refresh=False) as live:
        for found in watched(run_dir, overview, every_secs=_REFRESH_SECS):
            live.update(screen(found, now=time.time()), refresh=True)


def watched(
    run_dir: str,
    overview: Overview,
    *,
    every_secs: float,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Overview]:
    """Where a run stands, again and again, until it does not run any more.

    Args:
        run_dir: The run directory.
        overview: Where it stands now; yielded first.
        every_secs: How long to wait in between.
        sleep: Waits so many seconds.

    Yields:
        An `Overview` each. If the run cannot be read for a while, none.
    """
    yield overview
    while overview.status.state == "running":
        sleep(every_secs)
        try:
            overview = read_overview(run_dir)
        except StorageUnavailableError:
            continue
        yield overview


def _plain(overview: Overview) -> str:
    return as_text(overview.status, now=time.time(), overview=overview)


COMMAND = Command(
    name="status",
    synopsis="[flags] RUN_DIR",
    summary="Show where a run stands, and which step is safe.",
    define=_define,
    run=_run,
)
