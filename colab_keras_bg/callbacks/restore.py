"""Values of a run put into a model: to warm-start it, or to look at it.

Invariant: all that is wrong is found before a variable is touched, and told in
one error.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Sequence
from typing import Any

from colab_keras_bg.checkpoint.store import Checkpoint
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    NoUsableCheckpointError,
    UsageError,
)
from colab_keras_bg.journal.announce import say
from colab_keras_bg.stored_run import StoredRun, stored_run
from colab_keras_bg.training_state import snapshot
from colab_keras_bg.training_state.derived import derive
from colab_keras_bg.training_state.variables import training_variables

__all__ = ["chosen_checkpoint", "put_in", "restore"]

_SHOWN = 20


def restore(
    model: Any,
    run_dir: str | os.PathLike[str],
    *,
    step: int | None = None,
    only: str | Iterable[str] = "model/*",
    skip: str | Iterable[str] = (),
) -> int:
    """Puts values of a run into a model.

    For a warm start, or to evaluate a run. To continue a training, run its
    program again; nothing of this is needed for it.

    Args:
        model: A built model.
        run_dir: The directory of a run; it is only read.
        step: Which step; if None, what the last finished `fit` left, or else
            the newest checkpoint.
        only: Patterns of keys, with `*` and `?`: the variables that are put
            in. A key is a variable's place, such as
            `model/layers/dense/vars/0`; the model's weights if left out,
            `"*"` for the optimizer's and the metrics' variables, too.
        skip: Patterns of keys that are left as they are all the same.

    Returns:
        The step that the values are of.

    Raises:
        UsageError: If there is no run or no such step, the model is not
            built, a pattern meets no variable, or a variable is not in the
            checkpoint or has another shape or dtype there; all of them are
            listed.
        DamagedCheckpointError: If the step asked for is damaged.
        NoUsableCheckpointError: If there are checkpoints and none verifies.

    Example:
        ```python
        bg.restore(model, "runs/pretrained", skip="model/layers/head/*")
        ```
    """
    _refuse_unbuilt(model)
    _chosen(list(training_variables(model)), only=only, skip=skip)
    found = chosen_checkpoint(stored_run(run_dir), step)
    put_in(model, found, where=f"{run_dir}", only=only, skip=skip)
    return found.step


def put_in(
    model: Any,
    found: Checkpoint,
    *,
    where: str,
    only: str | Iterable[str],
    skip: str | Iterable[str] = (),
) -> None:
    """Puts values of a checkpoint into a model.

    Args:
        model: A built model.
        found: The checkpoint.
        where: The run directory, for the message.
        only: See `restore`.
        skip: See `restore`.

    Raises:
        UsageError: See `restore`. Nothing was changed then.
    """
    _refuse_unbuilt(model)
    variables = training_variables(model)
    chosen = _chosen(list(variables), only=only, skip=skip)
    wrong = [
        difference
        for key in chosen
        if (difference := _difference(key, variables[key], found)) is not None
    ]
    if wrong:
        raise UsageError(
            f"Step {found.step} of {where} does not fit the model:\n  "
            + "\n  ".join(wrong)
            + "\nNothing was changed. Leave them out by skip=..., or build "
            "the model as it was."
        )
    snapshot.assign(variables, found.tensors, keys=chosen)
    derive(model)


def _refuse_unbuilt(model: Any) -> None:
    if not model.built:
        raise UsageError(
            "This needs a built model: give it an Input, or call it once."
        )


def _chosen(
    keys: Sequence[str], *, only: str | Iterable[str], skip: str | Iterable[str]
) -> list[str]:
    patterns = {"only": _patterns(only), "skip": _patterns(skip)}
    for name, given in patterns.items():
        for pattern in given:
            if not fnmatch.filter(keys, pattern):
                near = "\n  ".join(keys[:_SHOWN])
                raise UsageError(
                    f"{name}={pattern!r} meets no variable of the model. It "
                    f"has:\n  {near}"
                )
    chosen = _matching(keys, patterns["only"]) - _matching(
        keys, patterns["skip"]
    )
    if not chosen:
        raise UsageError("only and skip leave no variable to put in.")
    return [key for key in keys if key in chosen]


def _patterns(given: str | Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _matching(keys: Sequence[str], patterns: Iterable[str]) -> set[str]:
    return {
        key for pattern in patterns for key in fnmatch.filter(keys, pattern)
    }


def chosen_checkpoint(stored: StoredRun, step: int | None) -> Checkpoint:
    """The step asked for, or what a run has come to.

    Args:
        stored: The run.
        step: Which step; if None, what the last finished `fit` left, or else
            the newest checkpoint.

    Raises:
        UsageError: If there is no run, or no such step.
        DamagedCheckpointError: If the step asked for is damaged.
        NoUsableCheckpointError: If there are checkpoints and none verifies.
    """
    stored.check_holds_a_run()
    finals, checkpoints = stored.finals, stored.checkpoints
    if step is not None:
        if step in finals.steps():
            try:
                return finals.load(step)
            except DamagedCheckpointError as error:
                if step not in checkpoints.steps():
                    raise
                say(f"what the fit left is passed over: {error}")
        return checkpoints.load(step)
    try:
        final = finals.latest()
    except NoUsableCheckpointError as error:
        say(str(error.skipped[0]))
        final = None
    try:
        newest = checkpoints.latest()
    except NoUsableCheckpointError as error:
        if final is None:
            raise
        say(str(error.skipped[0]))
        newest = None
    if final is not None and (newest is None or final.step >= newest.step):
        return final
    if newest is None:
        raise UsageError(f"Nothing is saved in {stored.address} yet.")
    return newest


def _difference(key: str, variable: Any, found: Checkpoint) -> str | None:
    stored = found.tensors.get(key)
    if stored is None:
        return f"{key}: not there"
    shape = tuple(variable.shape)
    dtype = snapshot.dtype_of(variable)
    if stored.shape == shape and stored.dtype == dtype:
        return None
    return (
        f"{key}: {dtype}{list(shape)} in the model, "
        f"{stored.dtype}{list(stored.shape)} there"
    )
