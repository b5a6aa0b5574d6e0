"""`report`: one page, from wherever the run lives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from an_hour import a_run_of_an_hour
from commands import Workplace

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.main import main
from colab_keras_bg.storage.gcs import GcsStorage
from colab_keras_bg.testing.loopback_gcs import LoopbackGcs


def test_into_the_run_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The report of a local run lies in its directory; nothing else is changed,
    and nothing half written is left.
    """
    run = a_run_of_an_hour(tmp_path / "run").path
    before = sorted(run.rglob("*"))
    assert main(["report", str(run)]) == exit_status.DONE
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert sorted(run.rglob("*")) == sorted([*before, run / "report.html"])
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_elsewhere(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """
    --out names another file, or standard output.
    """
    run = a_run_of_an_hour(tmp_path / "run").path
    out = tmp_path / "a.html"
    assert main(["report", str(run), f"--out={out}"]) == exit_status.DONE
    assert not (run / "report.html").exists()
    assert b"</html>" in out.read_bytes()
    capfdbinary.readouterr()
    assert main(["report", str(run), "--out=-"]) == exit_status.DONE
    assert capfdbinary.readouterr().out.startswith(b"<!DOCTYPE html>")


def test_what_cannot_be_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Where nothing can be written, or is no run, is bad usage, in one line; an
    older report stays.
    """
    run = a_run_of_an_hour(tmp_path / "run").path
    for arguments, told in (
        ([str(run), "--out=/proc/report.html"], "/proc/report.html cannot be"),
        ([str(run), f"--out={tmp_path}"], "cannot be written"),
        ([str(tmp_path / "none")], "no run in"),
        ([], "Give one RUN_DIR"),
    ):
        assert main(["report", *arguments]) == exit_status.USAGE
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        assert told in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Until it is whole, the report has a name that is not shipped; if it cannot
    be put in place, the one before stays, and nothing else.
    """
    run = a_run_of_an_hour(tmp_path / "run").path
    (run / "report.html").write_text("the one before")
    before = sorted(run.rglob("*"))
    names: list[str] = []

    def full(source: Path, target: Path) -> None:
        names.append(source.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(["report", str(run)]) == exit_status.USAGE
    assert [name[:13] for name in names] == [".report.html."]
    assert sorted(run.rglob("*")) == before
    assert (run / "report.html").read_text() == "the one before"


def test_from_a_bucket(place: Workplace) -> None:
    """
    The report of a run far away lies where the command was given.
    """
    run = a_run_of_an_hour(place.path / "run").path
    with LoopbackGcs(["bucket"]) as server:
        environment = {**os.environ, **server.environment}
        storage = GcsStorage("bucket", "runs/a", endpoint=server.url)
        for file in run.rglob("*"):
            if file.is_file():
                storage.upload(str(file.relative_to(run)), file)
        url = "gs://bucket/runs/a"
        ended = place.run("report", url, environment=environment)
        assert (ended.out, ended.err) == (b"report.html\n", "")
        page = (place.path / "report.html").read_text()
        assert url in page
        assert "11,900" in page
        printed = place.run("status", url, environment=environment)
        assert b"goodput" in printed.out
