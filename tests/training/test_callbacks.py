"""The other callbacks of a `fit` go on where they were, wherever they stand."""

from __future__ import annotations

import collections
import contextlib
import inspect
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from harness import (
    SEED,
    UNWATCHED,
    Case,
    CutAt,
    End,
    PowerCut,
    Settled,
    Witness,
    end_of,
    undisturbed,
)
from keras import layers
from models import BATCH, VALIDATION, X, Y

import colab_keras_bg as bg
from colab_keras_bg.callbacks import training

EPOCHS, TURNS = 6, 7
FIRST, MIDDLE, LAST = "ours first", "ours in the middle", "ours last"
PLACES = pytest.mark.parametrize("place", [FIRST, LAST])


# One attempt, with our callback anywhere in the list.


class CutAtTheEnd(keras.callbacks.Callback):
    """Cuts the power when all is trained and nothing is finished."""

    def on_train_end(self, logs: Any = None) -> None:
        raise PowerCut

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


def attempt(
    case: Case,
    run_dir: Path | None,
    cut: Any = None,
    *,
    place: str = FIRST,
    verbose: int = 0,
) -> End | None:
    """One attempt in a fresh state; None if the power was cut.

    With ours last, the power goes before the others have seen the batch.
    """
    keras.utils.clear_session()
    keras.utils.set_random_seed(SEED)
    model = case.model()
    args, kwargs = case.data()
    seen: list[tuple[int, int]] = []
    others = [*case.callbacks(), Witness(seen)]

    def fit(callbacks: list[Any]) -> End:
        history = model.fit(
            *args,
            **kwargs,
            epochs=case.epochs,
            verbose=verbose,
            callbacks=callbacks,
        )
        return end_of(model, history, seen)

    if run_dir is None:
        return fit(others)
    cuts = [cut] if cut else []
    half = len(others) // 2
    try:
        with bg.Run(run_dir, save_freq=1, **UNWATCHED) as run:
            ours = [*run.callbacks(), Settled(run)]
            return fit(
                {
                    FIRST: [*ours, *others, *cuts],
                    MIDDLE: [*others[:half], *ours, *others[half:], *cuts],
                    LAST: [*cuts, *others, *ours],
                }[place]
            )
    except PowerCut:
        return None


def cuts_in_the_middle() -> list[CutAt]:
    """In the third epoch, and before the fourth."""
    return [CutAt(17), CutAt(hook="on_epoch_begin:3")]


def assert_goes_on(
    case: Case, run_dir: Path, *, place: str, cuts: Sequence[Any] = ()
) -> None:
    """Interrupted, it ends with the same bits."""
    expected = undisturbed(case)
    for cut in cuts or cuts_in_the_middle():
        ended = attempt(case, run_dir, cut, place=place)
        assert ended is None, "the power cut did not come"
    actual = attempt(case, run_dir, place=place)
    assert actual is not None
    assert expected.history == actual.history
    assert expected.variables == actual.variables
    rest = len(expected.batches) - len(actual.batches)
    assert expected.batches[rest:] == actual.batches


def data() -> Any:
    """What is trained on."""
    return (bg.data.arrays(X, Y, batch_size=BATCH, seed=3),), VALIDATION


def model(**optimizer: Any) -> keras.Model:
    """A model that learns in leaps, so that callbacks have something to do."""
    built = keras.Sequential(
        [keras.Input((12,)), layers.Dense(16, "relu"), layers.Dense(1)]
    )
    built.compile(
        keras.optimizers.Adam(0.05, **optimizer), "mse", metrics=["mae"]
    )
    return built


def averaged() -> keras.Model:
    """The same, keeping a moving average of its weights."""
    return model(use_ema=True)


class Slower(keras.callbacks.Callback):
    """A user's callback whose state decides the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1
        self.model.optimizer.learning_rate = 0.05 / (1 + self.epochs)


class SlowerThatSpeaks(Slower):
    """The same, and it says what its state is."""

    def get_state(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def set_state(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


class SlowerByArrays(keras.callbacks.Callback):
    """A user's callback with arrays in its state."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = np.full((1, 3), 0.05, "float32")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.rates = np.concatenate([self.rates, self.rates[-1:] * 0.7])
        self.model.optimizer.learning_rate = float(self.rates.mean())

    def get_state(self) -> dict[str, Any]:
        return {"nested": [{"rates": self.rates}], "rows": len(self.rates)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rates = state["nested"][0]["rates"]
        assert self.rates.dtype == np.float32
        assert state["rows"] == len(self.rates)


class Patient(keras.callbacks.EarlyStopping):
    """A user's subclass that adds nothing to the state."""


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """The same."""


def early_stopping(kind: Any = keras.callbacks.EarlyStopping) -> Any:
    """Stops after the fourth epoch and puts the second one's weights back."""
    return kind(
        monitor="val_mae",
        mode="max",
        patience=2,
        restore_best_weights=True,
        start_from_epoch=1,
    )


def reduce_lr(kind: Any = keras.callbacks.ReduceLROnPlateau) -> Any:
    """Waits two epochs, reduces, rests two epochs, waits, reduces."""
    return kind(
        monitor="val_loss", mode="max", min_delta=5.0, patience=2, cooldown=2
    )


def averaged_case(*, swap_on_epoch: bool) -> Case:
    """Trains with `SwapEMAWeights`."""
    return Case(
        averaged,
        data,
        epochs=EPOCHS,
        callbacks=lambda: [
            keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
        ],
    )


def case_of(callbacks: Callable[[], list[Any]]) -> Case:
    """Trains with these callbacks."""
    return Case(model, data, epochs=EPOCHS, callbacks=callbacks)


CASES: dict[str, Case] = {
    "EarlyStopping": case_of(lambda: [early_stopping()]),
    "a subclass of EarlyStopping": case_of(lambda: [early_stopping(Patient)]),
    "ReduceLROnPlateau": case_of(lambda: [reduce_lr()]),
    "a subclass of ReduceLROnPlateau": case_of(lambda: [reduce_lr(Plateau)]),
    "LearningRateScheduler": case_of(
        lambda: [
            keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.7)
        ]
    ),
    "SwapEMAWeights": averaged_case(swap_on_epoch=False),
    "SwapEMAWeights at epochs": averaged_case(swap_on_epoch=True),
    "a user's with get_state": case_of(lambda: [SlowerThatSpeaks()]),
    "a user's with arrays": case_of(lambda: [SlowerByArrays()]),
}


@PLACES
@pytest.mark.parametrize("name", CASES)
def test_callback_goes_on(name: str, place: str, tmp_path: Path) -> None:
    """
    A training with this callback behind or before ours, cut off in epochs
    and between two, ends with the same bits as without interruption.
    """
    assert_goes_on(CASES[name], tmp_path / "run", place=place)


def test_cases_change_the_training() -> None:
    """
    Each of these callbacks does something that the end shows: else its
    state would not matter.
    """
    plain = {
        model: undisturbed(Case(model, data, epochs=EPOCHS))
        for model in (model, averaged)
    }
    for name, case in CASES.items():
        assert plain[case.model].variables != undisturbed(case).variables, name


def test_all_together(tmp_path: Path) -> None:
    """
    Several callbacks, two of one class among them, with ours in the middle
    of them, before them and behind them, one place an attempt.
    """
    case = case_of(
        lambda: [
            SlowerByArrays(),
            early_stopping(),
            reduce_lr(),
            keras.callbacks.EarlyStopping("loss", mode="max", patience=4),
            SlowerThatSpeaks(),
        ]
    )
    expected = undisturbed(case)
    assert [0, 1, 2, 3] == expected.history["epoch"]
    for cut, place in zip(cuts_in_the_middle(), (FIRST, LAST), strict=True):
        assert attempt(case, tmp_path / "run", cut, place=place) is None
    actual = attempt(case, tmp_path / "run", place=MIDDLE)
    assert actual is not None
    assert expected.history == actual.history
    assert expected.variables == actual.variables


@PLACES
def test_stopped_and_cut_off_before_the_end(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Cut off after `EarlyStopping` has stopped the training and before it has
    put the best weights back, the next attempt trains nothing, puts them
    back, and says the right epochs.
    """

    def callbacks() -> list[Any]:
        stopping = early_stopping()
        stopping.verbose = 1
        return [stopping]

    case = case_of(callbacks)
    expected = undisturbed(case)
    said = capsys.readouterr().out
    assert "Epoch 4: early stopping" in said
    assert "best epoch: 2." in said
    cuts = [CutAt(10), CutAtTheEnd()]
    for cut in cuts:
        assert attempt(case, tmp_path / "run", cut, place=place) is None
    capsys.readouterr()
    actual = attempt(case, tmp_path / "run", place=place)
    assert actual is not None
    assert [] == actual.batches
    assert expected.history == actual.history
    assert expected.variables == actual.variables
    assert said == capsys.readouterr().out


@PLACES
def test_terminate_on_nan(place: str, tmp_path: Path) -> None:
    """
    What `TerminateOnNaN` ends in the middle of an epoch ends at the same
    batch after interruptions, and is not trained again.
    """
    case = case_of(
        lambda: [
            keras.callbacks.LearningRateScheduler(
                lambda epoch, lr: 1e30 if epoch == 2 else lr
            ),
            keras.callbacks.TerminateOnNaN(),
        ]
    )
    expected = undisturbed(case)
    assert 2 == expected.batches[-1][0]
    assert len(expected.batches) < 3 * TURNS
    cuts = [CutAt(10), CutAt(6), CutAt(hook="on_epoch_end:2")]
    assert_goes_on(case, tmp_path / "run", place=place, cuts=cuts)
    again = attempt(case, tmp_path / "run", place=place)
    assert again is not None
    assert [] == again.batches
    assert expected.history == again.history
    assert expected.variables == again.variables


# Files of callbacks.


def weights_in(path: Path) -> dict[str, bytes]:
    """The bits of the weights in a file of Keras', by name."""
    found: dict[str, bytes] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item).tobytes()

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize(("mode", "place"), [("min", FIRST), ("max", LAST)])
def test_best_model_survives(mode: str, place: str, tmp_path: Path) -> None:
    """
    A worse model never replaces the better one that `ModelCheckpoint` saved
    before an interruption.
    """
    saver: list[Any] = []

    def saving(name: str) -> Case:
        def callbacks() -> list[Any]:
            saver.append(
                keras.callbacks.ModelCheckpoint(
                    tmp_path / name,
                    "val_loss",
                    mode=mode,
                    save_best_only=True,
                    save_weights_only=True,
                )
            )
            return saver[-1:]

        return case_of(callbacks)

    expected = attempt(saving("expected.weights.h5"), None)
    assert expected is not None
    losses = [float.fromhex(v) for v in expected.history["val_loss"]]
    best = min(losses) if mode == "min" else max(losses)
    assert best == saver[-1].best
    for cut in cuts_in_the_middle():
        case = saving("actual.weights.h5")
        assert attempt(case, tmp_path / "run", cut, place=place) is None
    attempt(saving("actual.weights.h5"), tmp_path / "run", place=place)
    assert best == saver[-1].best
    assert weights_in(tmp_path / "expected.weights.h5") == weights_in(
        tmp_path / "actual.weights.h5"
    )


@PLACES
def test_model_checkpoint_every_few_batches(place: str, tmp_path: Path) -> None:
    """
    `ModelCheckpoint(save_freq=4)` writes the same files after the same
    batches of the same epochs.
    """

    def saving(name: str) -> Case:
        return case_of(
            lambda: [
                keras.callbacks.ModelCheckpoint(
                    tmp_path / name / "{epoch}-{batch}.weights.h5",
                    save_weights_only=True,
                    save_freq=4,
                )
            ]
        )

    def files(name: str) -> dict[str, dict[str, bytes]]:
        return {
            path.name: weights_in(path) for path in (tmp_path / name).iterdir()
        }

    attempt(saving("expected"), None)
    for cut in cuts_in_the_middle():
        attempt(saving("actual"), tmp_path / "run", cut, place=place)
    attempt(saving("actual"), tmp_path / "run", place=place)
    assert EPOCHS * TURNS // 4 == len(files("expected"))
    assert sorted(files("expected")) == sorted(files("actual"))
    assert files("expected") == files("actual")


@pytest.mark.parametrize(
    ("append", "before", "place"),
    [
        (False, "", FIRST),
        (False, "of an earlier training\r\n", LAST),
        (True, "", LAST),
        (True, "of an earlier training\r\n", FIRST),
    ],
)
def test_rows_of_the_csv_logger(
    append: bool, before: str, place: str, tmp_path: Path
) -> None:
    """
    The file of a `CSVLogger` has each epoch once, and one header at most, as
    without interruption.
    """
    loggers: list[Any] = []

    def logged(name: str) -> Case:
        def callbacks() -> list[Any]:
            logger = keras.callbacks.CSVLogger(tmp_path / name, append=append)
            loggers.append(logger)
            return [logger]

        return case_of(callbacks)

    for name in ("expected.csv", "actual.csv"):
        (tmp_path / name).write_text(before, newline="")
    attempt(logged("expected.csv"), None)
    for cut in (CutAt(10), CutAt(hook="on_epoch_end:2")):
        attempt(logged("actual.csv"), tmp_path / "run", cut, place=place)
        loggers[-1].csv_file.close()  # As the end of its process would.
    expected = (tmp_path / "expected.csv").read_bytes()
    for _ in range(2):  # The second of them has nothing left to train.
        attempt(logged("actual.csv"), tmp_path / "run", place=place)
        assert expected == (tmp_path / "actual.csv").read_bytes()


@PLACES
def test_steps_of_tensorboard(place: str, tmp_path: Path) -> None:
    """
    What Keras' `TensorBoard` writes for each batch, epoch and validation goes
    on at the right steps, with the values of an undisturbed training.
    """
    tf = pytest.importorskip(
        "tensorflow", reason="Keras' TensorBoard writes with TensorFlow"
    )
    boards: list[Any] = []
    default_steps: dict[str, list[int]] = {"expected": [], "actual": []}

    def logged(name: str) -> Case:
        def callbacks() -> list[Any]:
            boards.append(
                keras.callbacks.TensorBoard(tmp_path / name, update_freq=1)
            )
            told = keras.callbacks.LambdaCallback(
                on_test_batch_begin=lambda batch, logs: default_steps[
                    name
                ].append(int(tf.summary.experimental.get_step()))
            )
            return [boards[-1], told]

        return Case(model, data, epochs=3, callbacks=callbacks)

    attempt(logged("expected"), None)
    for cut in (CutAt(5), CutAt(7), CutAt(hook="on_epoch_begin:2")):
        ended = attempt(logged("actual"), tmp_path / "run", cut, place=place)
        assert ended is None
        boards[-1]._pop_writer()  # As the end of its process would.
        boards[-1]._close_writers()
    attempt(logged("actual"), tmp_path / "run", place=place)
    expected = summaries_in(tmp_path / "expected")
    actual = summaries_in(tmp_path / "actual")
    assert list(range(1, 22)) == [
        step for step, _ in expected["train/batch_loss"]
    ]
    assert expected.keys() == actual.keys()
    for name, points in expected.items():
        # Written again is what was not saved before the cut, and the same.
        assert points == list(dict.fromkeys(actual[name])), name
    written = len(actual["train/batch_loss"])
    assert written <= len(expected["train/batch_loss"]) + 2
    assert default_steps["expected"] == default_steps["actual"]


def summaries_in(directory: Path) -> dict[str, list[tuple[int, str]]]:
    """The steps and values by name, as they were written."""
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_file_loader import (
        EventFileLoader,
    )

    found: dict[str, list[tuple[int, str]]] = {}
    files = sorted(directory.rglob("events.*"), key=lambda f: f.stat().st_mtime)
    for file in files:
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag.startswith(("batch_", "epoch_", "evaluation_")):
                    number = float(tf.make_ndarray(value.tensor))
                    name = f"{file.parent.name}/{value.tag}"
                    found.setdefault(name, []).append(
                        (event.step, number.hex())
                    )
    return found


# What other callbacks see.


def telling(log: list[Any]) -> keras.callbacks.Callback:
    """A `LambdaCallback` that writes down each hook and what it is given."""

    def told(hook: str) -> Callable[..., None]:
        def write(*args: Any, logs: Any = None) -> None:
            given = logs if logs is not None else args[-1]
            number = args[0] if isinstance(args[0] if args else {}, int) else 0
            values = {
                key: float(value).hex()
                for key, value in (
                    given if isinstance(given, dict) else {}
                ).items()
            }
            log.append((hook, number, values))

        return write

    return keras.callbacks.LambdaCallback(
        **{
            hook: told(hook)
            for hook in (
                *("on_train_begin", "on_epoch_begin", "on_train_batch_begin"),
                *("on_train_batch_end", "on_test_begin", "on_test_batch_begin"),
                *("on_test_batch_end", "on_test_end", "on_epoch_end"),
                "on_train_end",
            )
        }
    )


@pytest.mark.parametrize(
    ("steps_per_execution", "place"), [(1, FIRST), (1, LAST), (3, FIRST)]
)
def test_hooks_of_others(
    steps_per_execution: int, place: str, tmp_path: Path
) -> None:
    """
    After an interruption another callback is called as if the batches that
    are done had never been there: the right numbers, logs and order.
    """

    def compiled() -> keras.Model:
        built = model()
        built.compile(
            keras.optimizers.Adam(0.05),
            "mse",
            metrics=["mae"],
            steps_per_execution=steps_per_execution,
        )
        return built

    logs: list[list[Any]] = []

    def callbacks() -> list[Any]:
        logs.append([])
        return [telling(logs[-1])]

    case = Case(compiled, data, epochs=3, callbacks=callbacks)
    attempt(case, None)
    expected = logs[-1]
    turns = -(-TURNS // steps_per_execution)
    cuts = [CutAt(turns + 2), CutAt(hook="on_epoch_begin:2"), CutAtTheEnd()]
    for cut in cuts:
        assert attempt(case, tmp_path, cut, place=place) is None
    attempt(case, tmp_path, place=place)
    attempt(case, tmp_path, place=place)
    begin = expected[0]
    epoch = expected.index(("on_epoch_begin", 1, {}))
    batch = expected.index(
        ("on_train_batch_begin", steps_per_execution, {}), epoch
    )
    third = expected.index(("on_epoch_begin", 2, {}))
    done = 1 if place == FIRST else 0  # Ours last: the cut comes first.
    # Cut off in the second turn of the second epoch.
    assert expected[: batch + 1 + done] == logs[1]
    # From there to the begin of the third epoch.
    assert [begin, expected[epoch], *expected[batch : third + done]] == logs[2]
    # From there to the end; and then there is nothing to do.
    assert [begin, *expected[third : len(expected) - 1 + done]] == logs[3]
    nothing = ("on_train_end", 0, {})  # As Keras, when it trains no epoch.
    assert [begin, nothing] == logs[4] == logs[5]


def shown(printed: str) -> dict[str, list[str]]:
    """What a progress bar shows, by epoch, without colours and times."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    parts = re.split(r"Epoch (\d+/\d+)", text)[1:]
    return {
        epoch: re.findall(r"(\d+/\d+) .*?step - ([^\x08\r\n]*)", part)
        for epoch, part in zip(parts[::2], parts[1::2], strict=True)
    }


@PLACES
@pytest.mark.parametrize("verbose", [1, 2])
def test_progress_bar(
    verbose: int,
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    The progress bar goes on in the right epoch, after the batches that are
    done, up to the last one and no further, with the right numbers.
    """
    case = Case(model, data)
    attempt(case, None, verbose=verbose)
    expected = shown(capsys.readouterr().out)
    assert ["1/3", "2/3", "3/3"] == list(expected)
    attempt(case, tmp_path, CutAt(10), place=place, verbose=verbose)
    assert ["1/3", "2/3"] == list(shown(capsys.readouterr().out))
    attempt(case, tmp_path, place=place, verbose=verbose)
    actual = shown(capsys.readouterr().out)
    assert ["2/3", "3/3"] == list(actual)
    for epoch, lines in actual.items():
        assert expected[epoch][-1] == lines[-1]
        assert "7/7" == lines[-1][0]
        assert "val_loss" in lines[-1][1]
        counts = [int(count.partition("/")[0]) for count, _ in lines]
        assert counts == sorted(counts)
        assert {"7"} == {count.partition("/")[2] for count, _ in lines}
    # Two batches of the second epoch were done.
    assert {1: "3/7", 2: "7/7"}[verbose] == actual["2/3"][0][0]
    attempt(case, tmp_path, place=place, verbose=verbose)
    assert "Epoch" not in capsys.readouterr().out


# Who keeps state and does not say so.


def test_stranger_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A callback that keeps state and does not say what it is, is named once in
    an attempt, with the attribute and the cure.
    """
    case = Case(model, data, callbacks=lambda: [Slower()])
    for cut in (CutAt(10), None):
        attempt(case, tmp_path, cut)
        said = capsys.readouterr().err
        assert 1 == said.count("the callback Slower keeps state (epochs)")
        assert 1 == said.count("keeps state")
        assert "get_state() and set_state(state)" in said


def subclass_of(name: str) -> Any:
    """A user's subclass that adds nothing."""
    return type(f"My{name}", (getattr(keras.callbacks, name),), {})


KERAS_OWN: dict[str, Callable[[Any, Path], Any]] = {
    "EarlyStopping": lambda kind, _: early_stopping(kind),
    "ReduceLROnPlateau": lambda kind, _: reduce_lr(kind),
    "ModelCheckpoint": lambda kind, path: kind(
        path / "a.weights.h5", save_weights_only=True, save_freq=2
    ),
    "LearningRateScheduler": lambda kind, _: kind(lambda epoch, lr: lr * 0.7),
    "CSVLogger": lambda kind, path: kind(path / "a.csv"),
    "SwapEMAWeights": lambda kind, _: kind(swap_on_epoch=True),
    "TerminateOnNaN": lambda kind, _: kind(),
    "LambdaCallback": lambda kind, _: kind(on_epoch_end=lambda *_: None),
    "TensorBoard": lambda kind, path: kind(path / "logs", update_freq=1),
}


@pytest.mark.parametrize(
    ("name", "subclassed"),
    [
        *((name, False) for name in KERAS_OWN),
        *((name, True) for name in KERAS_OWN),
    ],
)
def test_nobody_else_is_named(
    name: str,
    subclassed: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    Keras' own callbacks and subclasses that add nothing are not named.
    """
    if name == "TensorBoard":
        pytest.importorskip(
            "tensorflow", reason="Keras' TensorBoard writes with TensorFlow"
        )
    kind = subclass_of(name) if subclassed else getattr(keras.callbacks, name)
    case = Case(
        averaged, data, callbacks=lambda: [KERAS_OWN[name](kind, tmp_path)]
    )
    attempt(case, tmp_path / "run")
    assert "keeps state" not in capsys.readouterr().err


def test_subclass_that_adds_state_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Of a subclass of Keras' own only what it adds is named: the rest is kept.
    """

    class Counting(keras.callbacks.EarlyStopping):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epochs_begun = getattr(self, "epochs_begun", 0) + 1

    case = Case(model, data, callbacks=lambda: [early_stopping(Counting)])
    attempt(case, tmp_path)
    said = capsys.readouterr().err
    assert 1 == said.count("the callback Counting keeps state (epochs_begun)")


def test_attributes_are_those_of_keras() -> None:
    """
    What is kept of Keras' own callbacks is what they have in the Keras that
    is installed; a renamed attribute would be lost without a word.
    """
    from colab_keras_bg.training_state.callback_states import _ATTRIBUTES

    looked_at = 0
    for name, attributes in _ATTRIBUTES.items():
        kind = getattr(keras.callbacks, name, None)
        if kind is None:  # Newer than this Keras.
            continue
        source = "".join(
            inspect.getsource(base)
            for base in kind.__mro__
            if base.__module__.startswith("keras.")
        )
        missing = [a for a in attributes if f"self.{a} = " not in source]
        assert not missing, f"{name} of Keras {keras.__version__}"
        looked_at += len(attributes)
    assert looked_at > 10


class Recompiling(keras.callbacks.Callback):
    """Gives the model a new optimizer of the same kind, in a late epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 3:
            self._model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
            self._model.optimizer.build(self._model.trainable_variables)
            self._model.make_train_function()


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras on JAX cannot"
)
def test_an_optimizer_made_in_a_late_epoch(tmp_path: Path) -> None:
    """
    What is saved is what the optimizer in use holds, also where it was
    exchanged for one with as many variables.
    """
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    with bg.Run(tmp_path / "run", save_freq="epoch") as run:
        model.fit(
            X,
            Y,
            epochs=5,
            verbose=0,
            callbacks=[*run.callbacks(), Recompiling()],
        )
    other = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    other.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    other.optimizer.build(other.trainable_variables)
    bg.restore(other, tmp_path / "run", only="optimizer/*")
    for saved, held in zip(
        other.optimizer.variables, model.optimizer.variables, strict=True
    ):
        assert np.array_equal(saved.numpy(), held.numpy())


class Patience(keras.callbacks.EarlyStopping):
    """One of Keras' with a state of its own besides."""

    SCORES = (5, 1, 2, 3, 4, 4.5, 3, 3, 3, 3)

    def __init__(self) -> None:
        super().__init__(
            monitor="score", mode="max", patience=4, restore_best_weights=True
        )
        self.seen = 0

    def get_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def set_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen += 1
        super().on_epoch_end(epoch, {"score": self.SCORES[epoch]})


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_subclass_that_speaks_for_itself(epoch: int, tmp_path: Path) -> None:
    """
    A subclass of Keras' own that says what it adds keeps what Keras' class
    keeps, too.
    """
    made: list[Patience] = []

    def patience() -> list[Any]:
        made.append(Patience())
        return [made[-1]]

    case = Case(model, data, epochs=10, callbacks=patience)
    cuts = [CutAt(hook=f"on_epoch_begin:{epoch}")]
    assert_goes_on(case, tmp_path, place=FIRST, cuts=cuts)
    assert made[-1].seen == 5
    assert made[-1].best == 5


def test_history_keeps_its_types(tmp_path: Path) -> None:
    """Arrays, tuples and NumPy's numbers in a history stay what they are."""

    class Reporting(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["array"] = np.full((2, 2), epoch / 3, dtype=np.float32)
            logs["number"] = np.float16(epoch)
            logs["pair"] = (epoch, [float("inf"), None])

    def fit(cut: CutAt) -> Any:
        training._fits_done.clear()
        run = bg.Run(tmp_path / "run", save_freq=1)
        with contextlib.suppress(PowerCut), run:
            return model().fit(
                bg.data.arrays(X, Y, batch_size=BATCH),
                epochs=3,
                verbose=0,
                callbacks=[Reporting(), *run.callbacks(), cut],
            )

    fit(CutAt(hook="on_epoch_begin:2"))
    history = fit(CutAt()).history
    for epoch, array in enumerate(history["array"]):
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float32
        assert array.tolist() == np.full((2, 2), epoch / 3, "f4").tolist()
    assert [np.float16] * 3 == [type(n) for n in history["number"]]
    assert history["pair"] == [(n, [float("inf"), None]) for n in range(3)]


KEEPS: dict[str, Callable[[], Any]] = {
    "an array": lambda: np.zeros(3),
    "a large array": lambda: np.zeros((300, 300)),
    "a number of NumPy": lambda: np.float32(0),
    "a deque": lambda: collections.deque(maxlen=3),
    "a generator": lambda: np.random.default_rng(3),
    "a generator of Python": lambda: random.Random(3),
    "a metric": lambda: keras.metrics.Mean(),
    "a variable": lambda: keras.Variable(0.0),
    "an object of its own": lambda: Kept(),
    "a list of arrays": lambda: [np.zeros(2), np.zeros(2)],
    "a set": lambda: {0},
    "a list of lists": lambda: [[n] for n in range(3000)],
    "another model": lambda: keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1)]
    ),
}


class Kept:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0


def change(kept: Any) -> Any:
    """What becomes of it in an epoch."""
    if isinstance(kept, np.random.Generator | random.Random):
        kept.random()
    elif isinstance(kept, np.ndarray | np.generic):
        kept = kept + 1
    elif isinstance(kept, collections.deque):
        kept.append(1)
    elif isinstance(kept, keras.metrics.Metric):
        kept.update_state(1.0)
    elif isinstance(kept, keras.Variable):
        kept.assign(kept + 1.0)
    elif isinstance(kept, Kept):
        kept.count += 1
    elif isinstance(kept, list):
        kept[-1] = (
            [*kept[-1], 1] if isinstance(kept[-1], list) else kept[-1] + 1
        )
    elif isinstance(kept, set):
        kept.add(len(kept))
    else:
        kept.set_weights([w + 1 for w in kept.get_weights()])
    return kept


class Stranger(keras.callbacks.Callback):
    """Keeps something, and changes it or not."""

    def __init__(self, kept: Any, *, changes: bool) -> None:
        super().__init__()
        self.kept, self._changes = kept, changes

    def on_train_begin(self, logs: Any = None) -> None:
        self.also = [self.model, self.model.layers[0], float("nan")]
        self.best = float("nan")
        self.optimizer = self.model.optimizer

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._changes:
            self.kept = change(self.kept)


@pytest.mark.parametrize("changes", [True, False])
def test_whatever_a_stranger_keeps(
    changes: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What changes in a callback is named whatever it is; what only lies there,
    and the trained model and its parts, are not.
    """
    kinds = {name: type(name.title(), (Stranger,), {}) for name in KEEPS}

    def strangers() -> list[Any]:
        return [
            kinds[name](make(), changes=changes) for name, make in KEEPS.items()
        ]

    attempt(Case(model, data, callbacks=strangers), tmp_path)
    said = capsys.readouterr().err
    for kind in kinds.values():
        named = f"the callback {kind.__name__} keeps state (kept)"
        assert said.count(named) == changes, named
    assert said.count("keeps state") == changes * len(KEEPS)
