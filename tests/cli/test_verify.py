"""`verify`: everything is read back, and what is damaged is listed."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Workplace
from directories import attempt, beat, commit, damage

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli.main import main
from colab_keras_bg.journal.metrics import MetricsJournal
from colab_keras_bg.report.verification import Verification


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two attempts, checkpoints, a final one and metrics."""
    with attempt(tmp_path, exit_status=75) as directory:
        commit(directory, 5)
    with attempt(tmp_path) as directory:
        commit(directory, 10)
        directory.finals.save(10, attempt=2, tensors={}, state={})
    beat(tmp_path, step=10)
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"step": 10}\n')
    return tmp_path


def verify(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status, and what was printed."""
    status = main(["verify", str(run)])
    return status, capsys.readouterr().out


def test_clean(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole run is called so, checkpoint by checkpoint, with status 0."""
    status, printed = verify(run, capsys)
    assert status == exit_status.DONE
    lines = printed.splitlines()
    assert lines[0].startswith("whole    checkpoint of step 5: ")
    assert lines[1].startswith("whole    checkpoint of step 10: ")
    assert lines[2].startswith("whole    final checkpoint of step 10: ")
    assert lines[3:] == ["nothing is damaged; 3 checkpoint(s) whole"]


def test_run_that_never_committed(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run without a checkpoint yet is not damaged."""
    place.train(place.program("pass"))
    expected = "nothing is damaged; 0 checkpoint(s) whole\n"
    assert verify(place.run_dir, capsys) == (exit_status.DONE, expected)


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped", "gone"])
@pytest.mark.parametrize("pattern", ["tensors-*", "state-*", "manifest.json"])
@pytest.mark.parametrize(
    ("folder", "what"),
    [
        ("checkpoints/step-000000010", "checkpoint of step 10"),
        ("final/step-000000010", "final checkpoint of step 10"),
    ],
)
def test_damaged_checkpoint(
    folder: str,
    what: str,
    pattern: str,
    kind: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is wrong with a checkpoint's file, it is listed; status 1."""
    [path] = (run / folder).glob(pattern)
    damage(path, kind)
    status, printed = verify(run, capsys)
    gone = (pattern, kind) == ("manifest.json", "gone")
    if gone and folder.startswith("final"):
        what = "final checkpoint"  # DONE does not tell of which step.
    assert status == exit_status.FAILED
    [told] = [line for line in printed.splitlines() if "DAMAGED" in line]
    assert told.startswith(f"DAMAGED  {what}: ")
    assert gone or path.name in told
    assert printed.splitlines()[-1] == "1 damaged, 2 whole"


@pytest.mark.parametrize("kind", ["empty", "cut", "zeroed"])
@pytest.mark.parametrize(
    "name",
    ["run.json", "HEAD", "DONE", "status.json", "attempts/0001/attempt.json"],
)
def test_damaged_record(
    name: str, kind: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that cannot be read is listed; status 1."""
    damage(run / name, kind)
    status, printed = verify(run, capsys)
    assert status == exit_status.FAILED
    assert f"DAMAGED  {name} cannot be read as a record: " in printed


@pytest.mark.parametrize("name", ["run.json", "HEAD"])
def test_record_is_gone(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that must be there and is not is listed; status 1."""
    (run / name).unlink()
    status, printed = verify(run, capsys)
    assert status == exit_status.FAILED
    assert f"DAMAGED  {name}: it is gone\n" in printed


def test_attempt_is_gone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is an attempt that has a console and no record."""
    (run / "attempts" / "0001" / "console.log").touch()
    (run / "attempts" / "0001" / "attempt.json").unlink()
    status, printed = verify(run, capsys)
    assert status == exit_status.FAILED
    assert "DAMAGED  attempts/0001/attempt.json: it is gone\n" in printed


def test_damaged_metrics(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of the metrics that is no report is listed by its number."""
    (run / "metrics.jsonl").write_text('{"step": 5}\n\0\0\n{"step": 10}\n')
    status, printed = verify(run, capsys)
    assert status == exit_status.FAILED
    assert "DAMAGED  metrics.jsonl line 2: it is not a report\n" in printed


def test_what_a_kill_leaves_is_no_damage(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Files of a save that was cut off, and the torn last line of the metrics,
    are not damage: nothing relies on them.
    """
    folder = run / "checkpoints" / "step-000000015"
    folder.mkdir()
    (folder / "tensors-0003-0123abcd.safetensors").write_bytes(b"half")
    (folder / ".manifest.json.0123456789ab.tmp").write_bytes(b"{")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')
    status, printed = verify(run, capsys)
    assert (status, printed.splitlines()[-1]) == (
        exit_status.DONE,
        "nothing is damaged; 3 checkpoint(s) whole",
    )


@pytest.mark.parametrize("step", [5, 10])
def test_a_commit_is_gone(
    step: int, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint that was to be kept and is gone is listed, any of them."""
    (run / f"checkpoints/step-{step:09d}/manifest.json").unlink()
    status, printed = verify(run, capsys)
    assert status == exit_status.FAILED
    assert f"DAMAGED  checkpoint of step {step}: it is gone\n" in printed


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "shorter than"),
        ("", "shorter than"),
        ('{"step": 5}\n', "shorter than"),
        ('{"step": 5}\n{"step": 11}\n', "not what"),
        ('{"step": 5}\n{"step": 10}\n{"step": 12}\n', None),
    ],
)
def test_reports_that_are_not_what_they_were(
    content: str | None,
    what: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was reported up to the last commit is compared; later is not."""
    path = tmp_path / "metrics.jsonl"
    with attempt(tmp_path, exit_status=75) as directory:
        path.write_text('{"step": 5}\n{"step": 10}\n')
        directory.publish(
            step=None, committed=None, reports=MetricsJournal(path).sync()
        )
    path.unlink()
    if content is not None:
        path.write_text(content)
    status, printed = verify(tmp_path, capsys)
    assert (what is None) == (status == exit_status.DONE)
    told = f"metrics.jsonl: it is {what} it was at the last commit"
    assert what is None or told in printed


def test_everything_is_listed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One damage does not hide another."""
    damage(run / "HEAD", "empty")
    damage(run / "DONE", "cut")
    for path in run.glob("checkpoints/*/state-*"):
        damage(path, "flipped")
    status, printed = verify(run, capsys)
    assert status == exit_status.FAILED
    assert printed.splitlines()[-1] == "4 damaged, 1 whole"


def test_damage_does_not_command_the_terminal(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is said of damaged files is shown, and commands no terminal."""
    found = Verification(whole=[], damaged=["a file of \x1b[2J"])
    monkeypatch.setattr("colab_keras_bg.cli.verify.verify_run", lambda _: found)
    status, printed = verify(run, capsys)
    assert status == exit_status.FAILED
    assert printed.startswith("DAMAGED  a file of \\x1b[2J\n")
