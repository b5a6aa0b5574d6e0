"""What the documents show works as shown."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import colab_keras_bg

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a document in one language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def test_readme_python_is_python() -> None:
    """
    Each Python block of the README parses, and names of ours in it exist.
    """
    found = blocks("README.md", "python")
    assert len(found) >= 4
    for block in found:
        for node in ast.walk(ast.parse(block)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "bg"
            ):
                assert hasattr(colab_keras_bg, node.attr), node.attr


def test_readme_first_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The README's first example runs as it stands, given a model and data.
    """
    keras = pytest.importorskip("keras")
    import numpy as np

    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    names: dict[str, Any] = {
        "model": model,
        "x": np.ones((4, 2), "float32"),
        "y": np.ones((4, 1), "float32"),
    }
    exec(blocks("README.md", "python")[0], names)  # noqa: S102 - our own text
    assert (tmp_path / "runs/a/DONE").is_file()


def test_readme_names_commands_that_exist() -> None:
    """
    Each `colab-keras-bg` command in the README's blocks is one of ours.
    """
    text = "\n".join(blocks("README.md", "bash"))
    named = set(re.findall(r"colab-keras-bg (\w+)", text))
    assert {"train", "status", "logs", "report", "verify", "export"} == named


def test_each_cell_of_the_table_has_its_case() -> None:
    """
    Each cell of the table of data names a case that is tested on the backend
    of its column, or says that none is.
    """
    pytest.importorskip("keras")
    text = (ROOT / "docs/exact-resume.md").read_text(encoding="utf-8")
    table = text.partition("<!-- table: data -->\n")[2].partition("\n\n")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
    ]
    head, body = rows[0], rows[2:]
    assert ["data", "TensorFlow", "JAX", "PyTorch"] == head
    assert len(body) >= 16
    sources = [
        (ROOT / "tests/training" / name).read_text(encoding="utf-8")
        for name in ("data_cases.py", "tf_data_cases.py")
    ]
    for _, *cells in body:
        assert 3 == len(cells)
        for cell in cells:
            case = re.search(r'"([^"]+)"$', cell)
            assert case or cell == "not tested", cell
            if case:
                assert f'    "{case[1]}": ' in "".join(sources), cell


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    """
    Each cell of a notebook but the installation runs in IPython, twice over,
    and no outputs are committed.
    """
    cells = [
        cell
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    assert all(not cell["outputs"] for cell in cells)
    sources = [
        "".join(cell["source"])
        for cell in cells
        if "install" not in cell["metadata"].get("tags", [])
    ]
    program = tmp_path / "cells.py"
    program.write_text(
        "import json, sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        f"for source in json.loads({json.dumps(json.dumps(sources))}) * 2:\n"
        "    result = shell.run_cell(source)\n"
        "    if not result.success:\n"
        "        sys.exit(1)\n"
    )
    pytest.importorskip("IPython")
    path_of_python = os.path.dirname(sys.executable)
    ended = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{path_of_python}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "IPYTHONDIR": str(tmp_path / "ipython"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    assert "nothing is trained again" in ended.stderr
    assert 2 == ended.stdout.count("nothing is damaged")


def test_doctests() -> None:
    """
    Each example in a docstring that looks like a session is one.
    """
    attempted = 0
    for module in pkgutil.walk_packages(
        colab_keras_bg.__path__, "colab_keras_bg."
    ):
        if module.name.endswith(("__main__", "tensorflow", "jax")):
            continue
        results = doctest.testmod(importlib.import_module(module.name))
        assert 0 == results.failed, module.name
        attempted += results.attempted
    assert attempted >= 1
