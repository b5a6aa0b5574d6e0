"""`colab-keras-bg`: which command was meant, and how its end is told.

Invariant: bad usage ends with exit status 64 and one line on standard error,
before anything that takes seconds is imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from colab_keras_bg._version import __version__
from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command, new_flags, parse, usage
from colab_keras_bg.errors import (
    BackgroundTrainingError,
    RunHeldError,
    UsageError,
)

__all__ = ["console_entry", "main"]

_COMMANDS = ("train", "status", "verify")


def console_entry() -> None:
    """Runs the command line and ends the process."""
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has had enough (`status | head -1`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = exit_status.FAILED
    sys.exit(status)


def main(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit status.
    """
    try:
        return _main(list(arguments))
    except UsageError as error:
        return _failed(error, exit_status.USAGE)
    except RunHeldError as error:
        return _failed(error, exit_status.HELD)
    except BackgroundTrainingError as error:
        return _failed(error, exit_status.FAILED)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "--helpfull", "help"):
        print(_overview())
        return exit_status.DONE if arguments else exit_status.USAGE
    if arguments[0] == "--version":
        print(f"colab-keras-bg {__version__}")
        return exit_status.DONE
    name, rest = arguments[0], arguments[1:]
    if name not in _COMMANDS:
        raise UsageError(
            f"There is no command {name!r}: give one of "
            f"{', '.join(_COMMANDS)}, or --help."
        )
    command = _command(name)
    own, theirs = _split(rest)
    values = new_flags(command)
    if {"-h", "--help", "--helpfull"} & set(own):
        print(usage(command, full="--helpfull" in own))
        return exit_status.DONE
    names = parse(values, own)
    return command.run(values, [*names, *theirs])


def _command(name: str) -> Command:
    module = importlib.import_module(f"colab_keras_bg.cli.{name}")
    command: Command = module.COMMAND
    return command


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Ours, and what follows `--`, with the `--` itself."""
    if "--" not in arguments:
        return arguments, []
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut:]


def _overview() -> str:
    lines = [
        "usage: colab-keras-bg COMMAND [flags] ...",
        "",
        "Start a Keras training on a borrowed machine, and walk away.",
        "",
        "commands:",
    ]
    for name in _COMMANDS:
        command = _command(name)
        lines.append(f"  {name:<8} {command.summary}")
    lines += [
        "",
        "`colab-keras-bg COMMAND --help` tells more.",
        "",
        "exit status: 0 done, 75 interrupted (run the same command again), "
        "64 bad usage,",
        "1 failed, 3 another live attempt holds the run.",
    ]
    return "\n".join(lines)


def _failed(error: Exception, status: int) -> int:
    print(f"colab-keras-bg: {error}", file=sys.stderr)
    return status
