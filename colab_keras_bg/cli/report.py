"""`report`: one HTML page on a run, that stands alone.

Invariant: the page is there whole or not at all; a run that is damaged or has
failed is reported, and no failure of the command.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command, one_name
from colab_keras_bg.errors import UsageError
from colab_keras_bg.storage.addresses import is_remote, local_directory

__all__ = ["COMMAND"]

_NAME = "report.html"


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "out",
        None,
        "The file to write; - for standard output. Default: report.html in "
        "the run directory, or here if that lies far away.",
        flag_values=values,
    )


def _run(values: Any, names: Sequence[str]) -> int:
    run_dir = one_name(names, what="RUN_DIR")
    from colab_keras_bg.report.page import report_page

    page = report_page(run_dir)
    # Half a character that was read somewhere is no reason to fail.
    content = page.encode("utf-8", "replace")
    if values.out == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return exit_status.DONE
    path = Path(values.out) if values.out else _default(run_dir)
    _write(path, content)
    print(path)
    return exit_status.DONE


def _default(run_dir: str) -> Path:
    here = Path() if is_remote(run_dir) else local_directory(run_dir)
    return here / _NAME


def _write(path: Path, content: bytes) -> None:
    """Puts the page in place of the one before.

    Raises:
        UsageError: If it cannot be written there.
    """
    # A leading dot: what is half written is no object of the run.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise UsageError(
            f"--out={path} cannot be written: {error.strerror}."
        ) from None


COMMAND = Command(
    name="report",
    synopsis="[flags] RUN_DIR",
    summary="Write one HTML page with curves, attempts, and the console.",
    define=_define,
    run=_run,
)
