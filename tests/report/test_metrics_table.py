"""`bg.load_metrics`: what a run has reported, as a table."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from an_hour import BEGAN, a_run_of_an_hour

import colab_keras_bg as bg
from colab_keras_bg.errors import UsageError
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs


def test_table(tmp_path: Path) -> None:
    """
    One row a report, sorted by step; the columns are those that a `History`
    has, with where and when each report was made.
    """
    pytest.importorskip("pandas")
    path = a_run_of_an_hour(tmp_path).path
    table = bg.load_metrics(path)
    assert list(table.columns[:5]) == [
        *("step", "epoch", "time", "attempt", "loss")
    ]
    assert table["step"].is_monotonic_increasing
    assert list(table["epoch"]) == list(range(len(table)))
    assert table["time"].min() > BEGAN
    # Epochs 11 to 15 were trained by the second attempt, for good.
    assert list(table["attempt"]) == [1] * 10 + [2] * 5 + [3] * 8
    assert math.isfinite(table["val_loss"].iloc[-1])


def test_other_values(tmp_path: Path) -> None:
    """
    What is not told of a step is NaN there; texts stay what they are.
    """
    pytest.importorskip("pandas")
    path = a_run_of_an_hour(tmp_path).path
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11900, "time": 1.0, "test": 0.5, "note": "x"}\n')
        file.write('{"step": 11900, "time": 1.0, "hparams": {"lr": 0.1}}\n')
    table = bg.load_metrics(path)
    last = table.iloc[-1]
    assert (last["test"], last["note"]) == (0.5, "x")
    assert "hparams" not in table.columns
    assert math.isnan(last["loss"])
    assert table["epoch"].isna().sum() == 1
    assert str(table["epoch"].dtype) == "Int64"


def test_damaged_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Damaged lines are passed over, and that is said; a last line that was cut
    off is left out.
    """
    path = a_run_of_an_hour(tmp_path).path
    file = path / "metrics.jsonl"
    whole = len(bg.load_metrics(path))
    assert "passed over" not in capsys.readouterr().err
    lines = file.read_bytes().splitlines(keepends=True)
    lines[2] = b"\xff\x00{\n"
    lines[4] = b'{"step": true}\n'
    file.write_bytes(b"".join(lines) + b'{"step": 12000, "lo')
    assert len(bg.load_metrics(path)) == whole - 2
    told = capsys.readouterr().err
    assert "metrics.jsonl: 2 damaged lines passed over: 3, 5" in told


def test_no_reports(tmp_path: Path) -> None:
    """
    A run without reports has an empty table; a folder without a run is bad
    usage.
    """
    path = a_run_of_an_hour(tmp_path / "run").path
    (path / "metrics.jsonl").unlink()
    assert len(bg.load_metrics(path)) == 0
    with pytest.raises(UsageError, match="There is no run in"):
        bg.load_metrics(tmp_path / "elsewhere")


def test_without_pandas(tmp_path: Path) -> None:
    """
    Without pandas it is a list of dicts, a row each; and neither Keras nor a
    backend is imported.
    """
    path = a_run_of_an_hour(tmp_path).path
    script = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pandas':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, No())\n"
        "import colab_keras_bg as bg\n"
        f"rows = bg.load_metrics({str(path)!r})\n"
        "print(type(rows[0]).__name__, len(rows), rows[0]['step'],\n"
        "    'keras' in sys.modules, 'numpy' in sys.modules)\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", script])
    assert printed.decode() == "dict 23 500 False False\n"


def test_from_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is read from where the run lives.
    """
    path = a_run_of_an_hour(tmp_path).path
    with LoopbackGcs(["bucket"]) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage = GcsStorage("bucket", "runs/a")
        for file in path.rglob("*"):
            if file.is_file():
                storage.upload(str(file.relative_to(path)), file)
        assert len(bg.load_metrics("gs://bucket/runs/a")) == 23
