"""`colab-keras-bg`: which command was meant, and how its end is told.

Invariant: bad usage ends with exit status 64 and one line on standard error,
before anything that takes seconds is imported. Whoever reads our output may
leave at any time: that changes neither the work nor the exit status.
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
from colab_keras_bg.journal.announce import printable

__all__ = ["console_entry", "main"]

_COMMANDS = ("train", "status", "logs", "report", "verify", "export")


def console_entry() -> None:
    """Runs the command line and ends the process."""
    _open_standard_streams()
    try:
        status = main(sys.argv[1:])
    except BrokenPipeError:
        status = exit_status.FAILED  # It had more to say than was read.
    except KeyboardInterrupt:
        status = _failed("interrupted", exit_status.RESUMABLE)
    try:
        sys.stdout.flush()
    except OSError:
        # Whoever read our output has had enough (`status | head -1`). What
        # Python flushes when it ends goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
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
        text = " ".join(str(error).splitlines())
        return _failed(text, exit_status.USAGE)
    except RunHeldError as error:
        return _failed(str(error), exit_status.HELD)
    except BrokenPipeError:
        raise
    except (BackgroundTrainingError, OSError) as error:
        return _failed(str(error), exit_status.FAILED)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "--helpfull", "help"):
        print(_overview())
        return exit_status.DONE if arguments else exit_status.USAGE
    if arguments[0] == "--version":
        print(f"colab-keras-bg {__version__}")
        return exit_status.DONE
    name, rest = arguments[0], arguments[1:]
    if name not in _COMMANDS:
        advice = "Flags follow the command. " if name.startswith("-") else ""
        raise UsageError(
            f"There is no command {name!r}: give one of "
            f"{', '.join(_COMMANDS)}, or --help. {advice}".rstrip()
        )
    command = _command(name)
    own, theirs = _split(rest)
    values = new_flags(command)
    if {"-h", "--help", "--helpfull"} & set(own):
        print(usage(command, full="--helpfull" in own))
        return exit_status.DONE
    names = parse(values, own, command=command)
    if values.help or values.helpfull:  # As `--help=true`, or in a flag file.
        print(usage(command, full=values.helpfull))
        return exit_status.DONE
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
        "usage: colab-keras-bg COMMAND ...",
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
        "exit status:",
        "  0   done, now or already before",
        "  75  interrupted: run the same command again to continue",
        "  64  bad usage",
        "  3   another live attempt holds the run",
        "  1   failed; a program's own exit status is passed on",
        "",
        "`colab-keras-bg COMMAND --help` tells more.",
    ]
    return "\n".join(lines)


def _failed(text: str, status: int) -> int:
    print(f"colab-keras-bg: {printable(text)}", file=sys.stderr)
    return status


def _open_standard_streams() -> None:
    """Has descriptors 0 to 2 lead somewhere: nowhere, if they are closed.

    The next file to be opened would get a free one, and be written to by
    whoever means the console.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest that is free.
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            stream = os.fdopen(descriptor, mode, closefd=False)
            setattr(sys, name, stream)
