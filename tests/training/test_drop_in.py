"""Our backup in the place of Keras'.

Each scenario runs with both classes. What comes out differently is looked up
in the docstring of ours, which lists the differences.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import colab_keras_bg as bg
from colab_keras_bg.errors import FingerprintMismatchError, UsageError
from colab_keras_bg.open_runs import open_run
from colab_keras_bg.report.status import read_status

THEIRS, OURS = keras.callbacks.BackupAndRestore, bg.BackupAndRestore
BOTH = pytest.mark.parametrize("backup_of", [THEIRS, OURS], ids=["Keras", "bg"])

_random = np.random.default_rng(4)
X = _random.random((10, 3)).astype("float32")
Y = _random.random((10, 1)).astype("float32")
BATCH, TURNS = 4, 3  # Three batches an epoch, the last of two.


class Counting(layers.Layer):
    """Counts in a variable how many batches have come through."""

    def build(self, shape: Any) -> None:
        self.batches = self.add_weight(
            shape=(), initializer="zeros", trainable=False
        )

    def call(self, x: Any) -> Any:
        self.batches.assign(self.batches + 1)
        return x


def model_of(
    *, units: int = 1, optimizer: str = "sgd", built: bool = True
) -> keras.Model:
    """A model that knows how many batches it was trained on."""
    given = [keras.Input((3,))] if built else []
    model = keras.Sequential([*given, Counting(), layers.Dense(units)])
    model.compile(optimizer, "mse")
    return model


def count_of(model: Any) -> int:
    """How many batches a model was trained on."""
    return int(model.layers[0].batches.value) if model.built else 0


class Interrupting(keras.callbacks.Callback):
    """Raises after so many batches or epochs."""

    def __init__(self, **after: int) -> None:
        super().__init__()
        self.left = dict(after)

    def _one_more(self, what: str) -> None:
        if what in self.left:
            self.left[what] -= 1
            if not self.left[what]:
                raise RuntimeError("an interruption")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._one_more("batches")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._one_more("ends")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._one_more("begins")

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class Following(keras.callbacks.Callback):
    """Writes down each epoch, batch, and what the model counted before it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, int]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.seen.append((self._epoch, batch, count_of(self.model)))

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class Waiting(keras.callbacks.Callback):
    """Waits for our saves, so that none is left out."""

    def __init__(self, backup_dir: str | Path) -> None:
        super().__init__()
        self._backup_dir = backup_dir

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        open_run(self._backup_dir).saves.wait()

    on_epoch_begin = on_train_batch_begin

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


@dataclass
class Outcome:
    """How a `fit` went on.

    Attributes:
        began: The epoch, the batch and the count with which it began; None
            if it trained nothing.
        count: What the model counted in the end.
        epochs: What the returned history says.
    """

    began: tuple[int, int, int] | None
    count: int
    epochs: list[int] = field(default_factory=list)


def fit(model: Any, backup: Any, epochs: int, *others: Any) -> Outcome:
    """One `fit` as Keras' scenarios have it; saves of ours are waited for."""
    following = Following()
    waiting = [Waiting(backup.backup_dir)] if isinstance(backup, OURS) else []
    history = model.fit(
        X,
        Y,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        callbacks=[backup, following, *waiting, *others],
    )
    began = following.seen[0] if following.seen else None
    return Outcome(began, count_of(model), list(history.epoch))


def interrupted(model: Any, backup: Any, epochs: int, **after: int) -> None:
    """A `fit` that does not come to its end."""
    with pytest.raises(RuntimeError, match="an interruption"):
        fit(model, backup, epochs, Interrupting(**after))


def listed(difference: str) -> None:
    """The docstring lists this difference."""
    assert difference in " ".join(str(OURS.__doc__).split())


def steps_in(backup_dir: Path) -> list[int]:
    """The steps of our checkpoints, oldest first."""
    return sorted(
        int(manifest.parent.name.removeprefix("step-"))
        for manifest in backup_dir.glob("checkpoints/*/manifest.json")
    )


# What it accepts.


def test_each_parameter_is_there() -> None:
    """
    Every parameter of Keras' class is one of ours, of the same name, at the
    same place, given in the same ways and with the same default, but for the
    one whose difference is listed.
    """
    theirs = inspect.signature(THEIRS.__init__).parameters
    ours = inspect.signature(OURS.__init__).parameters
    assert list(theirs) == list(ours)[: len(theirs)]
    differing = {}
    for name, parameter in theirs.items():
        assert parameter.kind == ours[name].kind
        if parameter.default != ours[name].default:
            differing[name] = (parameter.default, ours[name].default)
    assert {"delete_checkpoint": (True, False)} == differing
    listed("The backup is kept when `fit` ends")
    added = list(ours.values())[len(theirs) :]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in added)
    assert all(p.default is not inspect.Parameter.empty for p in added)


@BOTH
def test_arguments_by_place_and_by_name(backup_of: Any, tmp_path: Path) -> None:
    """
    Keras' arguments may be given by place, and are attributes then; nothing
    is made before `fit`.
    """
    backup_dir = str(tmp_path / "backup")
    by_place = backup_of(backup_dir, 5, True, True)
    by_name = backup_of(
        backup_dir=backup_dir,
        save_freq=5,
        double_checkpoint=True,
        delete_checkpoint=True,
    )
    for backup in (by_place, by_name):
        assert backup_dir == backup.backup_dir
        assert 5 == backup.save_freq
        assert backup.double_checkpoint is True
        assert backup.delete_checkpoint is True
        assert isinstance(backup, keras.callbacks.Callback)
    assert not (tmp_path / "backup").exists()


@BOTH
@pytest.mark.parametrize(
    "save_freq", ["batch", 0.15, 2.0, None, np.float32(3), np.int64(3)]
)
def test_save_freq_that_both_refuse(
    save_freq: Any, backup_of: Any, tmp_path: Path
) -> None:
    """
    What is neither `"epoch"` nor a whole number of Python's is refused, in
    Keras' words.
    """
    with pytest.raises(
        ValueError, match="Invalid value for argument `save_freq`"
    ) as raised:
        backup_of(tmp_path / "backup", save_freq=save_freq)
    assert f"save_freq={save_freq!s}" in str(raised.value).replace(
        repr(save_freq), str(save_freq)
    )


@BOTH
@pytest.mark.parametrize("backup_dir", ["", None])
def test_no_directory(backup_dir: Any, backup_of: Any) -> None:
    """
    An empty directory is refused, in Keras' words.
    """
    with pytest.raises(ValueError, match="Empty `backup_dir` argument passed"):
        backup_of(backup_dir, save_freq="epoch")


@pytest.mark.parametrize("save_freq", ["10m", "auto"])
def test_save_freq_that_only_we_accept(save_freq: str, tmp_path: Path) -> None:
    """
    A time and `"auto"` are ours.
    """
    with pytest.raises(ValueError, match="Invalid value"):
        THEIRS(tmp_path / "backup", save_freq=save_freq)
    assert save_freq == OURS(tmp_path / "backup", save_freq=save_freq).save_freq
    listed('`save_freq` also takes a time (`"10m"`) and `"auto"`')


@pytest.mark.parametrize("save_freq", [False, True, 0, -1])
def test_save_freq_that_only_keras_accepts(
    save_freq: int, tmp_path: Path
) -> None:
    """
    With what is no number of batches Keras saves at each, and we refuse it.
    """
    assert [1, 2, 3] == keras_saves(tmp_path / "keras", save_freq, epochs=1)
    with pytest.raises(UsageError, match="Invalid value"):
        OURS(tmp_path / "bg", save_freq=save_freq)
    listed(
        "`False`, `True` and numbers below 1, with which Keras saves at "
        "every batch, are refused"
    )


def test_addresses_far_away() -> None:
    """
    A bucket is taken by ours, and by Keras only where TensorFlow is
    installed; other addresses are refused.
    """
    if importlib.util.find_spec("tensorflow") is not None:
        assert THEIRS("gs://bucket/backup").backup_dir == "gs://bucket/backup"
    else:
        with pytest.raises(ValueError, match="requires installing TensorFlow"):
            THEIRS("gs://bucket/backup")
    assert OURS("gs://bucket/backup").backup_dir == "gs://bucket/backup"
    with pytest.raises(UsageError, match="s3://"):
        OURS("s3://bucket/backup")
    listed("or `gs://bucket/folder`, which is written")


# When it saves.


def keras_saves(backup_dir: Path, save_freq: Any, *, epochs: int) -> list[int]:
    """After how many batches Keras' class saves."""
    saved: list[int] = []

    class Watched(keras.Sequential):
        def save_weights(self, *args: Any, **kwargs: Any) -> Any:
            saved.append(count_of(self))
            return super().save_weights(*args, **kwargs)

    model = Watched([keras.Input((3,)), Counting(), layers.Dense(1)])
    model.compile("sgd", "mse")
    fit(model, THEIRS(str(backup_dir), save_freq=save_freq), epochs)
    return saved


@pytest.mark.parametrize(
    ("save_freq", "expected"),
    [
        ("epoch", [3, 6, 9]),
        (1, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (2, [2, 4, 6, 8]),
        (4, [4, 8]),
        (100, []),
    ],
)
def test_when_it_saves(
    save_freq: Any, expected: list[int], tmp_path: Path
) -> None:
    """
    Both save at the end of each epoch, or whenever so many batches have
    passed, across epochs; ours saves in the end as well.
    """
    assert expected == keras_saves(tmp_path / "keras", save_freq, epochs=3)
    backup = OURS(tmp_path / "bg", save_freq=save_freq, keep_last=100)
    fit(model_of(), backup, 3)
    assert sorted({*expected, 9}) == steps_in(tmp_path / "bg")
    listed("What `fit` ends with is always saved")
    listed("One that comes due during another is taken after it")


# Going on.


SAME, NEW = "the same objects", "a new model and callback"
OBJECTS = pytest.mark.parametrize("objects", [SAME, NEW])


def gone_on(
    make: Callable[[], Any],
    objects: str,
    *,
    epochs: int,
    between: Callable[[], Any] = lambda: None,
    **after: int,
) -> Outcome:
    """An interrupted `fit`, and then one for five epochs."""
    model, backup = model_of(), make()
    interrupted(model, backup, epochs, **after)
    between()
    if objects == NEW:
        model, backup = model_of(), make()
    return fit(model, backup, 5)


@OBJECTS
def test_cut_off_in_an_epoch(objects: str, tmp_path: Path) -> None:
    """
    After two batches Keras has saved both and trains them again, with what
    they taught; ours goes on at the batch after the last save, which the
    interruption left at the first, and ends at what was asked for.
    """
    theirs = gone_on(
        lambda: THEIRS(str(tmp_path / "keras"), save_freq=1),
        objects,
        epochs=2,
        batches=2,
    )
    assert Outcome((0, 0, 2), 17, [0, 1, 2, 3, 4]) == theirs
    ours = gone_on(
        lambda: OURS(str(tmp_path / "bg"), save_freq=1),
        objects,
        epochs=2,
        batches=2,
    )
    assert Outcome((0, 1, 1), 15, [0, 1, 2, 3, 4]) == ours
    listed("`fit` goes on at the batch after the last save")
    listed("Keras trains the interrupted epoch again")


@OBJECTS
def test_cut_off_at_the_end_of_an_epoch(objects: str, tmp_path: Path) -> None:
    """
    A callback that raises at the end of the second epoch comes after Keras'
    save and before ours, wherever it stands; both end at the same count.
    """
    theirs = gone_on(
        lambda: THEIRS(str(tmp_path / "keras"), save_freq="epoch"),
        objects,
        epochs=6,
        ends=2,
    )
    assert Outcome((2, 0, 6), 15, [2, 3, 4]) == theirs
    ours = gone_on(
        lambda: OURS(str(tmp_path / "bg"), save_freq="epoch"),
        objects,
        epochs=6,
        ends=2,
    )
    assert Outcome((1, 0, 3), 15, [0, 1, 2, 3, 4]) == ours
    listed("after all other callbacks have seen the step or the epoch's end")
    listed("`History` and the data's position are restored")
    listed("returns the later epochs")


@OBJECTS
def test_cut_off_between_epochs(objects: str, tmp_path: Path) -> None:
    """
    After a save at an epoch's end both go on with the next epoch.
    """
    theirs = gone_on(
        lambda: THEIRS(str(tmp_path / "keras")), objects, epochs=6, begins=3
    )
    assert Outcome((2, 0, 6), 15, [2, 3, 4]) == theirs
    ours = gone_on(
        lambda: OURS(str(tmp_path / "bg")), objects, epochs=6, begins=3
    )
    assert Outcome((2, 0, 6), 15, [0, 1, 2, 3, 4]) == ours


def damage_theirs(backup_dir: Path) -> None:
    """What a bad disk leaves of Keras' last backup."""
    (backup_dir / "latest.weights.h5").write_bytes(b"0")


def damage_ours(backup_dir: Path) -> None:
    """The same, of ours."""
    assert [3, 6] == steps_in(backup_dir)
    (tensors,) = backup_dir.glob("checkpoints/step-*6/tensors-*")
    tensors.write_bytes(b"0")


@OBJECTS
def test_damaged_backup(
    objects: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    With `double_checkpoint` both go on from the backup before a damaged one;
    ours says so.
    """
    theirs = gone_on(
        lambda: THEIRS(str(tmp_path / "keras"), double_checkpoint=True),
        objects,
        epochs=6,
        begins=3,
        between=lambda: damage_theirs(tmp_path / "keras"),
    )
    assert Outcome((1, 0, 3), 15, [1, 2, 3, 4]) == theirs
    capsys.readouterr()
    ours = gone_on(
        lambda: OURS(str(tmp_path / "bg"), double_checkpoint=True),
        objects,
        epochs=6,
        begins=3,
        between=lambda: damage_ours(tmp_path / "bg"),
    )
    assert Outcome((1, 0, 3), 15, [0, 1, 2, 3, 4]) == ours
    assert "skipped the checkpoint of step 6" in capsys.readouterr().err
    listed("A damaged one is passed over, with a message")


def test_damaged_backup_without_double_checkpoint(tmp_path: Path) -> None:
    """
    Without `double_checkpoint` Keras has no other backup and stops; ours has
    kept two all the same.
    """
    with pytest.raises(OSError, match=r"."):
        gone_on(
            lambda: THEIRS(str(tmp_path / "keras")),
            NEW,
            epochs=6,
            begins=3,
            between=lambda: damage_theirs(tmp_path / "keras"),
        )
    ours = gone_on(
        lambda: OURS(str(tmp_path / "bg")),
        NEW,
        epochs=6,
        begins=3,
        between=lambda: damage_ours(tmp_path / "bg"),
    )
    assert Outcome((1, 0, 3), 15, [0, 1, 2, 3, 4]) == ours
    listed("the newest two are kept, so `double_checkpoint` changes nothing")


@pytest.mark.parametrize("double_checkpoint", [False, True])
def test_two_are_kept(double_checkpoint: bool, tmp_path: Path) -> None:
    """
    Of our checkpoints the newest two are kept, whatever
    `double_checkpoint` is.
    """
    backup = OURS(tmp_path, double_checkpoint=double_checkpoint)
    interrupted(model_of(), backup, 6, begins=5)
    open_run(tmp_path).close(reason="the test has ended")
    assert [9, 12] == steps_in(tmp_path)


def test_model_that_is_not_built(tmp_path: Path) -> None:
    """
    Keras' class asks for a model that is built, unless the backend builds it
    before callbacks begin, as JAX does; ours trains and restores one that
    `fit` builds.
    """
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="must be built"):
            fit(model_of(built=False), THEIRS(str(tmp_path / "keras")), 1)
    else:
        fit(model_of(built=False), THEIRS(str(tmp_path / "keras")), 1)
    interrupted(model_of(built=False), OURS(tmp_path / "bg"), 2, begins=2)
    ours = fit(model_of(built=False), OURS(tmp_path / "bg"), 2)
    assert Outcome((1, 0, 3), 6, [0, 1]) == ours
    listed("The model need not be built before `fit`")


def test_backup_of_another_model(tmp_path: Path) -> None:
    """
    Both refuse the backup of a model of another shape; ours touches no
    variable before.
    """
    interrupted(model_of(), THEIRS(str(tmp_path / "keras")), 2, begins=2)
    with pytest.raises(ValueError, match="could not be loaded"):
        fit(model_of(units=2), THEIRS(str(tmp_path / "keras")), 2)
    interrupted(model_of(), OURS(tmp_path / "bg"), 2, begins=2)
    model = model_of(units=2)
    with pytest.raises(FingerprintMismatchError) as raised:
        fit(model, OURS(tmp_path / "bg"), 2)
    assert isinstance(raised.value, ValueError)
    assert 0 == count_of(model)
    listed(
        "A backup of another model or optimizer is refused before a variable "
        "is touched"
    )


def test_backup_of_another_optimizer(tmp_path: Path) -> None:
    """
    Keras goes on with a new optimizer, which it begins anew, and warns; ours
    refuses it.
    """
    interrupted(model_of(), THEIRS(str(tmp_path / "keras")), 2, begins=2)
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        theirs = fit(
            model_of(optimizer="adam"), THEIRS(str(tmp_path / "keras")), 2
        )
    assert Outcome((1, 0, 3), 6, [1]) == theirs
    interrupted(model_of(), OURS(tmp_path / "bg"), 2, begins=2)
    model = model_of(optimizer="adam")
    with pytest.raises(FingerprintMismatchError):
        fit(model, OURS(tmp_path / "bg"), 2)
    assert 0 == count_of(model)
    listed("A backup of another model or optimizer is refused")


def test_two_backups_in_one_fit(tmp_path: Path) -> None:
    """
    Keras writes two backups of one `fit`; ours is one a `fit`.
    """
    fit(
        model_of(),
        THEIRS(str(tmp_path / "a")),
        1,
        THEIRS(str(tmp_path / "b")),
    )
    with pytest.raises(UsageError, match="Two backups in one `fit`"):
        fit(model_of(), OURS(tmp_path / "c"), 1, OURS(tmp_path / "d"))
    listed("A `fit` takes one backup")


# When `fit` has ended.


def test_backup_when_fit_has_ended(tmp_path: Path) -> None:
    """
    Keras deletes the backup; ours is kept and marked done, unless
    `delete_checkpoint=True` asks for the same.
    """
    fit(model_of(), THEIRS(str(tmp_path / "keras")), 2)
    assert not (tmp_path / "keras").exists()
    fit(model_of(), OURS(tmp_path / "bg"), 2)
    assert "done" == read_status(tmp_path / "bg").state
    assert [3, 6] == steps_in(tmp_path / "bg")
    listed("The backup is kept when `fit` ends, and marked done")
    fit(model_of(), OURS(tmp_path / "deleted", delete_checkpoint=True), 2)
    assert not list((tmp_path / "deleted").rglob("*.safetensors"))
    listed("With `delete_checkpoint=True` it is deleted")


def test_files_of_others_when_fit_has_ended(tmp_path: Path) -> None:
    """
    Keras deletes the whole directory, whatever is in it; we delete what is
    ours.
    """
    for backup_of, left in ((THEIRS, False), (OURS, True)):
        backup_dir = tmp_path / backup_of.__module__
        backup_dir.mkdir()
        (backup_dir / "notes.txt").write_text("mine")
        fit(model_of(), backup_of(backup_dir, delete_checkpoint=True), 1)
        assert left == (backup_dir / "notes.txt").exists()
    listed("only our own files are")


@BOTH
def test_program_again_after_deletion(backup_of: Any, tmp_path: Path) -> None:
    """
    Once the backup is deleted, the same program trains from the beginning.
    """
    for _ in range(2):
        backup = backup_of(str(tmp_path / "backup"), delete_checkpoint=True)
        assert Outcome((0, 0, 0), 6, [0, 1]) == fit(model_of(), backup, 2)


def test_program_again_when_kept(tmp_path: Path) -> None:
    """
    With the backup kept, the same program trains nothing, has what was
    trained, and, with ours, the history as well.
    """
    outcomes = {}
    for backup_of in (THEIRS, OURS):
        backup_dir = tmp_path / backup_of.__module__
        for _ in range(2):
            backup = backup_of(str(backup_dir), delete_checkpoint=False)
            outcomes[backup_of] = fit(model_of(), backup, 2)
    assert Outcome(None, 6, []) == outcomes[THEIRS]
    assert Outcome(None, 6, [0, 1]) == outcomes[OURS]
    listed("running the program again trains nothing and returns the whole")


@pytest.mark.parametrize("epochs", [5, 6])
def test_more_epochs_when_kept(epochs: int, tmp_path: Path) -> None:
    """
    With the backup kept, a program that asks for more epochs than before
    trains the ones that are missing.
    """
    outcomes = {}
    for backup_of in (THEIRS, OURS):
        backup_dir = tmp_path / backup_of.__module__
        for asked in (2, epochs):
            backup = backup_of(str(backup_dir), delete_checkpoint=False)
            outcomes[backup_of] = fit(model_of(), backup, asked)
    expected = Outcome((2, 0, 6), 3 * epochs, list(range(2, epochs)))
    assert expected == outcomes[THEIRS]
    expected.epochs = list(range(epochs))
    assert expected == outcomes[OURS]


def test_second_fit_of_a_program(tmp_path: Path) -> None:
    """
    A second `fit` of a model trains, as with Keras' class as it is made: to
    Keras, which has deleted the backup, it is a new training, to us the next
    part of the run. Had it kept the backup, it would train nothing.
    """
    outcomes = {}
    for name, backup_of, settings in (
        ("keras", THEIRS, {}),
        ("keras, kept", THEIRS, {"delete_checkpoint": False}),
        ("bg", OURS, {}),
    ):
        model = model_of()
        backup = backup_of(str(tmp_path / name), **settings)
        outcomes[name] = [fit(model, backup, 2), fit(model, backup, 2)]
    first = Outcome((0, 0, 0), 6, [0, 1])
    again = Outcome((0, 0, 6), 12, [0, 1])
    assert [first, again] == outcomes["keras"]
    assert [first, Outcome(None, 6, [])] == outcomes["keras, kept"]
    assert [first, again] == outcomes["bg"]
    assert [9, 12] == steps_in(tmp_path / "bg")
    listed("A second `fit` of the same model in one program is the next part")
