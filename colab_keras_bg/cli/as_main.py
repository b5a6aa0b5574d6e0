"""Running a file or a module as Python itself would.

Invariant: the program finds the `__main__`, `__file__`, `sys.argv` and
`sys.path[0]` that `python file.py` or `python -m module` would give it, and
its traceback begins in its own code.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.util
import io
import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

from colab_keras_bg.errors import UsageError

__all__ = ["NoProgramError", "print_uncaught", "run_file", "run_module"]

_OURS = os.path.dirname(__file__)


class NoProgramError(UsageError):
    """The program's module or function is not there."""


def run_file(typed: str, arguments: Sequence[str]) -> None:
    """Runs a file as `python FILE ARGUMENTS` does.

    Args:
        typed: The file's name as it was typed.
        arguments: Its command line.
    """
    path = os.path.abspath(typed)
    sys.argv = [typed, *arguments]
    _set_first_place(os.path.dirname(os.path.realpath(path)))
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    # It stays `__main__` when this returns: threads and exit handlers of the
    # program, and what it pickles, look themselves up there.
    main = ModuleType("__main__")
    vars(main).update(
        __annotations__={},
        __builtins__=builtins,
        __cached__=None,
        __file__=path,
        __loader__=SourceFileLoader("__main__", path),
        __package__=None,
    )
    sys.modules["__main__"] = main
    exec(code, vars(main))  # noqa: S102 - the user's own program


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Runs `package.module` as `python -m` does, or calls its function.

    Args:
        name: `package.module` or `package.module:function`.
        arguments: The command line.

    Raises:
        NoProgramError: If there is no such module or function.
    """
    module_name, _, function_name = name.partition(":")
    sys.argv = [name, *arguments]
    _set_first_place(os.getcwd())
    if not function_name:
        _check_there(module_name)
        runpy.run_module(module_name, run_name="__main__", alter_sys=True)
        return
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise _no_module(module_name) from None
        raise
    function = getattr(module, function_name, None)
    if not callable(function):
        raise NoProgramError(
            f"The module {module_name!r} has no function {function_name!r}."
        )
    function()


def print_uncaught(error: BaseException) -> None:
    """Prints an exception as Python does when a program ends by one.

    Args:
        error: What the program raised.
    """
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace):
        trace = trace.tb_next
    if trace is not None or isinstance(error, SyntaxError):
        error.__traceback__ = trace
    with contextlib.suppress(AttributeError):  # There may be no console.
        sys.stdout.flush()
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:  # noqa: BLE001 - the program's own hook; printed
        traceback.print_exc()
        traceback.print_exception(error)


def _set_first_place(directory: str) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = directory


def _check_there(module_name: str) -> None:
    """Imports the packages that a module lies in, to look for it there."""
    package, _, _ = module_name.rpartition(".")
    try:
        found = importlib.util.find_spec(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{package}.".startswith(f"{error.name}."):
            raise _no_module(module_name) from None
        raise
    if found is None:
        raise _no_module(module_name)


def _no_module(name: str) -> NoProgramError:
    return NoProgramError(f"There is no module {name!r}.")


def _is_machinery(trace: TracebackType) -> bool:
    file = trace.tb_frame.f_code.co_filename
    return file.startswith("<frozen ") or os.path.dirname(file) == _OURS
