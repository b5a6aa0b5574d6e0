"""What `train` is to run: the built-in job, a file, or a module's function.

Invariant: a program that is not there is found out before a process is
started for it; nothing of it is imported or executed to find out.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from colab_keras_bg.errors import UsageError

__all__ = ["BUILT_IN", "Program"]

BUILT_IN = "digits"

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?")


@dataclass(frozen=True)
class Program:
    """A program to be run as the trainer.

    Attributes:
        kind: `built-in`, `file` or `module`.
        name: `digits`, an absolute path, or `package.module[:function]`.
        arguments: Its command line.
        typed: A file's name as it was typed: what Python makes `argv[0]`.
    """

    kind: str
    name: str
    arguments: tuple[str, ...] = ()
    typed: str = ""

    @classmethod
    def find(cls, name: str | None, arguments: Sequence[str]) -> Program:
        """The program that a name means.

        Args:
            name: What was typed; None for the built-in job.
            arguments: What followed `--`.

        Raises:
            UsageError: If there is no such program.
        """
        if name is None:
            return cls("built-in", BUILT_IN, tuple(arguments))
        if name.endswith(".py") or os.sep in name or Path(name).is_file():
            if not Path(name).is_file():
                raise UsageError(
                    f"The program {name!r} was not found in {os.getcwd()}: "
                    "give the path of a Python file, or package.module"
                    "[:function]."
                )
            return cls("file", os.path.abspath(name), tuple(arguments), name)
        if not _MODULE.fullmatch(name):
            raise UsageError(
                f"{name!r} is neither a Python file nor package.module"
                "[:function]."
            )
        _check_module(name)
        return cls("module", name, tuple(arguments))

    @property
    def title(self) -> str:
        """A short name for a default run directory."""
        if self.kind == "file":
            return Path(self.name).stem
        return self.name.partition(":")[0].rpartition(".")[2]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Program:
        """Reads what `to_json` wrote."""
        return cls(**{**values, "arguments": tuple(values["arguments"])})


def _check_module(name: str) -> None:
    """Looks for a module from package to package, importing none of them.

    Raises:
        UsageError: If it is not there, or cannot be run.
    """
    module, _, function = name.partition(":")
    places: Sequence[str] | None = None
    where = f"in {os.getcwd()} or among what is installed"
    for part in module.split("."):
        found = _found(part, places)
        if found is None:
            raise UsageError(
                f"The program {name!r} was not found: there is no module "
                f"{part!r} {where}, for {sys.executable}."
            )
        places = list(found.submodule_search_locations or ())
        where = f"in {', '.join(places) or part + ', which is no package'}"
    if places and not function and _found("__main__", places) is None:
        raise UsageError(
            f"{name!r} is a package without a __main__ module: give one of "
            f"its modules, or a function: {name}:function."
        )


def _found(part: str, places: Sequence[str] | None) -> ModuleSpec | None:
    if places is not None:
        return PathFinder.find_spec(part, places)
    here = PathFinder.find_spec(part, [os.getcwd()])
    if here is not None:
        return here
    if part == "__main__":  # It is us.
        return None
    return importlib.util.find_spec(part)
