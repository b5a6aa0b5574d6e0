"""What an interruption would and would not change, told beforehand.

Invariant: explaining trains nothing, draws no batch that `fit` would miss, and
leaves every random generator as it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from colab_keras_bg.callbacks.fit_loop import epoch_iterator_of
from colab_keras_bg.data.replay import GeneratorReplay
from colab_keras_bg.data.sources import source_of
from colab_keras_bg.data.validation import Validation
from colab_keras_bg.errors import UsageError
from colab_keras_bg.training_state import random_state
from colab_keras_bg.training_state.callback_states import is_stranger
from colab_keras_bg.training_state.surroundings import surroundings, unsteady
from colab_keras_bg.training_state.train_step import not_exact
from colab_keras_bg.training_state.variables import (
    optimizers,
    training_variables,
)

__all__ = ["Explanation", "Finding", "explain"]


_OF_DATA = frozenset(
    {
        "y",
        "batch_size",
        "class_weight",
        "sample_weight",
        "shuffle",
        "steps_per_epoch",
    }
)


@dataclass(frozen=True)
class Finding:
    """One part of a training.

    Attributes:
        part: `data`, `validation`, `step`, `model`, `machine` or `callbacks`.
        exact: Whether it goes on exactly; None if that is not known here.
        why: In words, with the cure where there is one.
    """

    part: str
    exact: bool | None
    why: str

    def __str__(self) -> str:
        """A line of the explanation."""
        word = {True: "exact", False: "NOT exact", None: "depends"}[self.exact]
        return f"{self.part:<10} {word:<10} {self.why}"


@dataclass(frozen=True)
class Explanation:
    """What `explain` found.

    Attributes:
        findings: One or more for each part.
    """

    findings: tuple[Finding, ...]

    @property
    def exact(self) -> bool:
        """Whether nothing speaks against an exact continuation."""
        return all(finding.exact for finding in self.findings)

    def __str__(self) -> str:
        """All findings, a line each."""
        return "\n".join(map(str, self.findings))


def explain(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    callbacks: Any = (),
    **arguments: Any,
) -> Explanation:
    """Prints what of a `fit` will be continued exactly, what not, and why.

    Args:
        model: The compiled model.
        x: What `fit` will be given.
        y: Likewise.
        callbacks: Likewise; all but ours are looked at.
        **arguments: Any others of `fit`.

    Returns:
        The findings.

    Raises:
        UsageError: If the model is not compiled, there is no data, or `fit`
            takes no such argument.

    Example:
        ```python
        bg.explain(model, dataset)
        ```
    """
    if not getattr(model, "compiled", False):
        raise UsageError("explain() needs a compiled model: compile it first.")
    if x is None:
        raise UsageError("explain() needs the data: what `fit` is given as x.")
    unknown = arguments.keys() - inspect.signature(keras.Model.fit).parameters
    if unknown:
        raise UsageError(
            f"`fit` takes no {', '.join(sorted(unknown))}: explain() takes "
            "what `fit` does."
        )
    with random_state.undisturbed():
        found = Explanation(
            tuple(
                [
                    *_data(model, x, {"y": y, **arguments}),
                    *_validation(arguments.get("validation_data")),
                    *_model(model),
                    *_machine(),
                    *_callbacks(callbacks),
                ]
            )
        )
    print(found)  # noqa: T201 - what it is for
    return found


def _data(model: Any, x: Any, arguments: dict[str, Any]) -> Iterator[Finding]:
    if inspect.isgenerator(x):  # Looking at it would take batches away.
        yield Finding("data", None, GeneratorReplay.guarantee)
        return
    of_data = {k: v for k, v in arguments.items() if k in _OF_DATA}
    iterator = epoch_iterator_of(model, x=x, **of_data)
    source = source_of(iterator)
    reason = _refusal(x)
    if reason is not None:
        yield Finding(
            "data",
            None,
            f"{reason}: its batches are drawn again and dropped, which is "
            "exact only if they come in the same order again; "
            "bg.data.indexed(...) is exact at no cost",
        )
    else:
        yield Finding("data", source.exact, source.guarantee)
    if keras.backend.backend() == "tensorflow" and model.built:
        batch = iterator._distributed_dataset.element_spec
        for why in not_exact(model, batch=batch):
            yield Finding("step", False, why)


def _validation(data: Any) -> Iterator[Finding]:
    validation = Validation(data)
    if validation.not_exact is not None:
        yield Finding("validation", False, validation.not_exact)
    if validation.depends is not None:
        yield Finding("validation", None, validation.depends)


def _refusal(x: Any) -> str | None:
    if not hasattr(x, "_variant_tensor"):
        return None
    from colab_keras_bg.training_state import tensorflow as adapter

    reason = adapter.graph_refusal(x)
    if reason is None:
        return None
    return f"the state of this tf.data pipeline cannot be saved ({reason})"


def _model(model: Any) -> Iterator[Finding]:
    if not model.built:
        yield Finding(
            "model",
            None,
            "not built yet: `fit` builds it, and says after its first step "
            "what is not exact",
        )
        return
    kinds = ", ".join(
        type(optimizer).__name__ for optimizer in optimizers(model).values()
    )
    count = len(training_variables(model))
    yield Finding(
        "model",
        True,
        f"{count} variables of layers, {kinds or 'no optimizer'} and metrics, "
        "seed generators among them, are in each checkpoint",
    )


def _machine() -> Iterator[Finding]:
    reason = unsteady()
    if reason is not None:
        yield Finding("machine", False, reason)
        return
    now = surroundings()
    kind = ", ".join(now["accelerators"]) or now["processor"]
    yield Finding(
        "machine",
        True,
        f"on the same kind of machine ({kind}) with the same versions (Keras "
        f"{now['keras']}, {now['backend']} {now.get(now['backend'], '')})",
    )


def _callbacks(callbacks: Any) -> Iterator[Finding]:
    held = getattr(callbacks, "callbacks", callbacks)  # A CallbackList.
    for callback in keras.tree.flatten(held if held is not None else []):
        name = type(callback).__name__
        if type(callback).__module__.startswith("colab_keras_bg."):
            continue
        if is_stranger(callback):
            yield Finding(
                "callbacks",
                None,
                f"{name}: exact if it keeps no state; otherwise give it "
                "get_state() and set_state(state)",
            )
        else:
            yield Finding("callbacks", True, f"{name}: its state is kept")
