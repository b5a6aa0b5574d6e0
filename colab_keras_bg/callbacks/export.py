"""A step of a run as a file that others read.

Invariant: what is exported was verified; nothing that exists is overwritten,
and what is there under the name asked for is whole.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from colab_keras_bg.callbacks.restore import chosen_checkpoint, put_in
from colab_keras_bg.checkpoint.store import Checkpoint
from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.stored_run import stored_run
from colab_keras_bg.training_state.model_config import rebuilt

__all__ = ["export"]

_OTHER_KINDS = (".h5", ".hdf5", ".onnx", ".pb", ".tf", ".tflite", ".json")


def export(
    run_dir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    step: int | None = None,
    model: Any = None,
) -> int:
    """Writes a committed step as a Keras file or a SavedModel.

    The program that trained is not needed if its model consists of Keras' own
    layers: the configuration is stored with each checkpoint. Of anything else,
    give the model.

    Args:
        run_dir: The directory of a run; it is only read.
        out: What to write: a name that ends in `.keras` or `.weights.h5`, or
            the directory of a SavedModel, which needs TensorFlow.
        step: Which step; if None, what the last finished `fit` left, or else
            the newest checkpoint.
        model: A built model whose variables are to be used, and are changed.

    Returns:
        The step that was exported.

    Raises:
        UsageError: If there is no run or no such step, `out` exists or is of
            another kind, or the model has to be given or does not fit.
        DamagedCheckpointError: If the step asked for is damaged.
        NoUsableCheckpointError: If there are checkpoints and none verifies.

    Example:
        ```python
        bg.export("runs/a", "a.keras")
        ```
    """
    target = Path(out)
    kind = _kind(target)
    found = chosen_checkpoint(stored_run(run_dir), step)
    if model is None:
        try:
            model = rebuilt(found.state.get("model"))
        except UsageError as error:
            raise UsageError(
                f"Step {found.step} of {run_dir}: {error}. Give the built "
                "model: bg.export(..., model=...), or --model=module:function."
            ) from None
    put_in(model, found, where=f"{run_dir}", only="model/*")
    if kind != "saved_model" and getattr(model, "optimizer", None) is not None:
        _put_optimizer_in(model, found, where=f"{run_dir}")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first; Keras goes by how a name ends.
    unfinished = target.with_name(
        f"unfinished-{uuid.uuid4().hex}.{target.name}"
    )
    try:
        _write(model, unfinished, kind)
        if target.exists():
            raise UsageError(f"{target} has come to exist meanwhile.")
        unfinished.rename(target)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink(missing_ok=True)
    return found.step


def _kind(target: Path) -> str:
    if os.path.lexists(target):
        raise UsageError(
            f"{target} exists already, and is not overwritten: give another "
            "name, or move it away."
        )
    if target.name == "weights.h5" or target.name.endswith(".weights.h5"):
        return "weights"
    if target.suffix == ".keras":
        return "keras"
    if target.suffix.lower() in _OTHER_KINDS:
        raise UsageError(
            f"{target}: give a name that ends in .keras or .weights.h5, or a "
            "directory for a SavedModel."
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            f"{target}: a SavedModel is written by TensorFlow, which is not "
            "installed here. Give a name that ends in .keras or .weights.h5."
        )
    return "saved_model"


def _put_optimizer_in(model: Any, found: Checkpoint, *, where: str) -> None:
    """The optimizer goes along if it fits."""
    try:
        put_in(model, found, where=where, only="optimizer/*")
    except UsageError:
        say("the optimizer's state in the run is of another optimizer")


def _write(model: Any, target: Path, kind: str) -> None:
    if kind == "weights":
        model.save_weights(target)
    elif kind == "keras":
        model.save(target)
    else:
        model.export(target, verbose=False)
