"""absl flags of one command, in a namespace of their own.

Invariant: nothing is registered in `absl.flags.FLAGS`: importing this package
in a notebook, whose kernel has its own command line, or in a program with its
own flags, defines and parses nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags

from colab_keras_bg.errors import UsageError

__all__ = ["Command", "new_flags", "one_name", "parse", "usage"]

_COMMON = ("help", "helpfull")


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
    command.define(values)
    flags.DEFINE_boolean(
        "help", False, "Print this and end.", short_name="h", flag_values=values
    )
    flags.DEFINE_boolean(
        "helpfull",
        False,
        "Print this with the flags that every command has, and end.",
        flag_values=values,
    )
    return values


def parse(
    values: flags.FlagValues, arguments: Sequence[str], *, command: Command
) -> list[str]:
    """Parses a command's arguments.

    Args:
        values: Its flags; set by this.
        arguments: What was typed behind the command's name.
        command: The command, for the message.

    Returns:
        The arguments that are not flags.

    Raises:
        UsageError: If a flag is not known or its value cannot be meant.
    """
    try:
        return list(values(["colab-keras-bg", *arguments])[1:])
    except flags.UnrecognizedFlagError as error:
        text = str(error)  # With absl's own guess at what was meant, if any.
        _, guess, names = text.partition(" Did you mean: ")
        advice = f" Did you mean --{names.rstrip(' ?')}?" if guess else ""
        raise UsageError(
            f"There is no flag {_typed(error)}.{advice} "
            f"`colab-keras-bg {command.name} --help` lists the flags; those "
            "of a program follow `--`."
        ) from None
    except flags.IllegalFlagValueError as error:
        raise UsageError(_illegal(values, error)) from None
    except (flags.Error, UnicodeDecodeError) as error:
        text = " ".join(str(error).removeprefix("ERROR:: ").split())
        raise UsageError(f"The flags cannot be read: {text}.") from None


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
    """The text of `--help`, 80 columns wide.

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
    names = dict.fromkeys(values[name].name for name in values)
    shown = [name for name in names if full or name not in _COMMON]
    lines += ["", "flags:"]
    for name in shown:
        lines += _explained(values[name])
    lines += ["  --flagfile=FILE", "      Read flags from a file, one a line."]
    if full:
        lines += [
            "  --undefok=NAMES",
            "      Pass over these flags where they are not known.",
        ]
    return "\n".join(lines)


def _explained(flag: Any) -> list[str]:
    kind = {"bool": "", "int": "=N"}.get(flag.flag_type(), "=...")
    text = flag.help
    if flag.default not in (None, False):
        text += f" Default: {flag.default}."
    return [
        f"  --{flag.name}{kind}",
        *textwrap.wrap(
            text, 80, initial_indent=" " * 6, subsequent_indent=" " * 6
        ),
    ]


def _typed(error: Any) -> str:
    value = str(error.flagvalue)
    return value if value.startswith("-") else f"--{error.flagname}"


def _illegal(values: flags.FlagValues, error: Exception) -> str:
    """What is allowed; absl says what is wrong, in the words of `int()`."""
    text = str(error)
    name = text.removeprefix("flag --").partition("=")[0]
    if name not in values or error.__context__ is None:
        return text
    value = text.removesuffix(f": {error.__context__}").partition("=")[2]
    flag: Any = values[name]
    allowed = "true or false" if flag.boolean else flag.parser.syntactic_help
    if allowed.startswith("integer"):
        allowed = f"an {allowed}"
    return f"--{name}={value} cannot be meant: give {allowed}."
