"""The house stands as designed: who may import whom, and what shows outside.

The rooms are those of docs/design.md, from the ground up.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import colab_keras_bg

PACKAGE = Path(colab_keras_bg.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in MODULES]

# Arrows point down this list; the rooms of a line do not know each other.
LEVELS = [
    ["errors", "tensor", "_version"],
    ["storage"],
    ["checkpoint", "training_state", "journal"],
    ["session", "sidecar", "data", "stored_run"],
    ["durability", "run_options"],
    ["run_directory"],
    ["saving", "output"],
    ["vital_signs"],
    ["run"],
    ["open_runs"],
    ["callbacks"],
    ["report"],
    ["digits"],
    ["cli", "testing"],
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Imports that do not point down, each with its reason.
NOT_DOWN = {
    ("run.py", "callbacks.unattended"): (
        "Run.callbacks() is how a person comes from a run to Keras; imported "
        "when it is called"
    ),
    ("run.py", "report.card"): (
        "Run._repr_html_() shows the run in a notebook; imported when it is "
        "called"
    ),
    ("training_state/build.py", "journal.announce"): (
        "what cannot be built is said to the person at the console"
    ),
    ("training_state/jax.py", "journal.announce"): (
        "that an accelerator is full is said there, too"
    ),
    ("training_state/callback_states.py", "journal.announce"): (
        "a callback whose state is not known is named there, too"
    ),
}

# The doors of third parties: a file, or a room ending in a slash.
DOORS = {
    "absl": ["cli/"],
    "google": [
        "storage/drive_errors.py",
        "storage/drive_files.py",
        "storage/gcs.py",
        "storage/gcs_errors.py",
        "storage/gcs_parts.py",
    ],
    "google_auth_httplib2": ["storage/drive_files.py"],
    "googleapiclient": ["storage/drive_errors.py", "storage/drive_files.py"],
    "httplib2": ["storage/drive_errors.py", "storage/drive_http.py"],
    "google_crc32c": [
        "journal/event_records.py",
        "journal/metrics.py",
        "checkpoint/hashing.py",
        "sidecar/",
        "storage/",
        "testing/loopback_gcs/",
    ],
    "jax": ["training_state/jax.py"],
    "keras": ["callbacks/", "data/", "digits/", "training_state/"],
    "matplotlib": ["report/charts.py"],
    "ml_dtypes": ["checkpoint/tensors.py"],
    "psutil": ["journal/machine.py"],
    "pynvml": ["journal/machine.py"],
    "numpy": [
        "checkpoint/",
        "data/",
        "callbacks/shown_weights.py",
        "digits/",
        "journal/summaries.py",
        "tensor.py",
        "testing/fuzz.py",
        "training_state/",
    ],
    "rich": ["cli/status.py", "report/screen.py"],
    "requests": ["storage/gcs_errors.py", "storage/gcs_parts.py"],
    "tensorboard": ["journal/summaries.py"],
    "tensorflow": ["training_state/tensorflow.py"],
    "torch": ["training_state/torch.py"],
    "urllib3": ["storage/gcs_errors.py"],
    "xxhash": ["checkpoint/hashing.py"],
}

# Imports past a door, each with its reason.
PAST_A_DOOR = {
    ("cli/trainer.py", "keras"): (
        "--seed seeds Keras before the program starts; imported only then"
    ),
    ("data/in_memory.py", "tensorflow"): (
        "Keras asks a data adapter for a tf.data.Dataset of its own making"
    ),
    ("data/indexed.py", "tensorflow"): "the same",
    ("data/ordered.py", "tensorflow"): "the same",
    ("data/ordered.py", "torch"): (
        "and, on that backend, for a torch DataLoader"
    ),
    ("run.py", "keras"): "a name in an annotation, for type checkers only",
    ("training_state/untracked.py", "tensorflow"): (
        "a model's own objects are looked through for TensorFlow's variables"
    ),
}

HEAVY = [
    "IPython",
    "jax",
    "keras",
    "matplotlib",
    "pandas",
    "tensorflow",
    "torch",
]

# Of section 3 of the design, what there is by now; and where the rest of the
# surface is reached.
PUBLIC = [
    "BackupAndRestore",
    "OutputCapture",
    "ResourceMonitor",
    "Run",
    "TensorBoard",
    "__version__",
    "current_run",
    "data",
    "errors",
    "explain",
    "export",
    "load_metrics",
    "restore",
    "unattended",
    "watch",
]


def parsed(name: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def imported(name: str) -> Iterator[str]:
    """Every module that a module imports, wherever in it, by full name."""
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            assert node.module is not None
            if node.module == "colab_keras_bg":
                yield from (f"{node.module}.{a.name}" for a in node.names)
            else:
                yield node.module


def room_of(name: str) -> str:
    """The room that a module belongs to."""
    return name.partition("/")[0].removesuffix(".py")


def test_there_is_something_to_see() -> None:
    """The test looks at the whole package."""
    assert len(NAMES) > 50
    assert "cli/main.py" in NAMES


def test_every_room_has_its_level() -> None:
    """No module stands beside the plan."""
    rooms = {room_of(name) for name in NAMES} - {"__init__", "__main__"}
    assert rooms - LEVEL.keys() == set()


def test_imports_point_down() -> None:
    """A room imports itself and rooms below it, but for known exceptions."""
    found = set()
    for name in NAMES:
        room = room_of(name)
        if room in ("__init__", "__main__"):
            continue
        for module in imported(name):
            package, _, rest = module.partition(".")
            target = rest.partition(".")[0]
            if package != "colab_keras_bg" or target == room:
                continue
            if not rest and room == "digits":
                continue  # The built-in job is written as a user would.
            if LEVEL.get(target, len(LEVELS)) >= LEVEL[room]:
                found.add((name, rest))
    assert found == NOT_DOWN.keys()


def test_upward_import_is_lazy() -> None:
    """What a run imports from above is imported in a function."""
    at_the_top = {
        node.module
        for node in parsed("run.py").body
        if isinstance(node, ast.ImportFrom)
    }
    assert "colab_keras_bg.callbacks.unattended" not in at_the_top
    assert "colab_keras_bg.report.card" not in at_the_top


def test_third_parties_behind_their_doors() -> None:
    """
    Each third party is imported where its door is, but for known exceptions;
    one that has no door is not imported at all.
    """
    found = set()
    for name in NAMES:
        for module in imported(name):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top == "colab_keras_bg":
                continue
            if not any(
                name == door or (door.endswith("/") and name.startswith(door))
                for door in DOORS.get(top, [])
            ):
                found.add((name, top))
    assert found == PAST_A_DOOR.keys()


@pytest.mark.parametrize("name", NAMES)
def test_docstring(name: str) -> None:
    """
    Every module has a docstring; one that defines something states its
    invariant there.
    """
    module = parsed(name)
    docstring = ast.get_docstring(module) or ""
    assert docstring.strip()
    defines = any(
        isinstance(node, (ast.FunctionDef, ast.ClassDef))
        for node in module.body
    )
    if defines and name != "__init__.py":
        assert "Invariant: " in docstring


def public_names(module: ast.Module) -> set[str]:
    """The names that a module binds at its top and that are not private."""
    names: set[str] = set()
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = (
                node.targets if isinstance(node, ast.Assign) else [node.target]
            )
            names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("__init__.py", "__main__.py")]
)
def test_all_is_what_is_public(name: str) -> None:
    """
    `__all__` lists what a module defines without underscore, all of it, and
    besides only what it hands on from another module of ours.
    """
    module = parsed(name)
    stated: list[str] = []
    for node in module.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
        ):
            stated = ast.literal_eval(node.value)
    defined = public_names(module)
    handed_on = {
        alias.asname or alias.name
        for node in module.body
        if isinstance(node, ast.ImportFrom)
        and str(node.module).startswith("colab_keras_bg.")
        for alias in node.names
    }
    assert sorted(defined - set(stated)) == []
    assert sorted(set(stated) - defined - handed_on) == []
    if name.endswith("__init__.py"):
        assert sorted(stated) == sorted(defined | handed_on)


@pytest.mark.parametrize("name", NAMES)
def test_no_module_is_long(name: str) -> None:
    """No module has more than 400 lines."""
    lines = (PACKAGE / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400


def test_public_names() -> None:
    """The package shows what the design names, and each name resolves."""
    assert sorted(colab_keras_bg.__all__) == sorted(PUBLIC)
    assert dir(colab_keras_bg) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(colab_keras_bg, name) is not None


def test_no_other_name() -> None:
    """A name that is not there is an ordinary AttributeError."""
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = colab_keras_bg.Trainer


def test_submodules_resolve_where_they_are_defined() -> None:
    """A public name is the very object that its module defines."""
    for name in ("BackupAndRestore", "Run", "current_run", "unattended"):
        home = colab_keras_bg._HOMES[name]
        module = importlib.import_module(home)
        assert getattr(colab_keras_bg, name) is getattr(module, name)


def loaded_by(*modules: str) -> list[str]:
    """The heavy packages that importing modules in a new process loads."""
    script = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))\n"
    )
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        check=True,
        capture_output=True,
        timeout=120,
    )
    found: list[str] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize(
    "modules",
    [
        ["colab_keras_bg"],
        ["colab_keras_bg.cli.main", "colab_keras_bg.__main__"],
        ["colab_keras_bg.cli.supervisor", "colab_keras_bg.cli.train"],
        ["colab_keras_bg.cli.trainer"],
        [
            "colab_keras_bg.cli.status",
            "colab_keras_bg.report.overview",
            "colab_keras_bg.report.screen",
        ],
        ["colab_keras_bg.cli.report", "colab_keras_bg.report.page"],
        ["colab_keras_bg.cli.verify", "colab_keras_bg.report.verification"],
        ["colab_keras_bg.run", "colab_keras_bg.errors"],
        [
            "colab_keras_bg.sidecar.process",
            "colab_keras_bg.sidecar.__main__",
            "colab_keras_bg.storage.gcs",
        ],
    ],
    ids=lambda modules: modules[0],
)
def test_light_imports(modules: list[str]) -> None:
    """
    Importing the package, the command line, the supervisor, the trainer or a
    report loads none of the packages that take seconds.
    """
    assert loaded_by(*modules) == []


def test_heavy_imports_are_seen() -> None:
    """The test above would notice one."""
    assert "IPython" in loaded_by("IPython")
