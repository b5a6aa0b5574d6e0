"""`bg.TensorBoard`, side by side with Keras' own in Keras' own scenarios.

Each scenario is one of Keras' tests of that class. Where there is no
TensorFlow, Keras' class does not work, and ours is held to what it showed
where there is.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from google.protobuf import text_format
from harness import UNWATCHED, CutAt, PowerCut, Settled
from keras import layers
from tensorboard.backend.event_processing.event_file_loader import (
    LegacyEventFileLoader,
)
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util.tensor_util import make_ndarray

import colab_keras_bg as bg
from colab_keras_bg.errors import UsageError
from colab_keras_bg.training_state import random_state

X, Y = np.ones((10, 10, 10, 1)), np.ones((10, 1))
BATCHES, EPOCHS = 5, 2
# By folder, plugin and tag: the steps at which something is shown.
Shown = dict[tuple[str, str, str], list[int]]
TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


def small(compiled: bool = True, **options: Any) -> keras.Model:
    """Keras' model for these tests."""
    model = keras.Sequential(
        [layers.Input((10, 10, 1)), layers.Flatten(), layers.Dense(1)],
        name="small",
    )
    if compiled:
        model.compile("sgd", "mse", **options)
    return model


def fit(model: keras.Model, *callbacks: Any, **more: Any) -> None:
    """Keras' training for these tests."""
    model.fit(
        X,
        Y,
        batch_size=2,
        **{"epochs": EPOCHS, "verbose": 0, **more},
        callbacks=[*callbacks],
    )


VALIDATED = {"validation_data": (X, Y)}


def basic(kind: Any, log_dir: Path) -> None:
    """Metrics at the ends of epochs."""
    fit(small(), kind(log_dir), **VALIDATED)


def across_invocations(kind: Any, log_dir: Path) -> None:
    """Two fits with one callback."""
    model, callback = small(), kind(log_dir)
    for _ in range(2):
        fit(model, callback, **VALIDATED)


def batch_metrics(kind: Any, log_dir: Path) -> None:
    """Metrics of batches."""
    fit(small(), kind(log_dir, update_freq=1), **VALIDATED)


def every_second_batch(kind: Any, log_dir: Path) -> None:
    """Metrics of some batches."""
    fit(small(metrics=["mae"]), kind(log_dir, update_freq=2))


def several_batches_at_once(kind: Any, log_dir: Path) -> None:
    """Executions of several batches."""
    fit(small(steps_per_execution=2), kind(log_dir, update_freq="batch"))


def learning_rate_schedule(kind: Any, log_dir: Path) -> None:
    """A learning rate that changes."""
    model = small(compiled=False)
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 1)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    fit(model, kind(log_dir))


def steps_per_second(kind: Any, log_dir: Path) -> None:
    """How fast it is."""
    shown = kind(log_dir, update_freq=1, write_steps_per_second=True)
    fit(small(), shown)


def weight_histograms(kind: Any, log_dir: Path) -> None:
    """Weights."""
    fit(small(), kind(log_dir, histogram_freq=1), **VALIDATED)


def convolutions() -> keras.Model:
    """A model with weights of all shapes."""
    model = keras.Sequential(
        [
            layers.Input((10, 10, 1)),
            layers.Conv2D(3, 9),
            layers.Conv2D(2, 1),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ],
        name="convolutions",
    )
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def weight_images(kind: Any, log_dir: Path) -> None:
    """Weights as images."""
    fit(convolutions(), kind(log_dir, histogram_freq=1, write_images=True))


def no_input_shape(kind: Any, log_dir: Path) -> None:
    """A model that is not built yet."""
    model = keras.Sequential([layers.Flatten(), layers.Dense(1)], name="late")
    model.compile("sgd", "mse")
    fit(model, kind(log_dir, write_graph=True))


def without_graph(kind: Any, log_dir: Path) -> None:
    """No graph."""
    fit(small(), kind(log_dir, write_graph=False))


def subclassed(kind: Any, log_dir: Path) -> None:
    """A model whose layers nobody knows."""

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.inner = keras.Sequential([layers.Flatten(), layers.Dense(1)])

        def call(self, x: Any) -> Any:
            return self.inner(x)

    model = Own()
    model.compile("sgd", "mse")
    fit(model, kind(log_dir))


def stopped_in_the_middle(kind: Any, log_dir: Path) -> None:
    """An epoch that is left in its middle."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 2

    fit(small(), kind(log_dir, update_freq=1), Stop(), **VALIDATED)


def evaluated_alone(kind: Any, log_dir: Path) -> None:
    """An evaluation alone."""
    model = small()
    fit(model)
    model.evaluate(X, Y, verbose=0, callbacks=[kind(log_dir)])


def loop_of_ones_own(kind: Any, log_dir: Path) -> None:
    """A training loop of a user's own."""
    callback, model = kind(log_dir, update_freq=1), small()
    callbacks = keras.callbacks.CallbackList([callback], model=model)
    callbacks.on_train_begin()
    for epoch in range(EPOCHS):
        callbacks.on_epoch_begin(epoch)
        for batch in range(3):
            callbacks.on_train_batch_begin(batch)
            logs = {"loss": model.train_on_batch(X[:2], Y[:2])}
            callbacks.on_train_batch_end(batch, logs)
        callbacks.on_epoch_end(epoch, {"loss": 1.0})
    callbacks.on_train_end()


SCENARIOS: dict[str, Callable[[Any, Path], None]] = {
    scenario.__name__: scenario
    for scenario in (
        basic,
        across_invocations,
        batch_metrics,
        every_second_batch,
        several_batches_at_once,
        learning_rate_schedule,
        steps_per_second,
        weight_histograms,
        weight_images,
        no_input_shape,
        without_graph,
        subclassed,
        stopped_in_the_middle,
        evaluated_alone,
        loop_of_ones_own,
    )
}
GRAPH = ("train", "graph_keras_model", "keras")
# The differences, as the class tells them: what ours shows where Keras shows
# something else, or nothing (None).
DIFFERENCES: dict[str, dict[tuple[str, str, str], list[int] | None]] = {
    "across_invocations": {
        # A second `fit` goes on behind the first, and is no second graph.
        ("train", "scalars", "epoch_loss"): [0, 1, 2, 3],
        ("train", "scalars", "epoch_learning_rate"): [0, 1, 2, 3],
        ("validation", "scalars", "epoch_loss"): [0, 1, 2, 3],
        GRAPH: [0],
    },
    "every_second_batch": {
        # Keras leaves an epoch out whose last batch is none of those.
        ("train", "scalars", "epoch_loss"): [0, 1],
        ("train", "scalars", "epoch_mae"): [0, 1],
        ("train", "scalars", "epoch_learning_rate"): [0, 1],
    },
    "several_batches_at_once": {
        # Batches are counted, not executions.
        ("train", "scalars", "batch_loss"): [2, 4, 5, 7, 9, 10],
    },
    # Where nothing is trained, no model is shown.
    "evaluated_alone": {GRAPH: None},
}


def shown_in(log_dir: Path) -> Shown:
    """All that is shown."""
    found: Shown = {}
    for path in sorted(log_dir.rglob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                folder = path.parent.relative_to(log_dir).as_posix()
                plugin = value.metadata.plugin_data.plugin_name
                key = (folder, plugin, value.tag)
                found.setdefault(key, []).append(event.step)
    return found


def without_numbers(shown: Shown) -> Shown:
    """Layers are numbered by how many there were before."""
    return {
        (folder, plugin, "/".join(p.rstrip("_0123456789") for p in parts)): s
        for (folder, plugin, tag), s in shown.items()
        for parts in [tag.split("/")]
    }


@pytest.mark.skipif(not TENSORFLOW, reason="Keras' class needs TensorFlow")
@pytest.mark.parametrize("name", SCENARIOS)
def test_as_keras_shows_it(name: str, tmp_path: Path) -> None:
    """
    Ours shows what Keras' shows, in the same folders, under the same tags, of
    the same kind and at the same steps, but for the differences told.
    """
    kinds = {"keras": keras.callbacks.TensorBoard, "ours": bg.TensorBoard}
    found = {}
    for kind, callback in kinds.items():
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        SCENARIOS[name](callback, tmp_path / kind)
        found[kind] = without_numbers(shown_in(tmp_path / kind))
    expected: dict[Any, Any] = {**found["keras"]}
    for key, steps in DIFFERENCES.get(name, {}).items():
        assert steps != expected[key], "no difference after all"
        expected[key] = steps
    expected = {key: steps for key, steps in expected.items() if steps}
    assert expected == found["ours"]


@pytest.mark.skipif(TENSORFLOW, reason="shown side by side")
@pytest.mark.parametrize("name", SCENARIOS)
def test_without_tensorflow(name: str, tmp_path: Path) -> None:
    """Without TensorFlow all of it works, and none of it is imported."""
    SCENARIOS[name](bg.TensorBoard, tmp_path)
    tags = {tag for _, _, tag in shown_in(tmp_path)}
    loss = "evaluation_loss_vs_iterations"
    assert (loss if name == "evaluated_alone" else "epoch_loss") in tags
    assert "tensorflow" not in sys.modules


@pytest.mark.skipif(not TENSORFLOW, reason="Keras' class needs TensorFlow")
def test_the_same_values(tmp_path: Path) -> None:
    """Numbers, histograms and images are those that Keras shows."""
    found = []
    for callback in (keras.callbacks.TensorBoard, bg.TensorBoard):
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        log_dir = tmp_path / callback.__module__
        shown = callback(
            log_dir, update_freq=1, histogram_freq=1, write_images=True
        )
        fit(convolutions(), shown, **VALIDATED)
        found.append(dict(values_in(log_dir)))
    theirs, ours = found
    assert theirs.keys() == ours.keys()
    for key, value in theirs.items():
        if key[1].endswith("/image"):
            assert pixels_of(value) == pixels_of(ours[key])
        elif value.dtype == object:
            assert value.shape == ours[key].shape
        else:
            np.testing.assert_allclose(value, ours[key], rtol=1e-5)


def values_in(log_dir: Path) -> Iterator[tuple[tuple[str, str, int], Any]]:
    """All values, by folder, tag and step."""
    for path in sorted(log_dir.rglob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                key = (path.parent.name, value.tag, event.step)
                yield key, np.asarray(make_ndarray(value.tensor))


def pixels_of(value: Any) -> list[Any]:
    """What images show, which may be packed in several ways."""
    import tensorflow as tf

    width, height, *images = value.tolist()
    pixels = [tf.io.decode_png(one).numpy().tolist() for one in images]
    return [width, height, *pixels]


@pytest.mark.parametrize(
    "address", ["gs://bucket/logs", "drive://folder/logs", "s3://bucket/logs"]
)
def test_a_network_address_is_refused(address: str) -> None:
    """What lies far away is refused when the callback is made."""
    with pytest.raises(UsageError) as raised:
        bg.TensorBoard(address)
    assert address in str(raised.value)
    if not address.startswith("s3"):
        assert 'bg.unattended("gs://' in str(raised.value)
    assert isinstance(raised.value, ValueError)


def test_a_mounted_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is a folder of a mounted Drive."""
    monkeypatch.setenv("COLAB_KERAS_BG_MOUNTED_FOLDERS", str(tmp_path))
    with pytest.raises(UsageError, match="run directory"):
        bg.TensorBoard(tmp_path / "logs")


@pytest.mark.parametrize(
    "arguments",
    [
        {"update_freq": 0},
        {"update_freq": True},
        {"update_freq": "step"},
        {"profile_batch": -1},
        {"profile_batch": (3, 2)},
        {"profile_batch": "one"},
        {"profile_batch": (1, 2, 3)},
    ],
    ids=str,
)
def test_what_cannot_be_meant(arguments: dict[str, Any]) -> None:
    """Arguments that cannot be meant are refused when it is made."""
    with pytest.raises(UsageError, match=next(iter(arguments))):
        bg.TensorBoard("logs", **arguments)


def test_a_log_that_is_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log that another callback has put in and is no number is told once."""

    class Adds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["name"] = "a text"

    fit(small(), Adds(), bg.TensorBoard(tmp_path))
    assert ("train", "scalars", "epoch_loss") in shown_in(tmp_path)
    assert 1 == capsys.readouterr().err.count("epoch_name is no number")


def embedding() -> keras.Model:
    """A model with a table."""
    model = keras.Sequential(
        [
            layers.Input((10,)),
            layers.Embedding(7, 3, name="words"),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    return model


def test_embeddings(tmp_path: Path) -> None:
    """The projector finds a table with the present values, and its labels."""
    model = embedding()
    shown = bg.TensorBoard(
        tmp_path, embeddings_freq=1, embeddings_metadata={"words": "words.tsv"}
    )
    x = np.ones((4, 10))
    model.fit(x, np.ones(4), epochs=2, verbose=0, callbacks=[shown])
    config = (tmp_path / "projector_config.pbtxt").read_text()
    read = text_format.Parse(config, ProjectorConfig()).embeddings
    assert [("words.tsv", "embeddings/words.tsv")] == [
        (one.metadata_path, one.tensor_path) for one in read
    ]
    table = np.loadtxt(tmp_path / read[0].tensor_path)
    values = keras.ops.convert_to_numpy(model.layers[0].embeddings)
    np.testing.assert_allclose(values, table, rtol=1e-6)


def test_embeddings_of_no_layer(tmp_path: Path) -> None:
    """Labels for a layer that there is not are refused, as by Keras."""
    shown = bg.TensorBoard(
        tmp_path, embeddings_freq=1, embeddings_metadata={"wrods": "words.tsv"}
    )
    with pytest.raises(ValueError, match=r"Unrecognized `Embedding`.*wrods"):
        embedding().fit(np.ones((4, 10)), np.ones(4), callbacks=[shown])


def test_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some batches are profiled where the backend can; if not, it is said."""
    fit(small(), bg.TensorBoard(tmp_path, profile_batch=(2, 3)))
    said = capsys.readouterr().err
    profiles = [*tmp_path.glob("train/plugins/profile/*/*.xplane.pb")]
    if "no profile is taken" in said:
        assert keras.backend.backend() != "tensorflow"
        assert profiles == []
    else:
        assert len(profiles) == 1


def test_draws_nothing_and_changes_nothing(tmp_path: Path) -> None:
    """
    With all that can be shown, a training ends with the bits it ends with
    otherwise, and random numbers are drawn as otherwise.
    """
    ends = []
    for callbacks in (
        [],
        [
            bg.TensorBoard(
                tmp_path,
                update_freq=1,
                histogram_freq=1,
                write_images=True,
                write_steps_per_second=True,
            )
        ],
    ):
        keras.utils.clear_session()
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [
                layers.Input((10, 10, 1)),
                layers.Flatten(),
                layers.Dropout(0.5),
                layers.Dense(8),
                layers.BatchNormalization(),
                layers.Dense(1),
            ]
        )
        model.compile("adam", "mse")
        history = model.fit(
            *(X, Y),
            batch_size=2,
            epochs=2,
            verbose=0,
            callbacks=callbacks,
            **VALIDATED,
        )
        weights = [w.tobytes() for w in model.get_weights()]
        drawn = repr(random_state.capture())
        ends.append((weights, history.history, drawn))
    assert ends[0] == ends[1]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow traces"
)
def test_nothing_is_traced_again(tmp_path: Path) -> None:
    """A step is traced as often as without."""
    traced = []

    class Counted(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, x: Any) -> Any:
            traced.append(1)
            return self.dense(layers.Flatten()(x))

    counts = []
    for callbacks in ([], [bg.TensorBoard(tmp_path, update_freq=1)]):
        traced.clear()
        model = Counted()
        model.compile("sgd", "mse")
        fit(model, *callbacks)
        counts.append(len(traced))
    assert counts[0] == counts[1]


def test_each_fit_of_a_run(tmp_path: Path) -> None:
    """
    Without a folder it goes into the run directory; the steps of batches are
    those of the run, and so are those of evaluations; epochs go on behind
    those of the `fit` before, also in another process.
    """
    for _ in range(2):  # The second time nothing is left to do.
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        with bg.Run(tmp_path / "run", **UNWATCHED) as run:
            model = small()
            for _ in range(2):
                fit(model, *run.callbacks(tensorboard=2), **VALIDATED)
            run.log(accuracy=0.5)
        assert {
            ("train", "scalars", "batch_loss"): [*range(2, 21, 2)],
            ("train", "scalars", "epoch_loss"): [0, 1, 2, 3],
            ("train", "scalars", "epoch_learning_rate"): [0, 1, 2, 3],
            ("validation", "scalars", "epoch_loss"): [0, 1, 2, 3],
            (
                "validation",
                "scalars",
                "evaluation_loss_vs_iterations",
            ): [5, 10, 15, 20],
        } == {
            key: steps
            for key, steps in shown_in(tmp_path / "run/tensorboard").items()
            if key != GRAPH and key[0] != "."
        }


@pytest.mark.parametrize("batches", [1, 3, 7])
def test_a_second_fit_that_is_interrupted(batches: int, tmp_path: Path) -> None:
    """Its epochs come behind those of the first, also when it goes on."""
    for cut in (batches, None):
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        with (
            contextlib.suppress(PowerCut),
            bg.Run(tmp_path / "run", save_freq=2, **UNWATCHED) as run,
        ):
            model = small()
            fit(model, *run.callbacks(tensorboard=1))
            cuts = [CutAt(cut)] if cut else []
            fit(model, *run.callbacks(tensorboard=1), Settled(run), *cuts)
    shown = shown_in(tmp_path / "run/tensorboard")
    assert [0, 1, 2, 3] == shown["train", "scalars", "epoch_loss"]
    assert [*range(1, 21)] == shown["train", "scalars", "batch_loss"]


@pytest.mark.skipif(not TENSORFLOW, reason="Keras' class needs TensorFlow")
def test_beside_that_of_keras(tmp_path: Path) -> None:
    """
    Keras' own in the same `fit` keeps its state, whether ours is there or
    not.
    """
    steps = []
    for cut, given in ((4, False), (4, 1), (None, False)):
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        theirs = keras.callbacks.TensorBoard(tmp_path / "keras", update_freq=1)
        with (
            contextlib.suppress(PowerCut),
            bg.Run(tmp_path / "run", save_freq=1, **UNWATCHED) as run,
        ):
            cuts = [CutAt(cut)] if cut else []
            ours = run.callbacks(tensorboard=given)
            fit(small(), *ours, theirs, Settled(run), *cuts)
        steps.append(theirs._global_train_batch)
    assert [4, 7, 10] == steps


def test_a_folder_elsewhere_beside_a_run(tmp_path: Path) -> None:
    """
    A folder of one's own goes with the run all the same; what lies there
    already stays.
    """
    fit(small(), bg.TensorBoard(tmp_path / "logs", update_freq=1))
    before = {p: p.read_bytes() for p in (tmp_path / "logs").rglob("*.v2")}
    with bg.Run(tmp_path / "run", **UNWATCHED) as run:
        shown = bg.TensorBoard(tmp_path / "logs", update_freq=1)
        fit(small(), shown, *run.callbacks(tensorboard=False))
    assert all(p.read_bytes() == content for p, content in before.items())
    assert [*range(1, 11)] * 2 == shown_in(tmp_path / "logs")[
        ("train", "scalars", "batch_loss")
    ]
    assert not (tmp_path / "run/tensorboard").exists()


@pytest.mark.parametrize("given", [True, False, "epoch", 5])
def test_unattended(given: Any, tmp_path: Path) -> None:
    """The protection in one line shows the training, unless told not to."""
    fit(small(), *bg.unattended(tmp_path / "run", tensorboard=given))
    shown = shown_in(tmp_path / "run/tensorboard")
    steps = {True: [10], False: [], "epoch": [], 5: [5, 10]}[given]
    assert steps == shown.get(("train", "scalars", "batch_loss"), [])
    assert (("train", "scalars", "epoch_loss") in shown) == (given is not False)


@pytest.mark.parametrize("first", [True, False])
def test_one_of_the_user_s_own(first: bool, tmp_path: Path) -> None:
    """
    Beside the one that comes with a run, the user's own shows each step once:
    the other gives way.
    """
    with bg.Run(tmp_path, **UNWATCHED) as run:
        own = bg.TensorBoard(update_freq=1, write_graph=False)
        ours = run.callbacks(tensorboard=2)
        fit(small(), *([own, *ours] if first else [*ours, own]))
    shown = shown_in(tmp_path / "tensorboard")
    assert [*range(1, 11)] == shown["train", "scalars", "batch_loss"]
    assert [0, 1] == shown["train", "scalars", "epoch_loss"][:2]
    epochs = shown["train", "scalars", "epoch_loss"]
    assert epochs == [*range(len(epochs))]
    assert 10 % len(epochs) == 0


def test_one_of_the_user_s_own_that_is_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The same holds after a validation and for `evaluate`, and nothing appears
    where nobody has asked for it.
    """
    monkeypatch.chdir(tmp_path)
    own = bg.TensorBoard("mine", update_freq=1, write_graph=False)
    model = small()
    given = [*bg.unattended("run", tensorboard=2, **UNWATCHED), own]
    fit(model, *given, validation_split=0.2)
    shown = shown_in(tmp_path / "mine")
    steps = shown["train", "scalars", "batch_loss"]
    assert [*range(1, len(steps) + 1)] == steps
    epochs = shown["train", "scalars", "epoch_loss"]
    assert [*range(len(epochs))] == epochs
    tag = "evaluation_loss_vs_iterations"
    evaluated = shown["validation", "scalars", tag]
    assert len(epochs) == len(evaluated) == len(set(evaluated))
    assert not (tmp_path / "logs").exists()
    assert not shown_in(tmp_path / "run/tensorboard")
    model.evaluate(X, Y, verbose=0, callbacks=given[:-1])
    assert not (tmp_path / "logs").exists()
