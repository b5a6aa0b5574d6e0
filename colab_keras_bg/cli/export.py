"""`export`: a step of a run as a Keras file or a SavedModel.

Invariant: what cannot be exported is refused before anything is written.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.arguments import Command, one_name
from colab_keras_bg.errors import UsageError
from colab_keras_bg.stored_run import stored_run

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "out",
        None,
        "What to write: a name that ends in .keras or .weights.h5, or the "
        "directory of a SavedModel. Nothing is overwritten.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "step",
        None,
        "Which step. Default: what the last finished training left, or else "
        "the newest checkpoint.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "model",
        None,
        "A function, as module:function, that returns the built model; needed "
        "if the model does not consist of layers of Keras itself.",
        flag_values=values,
    )


def _run(values: Any, names: Sequence[str]) -> int:
    run_dir = one_name(names, what="RUN_DIR")
    if not values.out:
        raise UsageError("Give --out: what to write.")
    stored_run(run_dir).check_holds_a_run()  # Before Keras is imported.
    from colab_keras_bg.digits.quiet import start_backend

    start_backend()
    model = None if values.model is None else _made_by(values.model)
    from colab_keras_bg.callbacks.export import export

    step = export(run_dir, values.out, step=values.step, model=model)
    print(f"step {step} of {run_dir}: {values.out}")
    return exit_status.DONE


def _made_by(name: str) -> Any:
    """What a function of the user's returns."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise UsageError(f"--model={name}: give module:function.")
    sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--model={name}: {error}.") from None
    return make()


COMMAND = Command(
    name="export",
    synopsis="RUN_DIR --out=...",
    summary="Write a committed step as .keras, .weights.h5 or a SavedModel.",
    define=_define,
    run=_run,
)
