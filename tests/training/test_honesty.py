"""What cannot be exact is said once, with its cure, and the run goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from harness import Case, CutAt, train
from keras import layers
from models import BATCH, X, Y, everything, unbuilt

import colab_keras_bg as bg

ON_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="only TensorFlow's graphs show what a step does",
)


def arrays(batch_size: int = BATCH, seed: int = 3) -> Any:
    """What is trained on."""
    return (bg.data.arrays(X, Y, batch_size=batch_size, seed=seed),), {}


class Noisy(layers.Layer):
    """Noise, drawn as one should not."""

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return x + tf.random.normal(tf.shape(x))


class Counting(layers.Layer):
    """A Python function inside the step."""

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.ensure_shape(
            tf.py_function(lambda v: v, [x], tf.float32), x.shape
        )


class Outside(layers.Layer):
    """A variable that nothing of the model holds."""

    def __init__(self, variable: Callable[[], Any]) -> None:
        super().__init__()
        self.of = variable

    def call(self, x: Any) -> Any:
        return x * self.of()


def with_layer(layer: layers.Layer) -> keras.Model:
    """A model with a layer that is not exact."""
    model = keras.Sequential([keras.Input((12,)), layer, layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def outside() -> keras.Model:
    """A model that a variable of somebody else goes into."""
    import tensorflow as tf

    variable = tf.Variable(1.0, name="somebody_elses")
    return with_layer(Outside(lambda: variable))


STEPS = {
    "stateful random operations": (
        lambda: with_layer(Noisy()),
        ["stateful random operations (RandomStandardNormal)", "SeedGenerator"],
    ),
    "a Python function": (
        lambda: with_layer(Counting()),
        ["Python function (EagerPyFunc)", "variable of a layer"],
    ),
    "somebody else's variable": (
        outside,
        ["(somebody_elses:0)", "attributes of a layer"],
    ),
}


@ON_TENSORFLOW
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("steps", [1, 3])
def test_step_that_does_not_come_again(
    name: str,
    steps: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    A step that uses what no checkpoint holds is named after the first step,
    once, with the cure; `explain` says it beforehand.
    """
    make, said = STEPS[name]

    def model() -> keras.Model:
        made = make()
        made.steps_per_execution = steps
        return made

    assert train(Case(model, arrays), tmp_path / "run") is not None
    printed = capsys.readouterr().err
    assert all(text in printed for text in said)
    assert 1 == printed.count("not exact after an interruption")
    found = bg.explain(make(), X, Y)
    assert not found.exact
    assert all(text in str(found) for text in said)


def test_exact_step_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Nothing is said of a step with every kind of state that is saved.
    """
    assert train(Case(everything, arrays), tmp_path / "run") is not None
    assert "not exact" not in capsys.readouterr().err


def test_another_machine_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Going on with another version or accelerator is said, with what was and
    what is, and the run goes on from the same step.
    """
    from colab_keras_bg.callbacks import agreement
    from colab_keras_bg.training_state.surroundings import surroundings

    case = Case(everything, arrays)
    with monkeypatch.context() as elsewhere:
        there = {**surroundings(), "accelerators": ["Tesla T4"], "keras": "3.9"}
        elsewhere.setattr(agreement, "surroundings", lambda: there)
        assert train(case, tmp_path / "run", cut=CutAt(4)) is None
    capsys.readouterr()
    seen: list[tuple[int, int]] = []
    assert train(case, tmp_path / "run", batches=seen) is not None
    said = capsys.readouterr().err
    assert (0, 3) == seen[0]
    assert f"keras was 3.9 and is {keras.__version__}" in said
    assert "accelerators was 1 x Tesla T4 and is -" in said
    assert "Use the same to be exact" in said


def unseeded() -> Iterator[Any]:
    """A generator that yields other batches each time."""
    own = np.random.default_rng()
    while True:
        chosen = own.integers(len(X), size=BATCH)
        yield X[chosen], Y[chosen]


def test_generator_that_does_not_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A generator that yields other batches than before is found out, and the
    run goes on from the same step.
    """
    case = Case(unbuilt, lambda: ((unseeded(),), {"steps_per_epoch": 5}))
    assert train(case, tmp_path / "run", cut=CutAt(4)) is None
    seen: list[tuple[int, int]] = []
    assert train(case, tmp_path / "run", batches=seen) is not None
    said = capsys.readouterr().err
    assert (0, 3) == seen[0]
    assert "did not yield again what it had yielded before" in said
    assert "bg.data.stream" in said


def test_progress_of_a_replay_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A replay says how many batches it has to draw, and how far it has come.
    """
    from data_cases import generator

    from colab_keras_bg.data import replay

    monkeypatch.setattr(replay, "_LINE_EVERY_BATCHES", 3)
    case = Case(
        unbuilt, lambda: ((generator(own_seed=1),), {"steps_per_epoch": 5})
    )
    assert train(case, tmp_path / "run", cut=CutAt(9)) is None
    capsys.readouterr()
    assert train(case, tmp_path / "run") is not None
    said = capsys.readouterr().err
    assert "drawing 8 batches again" in said
    lines = [line for line in said.splitlines() if "of 8 batches drawn" in line]
    assert [True, True] == [
        f"{number} of 8" in line
        for number, line in zip((3, 6), lines, strict=True)
    ]


def test_generator_that_replays_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Nothing is said of a generator that yields the same again.
    """
    from data_cases import generator

    case = Case(
        unbuilt, lambda: ((generator(own_seed=1),), {"steps_per_epoch": 5})
    )
    assert train(case, tmp_path / "run", cut=CutAt(7)) is None
    assert train(case, tmp_path / "run") is not None
    assert "did not yield" not in capsys.readouterr().err


def test_generator_in_two_fits_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A generator that an earlier fit has drawn from is named, once; a new one
    for each fit is not.
    """
    from data_cases import generator

    for again in (True, False):
        model, run_dir = unbuilt(), tmp_path / f"run-{again}"
        first = generator(own_seed=1)
        for data in (first, first if again else generator(own_seed=1)):
            model.fit(
                data,
                steps_per_epoch=2,
                verbose=0,
                callbacks=bg.unattended(run_dir),
            )
        said = capsys.readouterr().err
        assert again == said.count("drew from the same generator")


class Threaded(keras.utils.PyDataset):
    """Draws from NumPy's state in several threads."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return np.random.normal(size=(BATCH, 12)), Y[:BATCH]


def test_draws_in_several_threads_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A PyDataset whose workers draw from the global random state is named, with
    the cure.
    """
    case = Case(unbuilt, lambda: ((Threaded(workers=2),), {}))
    assert train(case, tmp_path / "run") is not None
    said = capsys.readouterr().err
    assert "Threaded draws from the global random state in several" in said
    assert "np.random.default_rng([seed, index])" in said


def test_generator_that_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A generator with fewer batches than were trained on is found out.
    """

    def of(batches: int) -> Any:
        def short() -> Iterator[Any]:
            for _ in range(batches):
                yield X[:BATCH], Y[:BATCH]

        return lambda: ((short(),), {"steps_per_epoch": 10})

    run_dir = tmp_path / "run"
    assert train(Case(unbuilt, of(20), epochs=2), run_dir, cut=CutAt(6)) is None
    with contextlib.suppress(Exception):  # Keras has nothing to train on.
        train(Case(unbuilt, of(3), epochs=2), run_dir)
    assert "ended after 3 of the 5 batches" in capsys.readouterr().err


CHANGES = {
    "steps_per_execution": (
        lambda: everything(steps_per_execution=2),
        arrays,
        "Compile with steps_per_execution=1",
    ),
    "the seed of the order": (
        everything,
        lambda: arrays(seed=4),
        "seed: was 3, is 4 now",
    ),
    "the batch size": (
        everything,
        lambda: arrays(batch_size=10),
        "batch_size: was 8, is 10 now",
    ),
    "the arrays": (
        everything,
        lambda: ((bg.data.arrays(X + 1, Y, batch_size=BATCH, seed=3),), {}),
        "the data is not what it was",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_change_is_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What was changed since the last attempt is said, and the run goes on from
    the same step.
    """
    model, data, said = CHANGES[name]
    run_dir = tmp_path / "run"
    assert train(Case(everything, arrays), run_dir, cut=CutAt(5)) is None
    capsys.readouterr()
    assert train(Case(model, data), run_dir) is not None
    printed = capsys.readouterr().err
    assert said in printed
    assert "continuing from step 4" in printed


def test_arrays_given_to_fit_have_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Other values in the arrays that `fit` is given are noticed, too.
    """

    def case(x: Any) -> Case:
        return Case(everything, lambda: ((x, Y), {"batch_size": BATCH}))

    assert train(case(X), tmp_path / "run", cut=CutAt(5)) is None
    assert train(case(X), tmp_path / "run", cut=CutAt(2)) is None
    assert "the data is not what it was" not in capsys.readouterr().err
    assert train(case(X + 1), tmp_path / "run") is not None
    assert "the data is not what it was" in capsys.readouterr().err


class Reordering(keras.utils.PyDataset):
    """Draws an order of its own and does not say where it is."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return X[:BATCH], Y[:BATCH]

    def on_epoch_end(self) -> None:
        pass


def test_dataset_that_changes_itself_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A PyDataset with a hook of its own and no get_state() is named once.
    """
    case = Case(unbuilt, lambda: ((Reordering(),), {}))
    assert train(case, tmp_path / "run") is not None
    said = capsys.readouterr().err
    assert 1 == said.count("the PyDataset Reordering has its own on_epoch_end")


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": 4},
        {"class_weight": {0: 1.0, 1: 2.0}},
        {"sample_weight": np.ones(len(X))},
    ],
    ids=lambda given: next(iter(given)),
)
def test_arguments_that_keras_ignores(
    given: dict[str, Any], tmp_path: Path
) -> None:
    """
    What Keras leaves alone without a word beside our own data is refused
    before anything is trained or stored.
    """
    case = Case(unbuilt, lambda: (arrays()[0], given))
    (name,) = given
    with pytest.raises(bg.errors.UsageError, match=f"ignores {name} beside"):
        train(case, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("*"))


def test_second_model_on_other_data(tmp_path: Path) -> None:
    """
    A second model of one program, trained on other data, is not given the
    first one's weights: it needs a run directory of its own.
    """

    def fold(number: int) -> None:
        model = unbuilt()
        model.fit(
            X[number * 8 :][:16],
            Y[number * 8 :][:16],
            epochs=2,
            verbose=0,
            callbacks=bg.unattended(tmp_path / "run"),
        )
        models.append(model)

    models: list[Any] = []
    fold(0)
    with pytest.raises(bg.errors.UsageError, match="directory of its own"):
        fold(1)


def test_second_model_of_a_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A second model on the same data, as when a cell is run again, goes on from
    what the first has learnt; that is said, for it may be meant otherwise.
    """

    def fit() -> keras.Model:
        model = unbuilt()
        model.fit(X, Y, verbose=0, callbacks=bg.unattended(tmp_path / "run"))
        return model

    first = fit()
    assert "another model" not in capsys.readouterr().err
    again = fit()
    assert 1 == capsys.readouterr().err.count(
        "another model of this program was trained in this run"
    )
    for weights, expected in zip(
        again.get_weights(), first.get_weights(), strict=True
    ):
        assert np.array_equal(expected, weights)


def test_validation_that_cannot_be_saved_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Validation data in another order each time, whose state TensorFlow cannot
    save, is named once before the training, and by `explain`.
    """
    tf = pytest.importorskip("tensorflow")

    def noisy() -> Any:
        dataset = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(9)
        return dataset.map(lambda x, y: (x + tf.random.normal([12]), y)).batch(
            BATCH
        )

    case = Case(unbuilt, lambda: (arrays()[0], {"validation_data": noisy()}))
    assert train(case, tmp_path / "run") is not None
    said = capsys.readouterr().err
    assert 1 == said.count("the state of the validation data cannot be saved")
    found = bg.explain(unbuilt(), X, Y, validation_data=noisy())
    assert [False] == [f.exact for f in found.findings if "vali" in f.part]


def test_validation_generator_that_does_not_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A generator to validate on that yields other batches than before is found
    out; one that yields the same again is not named.
    """
    from data_cases import generator

    for make, expected in (
        (unseeded, 1),
        (lambda: generator(own_seed=4), 0),
    ):
        run_dir = tmp_path / f"run-{expected}"
        given = {"validation_steps": 4}
        case = Case(
            unbuilt,
            lambda make=make, given=given: (
                arrays()[0],
                {"validation_data": make(), **given},
            ),
        )
        assert train(case, run_dir, cut=CutAt(9)) is None
        assert train(case, run_dir) is not None
        said = capsys.readouterr().err
        assert expected == said.count("of the validation data did not yield")
    found = bg.explain(unbuilt(), X, Y, validation_data=unseeded())
    assert [None] == [f.exact for f in found.findings if "vali" in f.part]


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("arrays", "arrays"),
        ("arrays", "bg.data.arrays"),
        ("arrays", "none"),
        ("none", "arrays"),
        pytest.param("bg.data.arrays", "arrays", marks=pytest.mark.slow),
        pytest.param("bg.data.arrays", "none", marks=pytest.mark.slow),
        pytest.param(*["bg.data.arrays"] * 2, marks=pytest.mark.slow),
        pytest.param("none", "bg.data.arrays", marks=pytest.mark.slow),
        pytest.param("none", "none", marks=pytest.mark.slow),
    ],
)
def test_validation_data_of_another_kind_is_named(
    then: str, now: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Data to validate on that is of another kind than it was is said, and the
    run goes on; data that is of the same kind, or only now there, is not.
    """
    kinds: dict[str, Callable[[], Any]] = {
        "arrays": lambda: (X, Y),
        "bg.data.arrays": lambda: bg.data.arrays(X, Y, batch_size=BATCH),
        "none": lambda: None,
    }

    def case(kind: str) -> Case:
        given = {"validation_data": kinds[kind]()}
        return Case(unbuilt, lambda: (arrays()[0], given))

    assert train(case(then), tmp_path / "run", cut=CutAt(9)) is None
    assert train(case(now), tmp_path / "run") is not None
    changed = then != now and "none" not in (then, now)
    said = "the data to validate on is of another kind than it was"
    assert changed == (said in capsys.readouterr().err)


class Alternating(keras.Model):
    """Counts its steps in Python, and goes by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1)
        self.count = 0

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        return super().compute_loss(*args, **options) * (self.count % 2)


@pytest.mark.parametrize("eagerly", [True, False])
def test_count_in_python_is_named(
    eagerly: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What a step keeps in an attribute of the model is named with the cure; not
    so if the step is traced, and changes it once.
    """

    def model() -> keras.Model:
        made = Alternating()
        made.compile("sgd", "mse", run_eagerly=eagerly)
        return made

    assert train(Case(model, arrays), tmp_path / "run") is not None
    said = capsys.readouterr().err
    steps_in_python = eagerly or keras.backend.backend() == "torch"
    assert said.count("model.count changes while") == steps_in_python
    assert said.count("variable of a layer") == steps_in_python
