"""A committed step becomes a file that others read, without the program."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from models import BATCH, X, Y

import colab_keras_bg as bg
from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.main import main
from colab_keras_bg.errors import UsageError
from colab_keras_bg.run_directory import RunDirectory
from colab_keras_bg.training_state.model_config import described, rebuilt


def functional() -> keras.Model:
    """A model of several kinds of layers, with an optimizer's state."""
    inputs = keras.Input((12,))
    x = layers.Rescaling(0.5)(inputs)
    x = layers.Dense(8, activation="gelu", kernel_regularizer="l2")(x)
    x = layers.Dropout(0.2, seed=3)(layers.BatchNormalization()(x))
    model = keras.Model(inputs, layers.Dense(1)(x))
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 30)
    model.compile(keras.optimizers.Adam(schedule), loss="mse", metrics=["mae"])
    return model


@keras.saving.register_keras_serializable("ours")
class Own(keras.Model):
    """A class that only its program knows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense = layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)


def own() -> keras.Model:
    """One of them, built."""
    model = Own()
    model.compile("sgd", "mse")
    model(X[:1])
    return model


def trained(run_dir: Path, make: Any = functional, **options: Any) -> Any:
    """A model after a `fit` whose run is kept."""
    keras.utils.set_random_seed(5)
    model = make()
    model.fit(
        bg.data.arrays(X, Y, batch_size=BATCH),
        epochs=3,
        verbose=0,
        callbacks=[bg.BackupAndRestore(run_dir, **options)],
    )
    return model


def test_keras_file(tmp_path: Path) -> None:
    """
    A `.keras` file holds the model with its weights, and the optimizer with
    its state.
    """
    model = trained(tmp_path / "run")
    assert 21 == bg.export(tmp_path / "run", tmp_path / "new" / "a.keras")
    loaded = keras.models.load_model(tmp_path / "new" / "a.keras")
    for found, expected in zip(
        loaded.weights + loaded.optimizer.variables,
        model.weights + model.optimizer.variables,
        strict=True,
    ):
        assert np.array_equal(found, expected), found.path
    assert [tmp_path / "new" / "a.keras"] == list((tmp_path / "new").iterdir())


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_weights_file(tmp_path: Path) -> None:
    """A `.weights.h5` file is read by the same model."""
    model = trained(tmp_path / "run")
    bg.export(tmp_path / "run", tmp_path / "a.weights.h5")
    other = functional()
    other.load_weights(tmp_path / "a.weights.h5")
    for found, expected in zip(
        other.get_weights(), model.get_weights(), strict=True
    ):
        assert np.array_equal(found, expected)


def test_saved_model(tmp_path: Path) -> None:
    """A directory is a SavedModel; without TensorFlow that is refused."""
    model = trained(tmp_path / "run")
    if importlib.util.find_spec("tensorflow") is None:
        with pytest.raises(UsageError, match="not installed here"):
            bg.export(tmp_path / "run", tmp_path / "saved")
        return
    import tensorflow as tf

    bg.export(tmp_path / "run", tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert np.allclose(loaded.serve(X), model.predict(X, verbose=0), atol=1e-6)


def normalizing() -> keras.Model:
    """A model with a layer that computes from its variables beforehand."""
    norm = layers.Normalization()
    norm.adapt(100 + 7 * X)
    model = keras.Sequential([keras.Input((12,)), norm, layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("kind", ["keras", "saved", "restored"])
def test_what_layers_derive_from_their_variables(
    kind: str, tmp_path: Path
) -> None:
    """`Normalization` computes with the values that were put in."""
    if kind == "saved" and keras.backend.backend() != "tensorflow":
        pytest.skip("a SavedModel is TensorFlow's")
    model = trained(tmp_path / "run", normalizing)
    expected = np.asarray(model(X))
    if kind == "restored":
        fresh = keras.Sequential(
            [keras.Input((12,)), layers.Normalization(), layers.Dense(1)]
        )
        bg.restore(fresh, tmp_path / "run")
        found = fresh(X)
    elif kind == "keras":
        bg.export(tmp_path / "run", tmp_path / "a.keras")
        found = keras.models.load_model(tmp_path / "a.keras")(X)
    else:
        import tensorflow as tf

        bg.export(tmp_path / "run", tmp_path / "a")
        loaded = tf.saved_model.load(str(tmp_path / "a"))
        found = loaded.serve(X.astype("float32"))
    assert np.allclose(np.asarray(found), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_a_file_called_weights(tmp_path: Path) -> None:
    """`weights.h5` is a name for weights, too."""
    model = trained(tmp_path / "run")
    bg.export(tmp_path / "run", tmp_path / "weights.h5")
    other = functional()
    (tmp_path / "weights.h5").rename(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    assert np.array_equal(other.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("step", [21, None])
@pytest.mark.parametrize("damaged", ["final", "checkpoints"])
def test_damage_beside_what_is_whole(
    step: int | None, damaged: str, tmp_path: Path
) -> None:
    """If the same step lies there twice, one that is whole suffices."""
    trained(tmp_path / "run")
    for path in (tmp_path / "run" / damaged).rglob("state-*"):
        path.write_bytes(b"{}")
    out = tmp_path / "a.keras"
    if (step, damaged) == (21, "checkpoints"):
        step = None
    assert 21 == bg.export(tmp_path / "run", out, step=step)
    assert out.exists()


def test_a_step_of_many(tmp_path: Path) -> None:
    """A step that is asked for is exported as it was then."""
    run_dir = tmp_path / "run"
    trained(run_dir, save_freq=1, keep_last=99)
    step = RunDirectory(run_dir).checkpoints.steps()[1]
    assert step == bg.export(run_dir, tmp_path / "a.keras", step=step)
    loaded = keras.models.load_model(tmp_path / "a.keras")
    model = functional()
    bg.restore(model, run_dir, step=step)
    for found, expected in zip(
        loaded.get_weights(), model.get_weights(), strict=True
    ):
        assert np.array_equal(found, expected)
    with pytest.raises(bg.errors.StepNotFoundError):
        bg.export(run_dir, tmp_path / "b.keras", step=99)
    assert not (tmp_path / "b.keras").exists()


def test_model_of_the_users_own(tmp_path: Path) -> None:
    """
    A class of the user's is never imported by its name, even if it is known
    here; with the model given it is exported.
    """
    run_dir = tmp_path / "run"
    model = trained(run_dir, own)
    with pytest.raises(UsageError, match=r"Own.*--model=module:function"):
        bg.export(run_dir, tmp_path / "a.keras")
    other = own()
    bg.export(run_dir, tmp_path / "a.weights.h5", model=other)
    assert np.array_equal(other.get_weights()[0], model.get_weights()[0])
    wrong = functional()
    with pytest.raises(UsageError, match="does not fit the model"):
        bg.export(run_dir, tmp_path / "b.keras", model=wrong)
    assert ["a.weights.h5", "run"] == sorted(p.name for p in tmp_path.iterdir())


def test_loss_of_the_users_own(tmp_path: Path) -> None:
    """A loss that Keras does not know is left out, and the model exported."""

    def mine(y: Any, predicted: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y - predicted))

    def make() -> keras.Model:
        model = functional()
        model.compile("adam", mine)
        return model

    model = trained(tmp_path / "run", make)
    bg.export(tmp_path / "run", tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert np.array_equal(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "saved"])
def test_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    """What is there under the name stays."""
    trained(tmp_path / "run")
    (tmp_path / name).write_text("dear")
    with pytest.raises(UsageError, match="exists already"):
        bg.export(tmp_path / "run", tmp_path / name)
    assert "dear" == (tmp_path / name).read_text()


@pytest.mark.parametrize("name", ["a.h5", "a.tflite", "a.PB", "a.onnx"])
def test_other_kinds(name: str, tmp_path: Path) -> None:
    """Kinds of files that are not written are refused by their name."""
    with pytest.raises(UsageError, match=r"ends in \.keras or \.weights\.h5"):
        bg.export(tmp_path, tmp_path / name)


def test_failing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off while it writes, an export leaves no file."""
    trained(tmp_path / "run")

    def fails(model: Any, target: Any, **_: Any) -> None:
        Path(target).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", fails)
    with pytest.raises(OSError, match="No space"):
        bg.export(tmp_path / "run", tmp_path / "a.keras")
    assert [tmp_path / "run"] == list(tmp_path.iterdir())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line exports, and says what."""
    run_dir, out = tmp_path / "run", tmp_path / "a.keras"
    trained(run_dir)
    assert main(["export", str(run_dir), f"--out={out}"]) == exit_status.DONE
    assert f"step 21 of {run_dir}: {out}\n" == capsys.readouterr().out
    assert out.exists()
    again = main(["export", str(run_dir), f"--out={out}"])
    assert (again, capsys.readouterr().out) == (exit_status.USAGE, "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Give --out"),
        (["--out=a.keras", "--step=-1"], "--step=-1"),
        (["--out=a.keras", "--model=no_such_module"], "give module:function"),
        (["--out=a.keras", "--model=no_such_module:f"], "no_such_module"),
        (["--out=a.keras", "--model=json:f"], "no attribute 'f'"),
    ],
)
def test_bad_usage(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What cannot be meant is said in one line."""
    trained(tmp_path / "run")
    status = main(["export", str(tmp_path / "run"), *arguments])
    assert status == exit_status.USAGE
    assert expected in capsys.readouterr().err


def test_model_made_by_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--model names a function of the user's that returns the model."""
    trained(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made_here.py").write_text(
        "from test_export import functional\ndef make(): return functional()\n"
    )
    flags = ["--out=a.weights.h5", "--model=made_here:make"]
    assert main(["export", "run", *flags]) == exit_status.DONE
    assert (tmp_path / "a.weights.h5").exists()


def hostile(change: Any) -> str:
    """A configuration that somebody has changed."""
    config = json.loads(described(functional()) or "")
    layer = config["config"]["layers"][2]
    change(config, layer)
    return json.dumps(config)


HOSTILE = {
    "a module": lambda c, la: la.update(module="os", class_name="system"),
    "a class of a module": lambda c, la: la.update(module="subprocess"),
    "a class behind a dot": lambda c, la: la.update(
        module="keras", class_name="layers.Lambda"
    ),
    "Lambda": lambda c, la: la.update(class_name="Lambda"),
    "code": lambda c, la: la["config"].update(
        activation={"class_name": "__lambda__", "config": {"value": "x"}}
    ),
    "a function of Keras that writes": lambda c, la: la["config"].update(
        activation={
            "class_name": "function",
            "module": "keras.saving",
            "config": "save_model",
            "registered_name": "save_model",
        }
    ),
    "a switch of Keras": lambda c, la: la["config"].update(
        activation={
            "class_name": "function",
            "module": "keras.config",
            "config": "enable_unsafe_deserialization",
            "registered_name": "enable_unsafe_deserialization",
        }
    ),
    "a file": lambda c, la: la.update(
        class_name="StringLookup", config={"vocabulary": "/etc/passwd"}
    ),
    "pickle": lambda c, la: la.update(class_name="TorchModuleWrapper"),
    "inside Keras": lambda c, la: la.update(module="keras.src.utils"),
    "no name": lambda c, la: la.update(class_name=7),
    "no module": lambda c, la: la.update(module=None),
    "depth": lambda c, la: la["config"].update(
        activation=json.loads("[" * 300 + "]" * 300)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configuration(name: str) -> None:
    """What is not of Keras alone is refused before Keras sees it."""
    with pytest.raises(UsageError, match="built by its program"):
        rebuilt(hostile(HOSTILE[name]))


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "7", "nonsense", "[[["])
def test_no_configuration(text: str | None) -> None:
    """So is what is no configuration at all."""
    with pytest.raises(UsageError):
        rebuilt(text)


def test_configuration_comes_back() -> None:
    """A model is described in full, without disturbing any random state."""
    model = functional()
    again = rebuilt(described(model))
    for layer, expected in zip(again.layers, model.layers, strict=True):
        assert layer.get_config() == expected.get_config()
    assert again.optimizer.get_config() == model.optimizer.get_config()


def test_configuration_is_in_each_checkpoint(tmp_path: Path) -> None:
    """Also in those of the middle of an epoch."""
    trained(tmp_path / "run", save_freq=4)
    store = RunDirectory(tmp_path / "run").checkpoints
    assert all(rebuilt(store.load(s).state["model"]) for s in store.steps())
