"""absl flags of one command, in a namespace of their own.

Invariant: nothing is registered in `absl.flags.FLAGS`: importing this package
in a notebook, whose kernel has its own command line, or in a program with its
own flags, defines and parses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags

from colab_keras_bg.errors import UsageError

__all__ = ["Command", "new_flags", "one_name", "parse", "usage"]


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: What is typed.
        synopsis: What follows it.
        summary: What it does, in one line.
        define: Defines its flags.
        run: Runs it; returns the exit status.
        details: What `--help` says below the summary.
    """

    name: str
    synopsis: str
    summary: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[Any, Sequence[str]], int]
    details: str = ""


def new_flags(command: Command) -> flags.FlagValues:
    """The flags of a command, not yet parsed."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # Flags may stand behind names.
    flags.DEFINE_boolean(
        "help", False, "Print this and end.", short_name="h", flag_values=values
    )
    flags.DEFINE_boolean(
        "helpfull",
        False,
        "Print this with the flags for flags, and end.",
        flag_values=values,
    )
    command.define(values)
    return values


def parse(values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Parses a command's arguments.

    Args:
        values: Its flags; set by this.
        arguments: What was typed behind the command's name.

    Returns:
        The arguments that are not flags.

    Raises:
        UsageError: If a flag is not known or its value cannot be meant.
    """
    try:
        return list(values(["colab-keras-bg", *arguments])[1:])
    except flags.Error as error:
        raise UsageError(" ".join(str(error).split())) from None


def one_name(names: Sequence[str], *, what: str) -> str:
    """The one argument that a command takes.

    Args:
        names: The arguments that are not flags.
        what: What it names, for the message.

    Raises:
        UsageError: If there is none, or more than one.
    """
    if len(names) != 1:
        given = " ".join(names) or "nothing"
        raise UsageError(f"Give one {what}; given: {given}.")
    return names[0]


def usage(command: Command, *, full: bool = False) -> str:
    """The text of `--help`.

    Args:
        command: The command.
        full: Whether to list the flags that every command has, too.
    """
    values = new_flags(command)
    lines = [
        f"usage: colab-keras-bg {command.name} {command.synopsis}",
        "",
        command.summary,
    ]
    if command.details:
        lines += ["", command.details.strip("\n")]
    lines += ["", "flags:"]
    for name in sorted({values[name].name for name in values}):
        flag = values[name]
        if name in ("help", "helpfull") and not full:
            continue
        default = flag.default_as_str
        shown = f" (default {default})" if flag.default is not None else ""
        form = f"--{name}" if flag.boolean else f"--{name}=..."
        lines += [f"  {form}", f"      {flag.help}{shown}"]
    lines += [
        "  --flagfile=FILE",
        "      Read flags from a file, one a line.",
    ]
    if full:
        lines += [
            "  --undefok=NAMES",
            "      Accept these flags although they are not known.",
        ]
    return "\n".join(lines)
