"""`status`: where a run stands, from its directory alone."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from an_hour import a_run_of_an_hour
from commands import Workplace
from directories import attempt, beat, commit, damage

from colab_keras_bg.cli import exit_status
from colab_keras_bg.cli import status as status_module
from colab_keras_bg.cli.main import main
from colab_keras_bg.errors import StorageUnavailableError
from colab_keras_bg.report.overview import Overview, read_overview
from colab_keras_bg.report.status import RunStatus, read_status
from colab_keras_bg.report.text import as_text
from colab_keras_bg.report.timeline import Split

KEYS = {
    "run_dir",
    "state",
    "step",
    "epoch",
    "durable_step",
    "durable_since",
    "attempts",
    "last_heartbeat",
    "reason",
    "problem",
    "checkpoints",
    "damaged",
    "saves",
    "best",
    "committed_step",
    "unconfirmed_step",
    "shipped_to",
    "shipping",
    "expected_steps",
    "eta_secs",
    "goodput",
    "attempts_left_out",
    "split",
    "metrics",
    "diverged",
    "resources",
    "last_attempts",
}


def status_json(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    """What `status --json` prints."""
    assert main(["status", str(run), "--json"]) == exit_status.DONE
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one JSON object, with these keys and no others."""
    with attempt(tmp_path) as directory:
        commit(directory, 5)
    beat(tmp_path, step=7, epoch=2, heartbeat=1234.5)
    found = status_json(tmp_path, capsys)
    assert set(found) == KEYS
    assert found.pop("durable_since") == pytest.approx(time.time(), abs=60)
    assert found.pop("goodput") == 0.0
    split = found.pop("split")
    assert split.keys() == asdict(Split()).keys()
    assert 0 <= split.pop("starting") < 60
    assert set(split.values()) == {0.0}
    (told,) = found.pop("last_attempts")
    assert (told["number"], told["reason"]) == (1, "the program ended")
    assert found == {
        "run_dir": str(tmp_path),
        "state": "done",
        "step": 7,
        "epoch": 2,
        "durable_step": 5,
        "attempts": 1,
        "last_heartbeat": 1234.5,
        "reason": "the program ended",
        "problem": None,
        "checkpoints": [5],
        "damaged": [],
        "saves": None,
        "best": None,
        "committed_step": 5,
        "unconfirmed_step": None,
        "shipped_to": None,
        "shipping": {},
        "expected_steps": None,
        "eta_secs": None,
        "metrics": {},
        "attempts_left_out": 0,
        "diverged": {},
        "resources": {},
    }


def test_json_of_a_run_that_never_committed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first commit and sign of life, what is not known is null."""
    with attempt(tmp_path, exit_status=75, reason="interrupted"):
        pass
    found = status_json(tmp_path, capsys)
    assert set(found) == KEYS
    assert found["state"] == "interrupted"
    assert found["checkpoints"] == []
    for key in (
        "step",
        "epoch",
        "durable_step",
        "durable_since",
        "last_heartbeat",
        "committed_step",
        "shipped_to",
    ):
        assert found[key] is None


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        (0, "done", "so it ended"),
        (75, "interrupted", "so it ended"),
        (None, "interrupted", "so it ended"),
        (-9, "interrupted", "killed"),
        (1, "failed", "so it ended"),
        (5, "failed", "so it ended"),
        (64, "failed", "so it ended"),
    ],
)
def test_state(
    status: int | None, state: str, reason: str, tmp_path: Path
) -> None:
    """How the last attempt ended is the state; a kill leaves no end."""
    with attempt(tmp_path, exit_status=status, reason="so it ended"):
        assert read_status(tmp_path).state == "running"
    found = read_status(tmp_path)
    assert (found.state, found.reason) == (state, reason)


def test_failed_after_it_was_done(tmp_path: Path) -> None:
    """An attempt after a run was done tells more than its DONE."""
    with attempt(tmp_path):
        pass
    with attempt(tmp_path, exit_status=1, reason="no memory"):
        pass
    found = read_status(tmp_path)
    assert (found.state, found.reason) == ("failed", "no memory")
    with attempt(tmp_path):
        pass
    assert read_status(tmp_path).state == "done"
    assert read_status(tmp_path).attempts == 3


def test_live_run(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    """While a trainer lives the run is running; when it is killed, not."""
    supervisor = place.start_waiting()
    found = status_json(place.run_dir, capsys)
    assert (found["state"], found["reason"]) == ("running", "")
    supervisor.terminate()
    supervisor.wait()
    found = status_json(place.run_dir, capsys)
    assert (found["state"], found["reason"]) == ("interrupted", "interrupted")


def test_problem_of_a_live_run(tmp_path: Path) -> None:
    """What goes wrong now is shown while it does, and not afterwards."""
    with attempt(tmp_path):
        beat(tmp_path, problem="saving failed")
        assert read_status(tmp_path).problem == "saving failed"
        assert "saving failed" in as_text(read_status(tmp_path), now=0.0)
    assert read_status(tmp_path).problem is None


def test_before_the_training_goes_on(tmp_path: Path) -> None:
    """
    An attempt that was stopped before its training began tells nothing about
    the step; what is committed does.
    """
    with attempt(tmp_path, exit_status=75, reason="interrupted") as directory:
        commit(directory, 5)
    beat(tmp_path, state="starting", step=0, epoch=0)
    found = read_status(tmp_path)
    assert (found.step, found.epoch) == (5, None)
    assert "state        interrupted\nstep         5\n" in as_text(
        found, now=0.0
    )
    # Training went on from an older one, as the newest was damaged.
    beat(tmp_path, state="training", step=3, epoch=1)
    found = read_status(tmp_path)
    assert (found.step, found.epoch) == (3, 1)


def test_durable_step_is_one_that_is_there(tmp_path: Path) -> None:
    """
    The durable step is the newest checkpoint whose files look whole; one that
    does not is named. HEAD alone makes nothing durable.
    """
    with attempt(tmp_path) as directory:
        for step in (3, 6, 9):
            commit(directory, step)
    [newest] = (tmp_path / "checkpoints" / "step-000000009").glob("tensors*")
    damage(newest, "cut")
    found = read_status(tmp_path)
    assert (found.durable_step, found.checkpoints) == (6, [3, 6, 9])
    assert found.damaged == ["the checkpoint of step 9 is not whole"]
    created = directory.checkpoints.manifest(6).created
    assert found.durable_since == created
    for path in tmp_path.glob("checkpoints/*/manifest.json"):
        path.unlink()
    found = read_status(tmp_path)
    assert (found.durable_step, found.durable_since) == (None, None)


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped", "zeroed"])
@pytest.mark.parametrize(
    "name",
    ["run.json", "HEAD", "DONE", "status.json", "attempts/0002/attempt.json"],
)
def test_damaged_record(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that cannot be read is named and not believed."""
    with attempt(tmp_path, exit_status=1, reason="of long ago"):
        pass
    with attempt(tmp_path) as directory:
        commit(directory, 5)
    beat(tmp_path, step=7, heartbeat=1.5)
    damage(tmp_path / name, kind)
    found = status_json(tmp_path, capsys)
    [told] = found["damaged"]
    assert told.startswith(f"{name} cannot be read as a record: ")
    assert found["durable_step"] == 5
    # No older attempt's end is taken for the end of the run.
    state = "done"
    if name == "DONE":
        state = "interrupted"
    assert found["state"] == state
    if name == "status.json":
        assert (found["step"], found["last_heartbeat"]) == (5, None)
    assert main(["status", str(tmp_path)]) == exit_status.DONE
    assert f"damaged      {name} cannot" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        '{"attempt": "x"}',
        '{"heartbeat": "noon", "step": true, "epoch": 1.5, "problem": 3}',
        '{"number": 2, "started": 1, "pid": 1, "host": 7}',
        '{"number": 7, "started": 1, "pid": 1, "host": "vm"}',
        '{"number": 2, "started": 1, "pid": 1, "host": "vm", "ended": "x"}',
        '{"reason": {"a": [1]}, "attempt": [], "time": {}}',
        "{" * 100_000,
        "[" * 100_000,
        "9" * 10_000,
        "NaN",
        '"\ud800"',
    ],
)
@pytest.mark.parametrize(
    "name",
    ["run.json", "HEAD", "DONE", "status.json", "attempts/0001/attempt.json"],
)
def test_hostile_record(
    name: str,
    content: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever a record holds, both forms are printed."""
    with attempt(tmp_path, exit_status=75):
        pass
    path = tmp_path / name
    path.write_text(content, errors="surrogatepass")
    assert set(status_json(tmp_path, capsys)) == KEYS
    assert main(["status", str(tmp_path)]) == exit_status.DONE
    assert main(["verify", str(tmp_path)]) in (0, 1)


def test_escapes_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a record says is shown, and commands no terminal."""
    with attempt(tmp_path, exit_status=1, reason="\x1b[2J\x9b31m\ud800"):
        pass
    assert main(["status", str(tmp_path)]) == exit_status.DONE
    printed = capsys.readouterr().out
    assert "failed: \\x1b[2J\\x9b31m\\ud800" in printed


def test_one_screen() -> None:
    """It reads well, on one screen, however long the run."""
    status = RunStatus(
        run_dir="/runs/a",
        state="interrupted",
        step=12345,
        epoch=3,
        durable_step=12300,
        durable_since=9_000.0,
        attempts=12,
        last_heartbeat=9_970.0,
        reason="killed (SIGKILL)",
        problem=None,
        checkpoints=list(range(100, 12400, 100)),
        best="step 11800 (val_loss 0.25)",
    )
    expected = """\
run          /runs/a
state        interrupted: killed (SIGKILL)
step         12345 (epoch 4)
committed    step 12300, 17 min ago, on this machine's disk
checkpoints  123, the newest: 11800, 11900, 12000, 12100, 12200, 12300
best         step 11800 (val_loss 0.25)
attempts     12
heartbeat    30 s ago"""
    assert as_text(status, now=10_000.0) == expected


def test_one_screen_of_a_beginning(tmp_path: Path) -> None:
    """So does a run that has told nothing yet."""
    with attempt(tmp_path, exit_status=-9):
        pass
    expected = f"""\
run          {tmp_path}
state        interrupted: killed
step         -
committed    nothing yet
checkpoints  none
attempts     1
heartbeat    never"""
    assert as_text(read_status(tmp_path), now=time.time()) == expected


@pytest.mark.parametrize(
    ("secs", "expected"),
    [(-5, "0 s"), (119, "119 s"), (7199, "120 min"), (86_400, "24.0 h")],
)
def test_ages(secs: float, expected: str, tmp_path: Path) -> None:
    """Ages are told in seconds, minutes or hours; none is negative."""
    with attempt(tmp_path):
        beat(tmp_path, heartbeat=1_000_000.0)
    found = as_text(read_status(tmp_path), now=1_000_000.0 + secs)
    assert f"heartbeat    {expected} ago" in found


def test_on_a_terminal(place: Workplace) -> None:
    """A terminal gets a screen in colours, and none of the heavy packages."""
    a_run_of_an_hour(place.run_dir)
    seen, status = on_a_terminal(place, "status", "run")
    assert status == exit_status.DONE
    assert "DONE" in seen
    assert "goodput" in seen
    assert "\x1b[" in seen
    script = (
        "import sys\n"
        "sys.stdout.isatty = lambda: True\n"
        "from colab_keras_bg.cli.main import main\n"
        "main(['status', 'run'])\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'torch', 'pandas', 'numpy',\n"
        "    'IPython', 'matplotlib', 'google.cloud'}\n"
        "print('loaded', heavy & set(sys.modules))\n"
    )
    printed = place.run(script, python="-c").out.decode()
    assert "loaded set()" in printed, printed


def test_watch_ends_with_the_run(place: Workplace) -> None:
    """--watch shows the run again and again, and ends when it does."""
    training = place.start_waiting()
    watching = place.start("status", "--watch", "run")
    assert watching.stdout is not None
    assert b"run  " in os.read(watching.stdout.fileno(), 1000)
    training.terminate()
    training.wait()
    ended = place.end(watching)
    assert (ended.status, ended.err) == (exit_status.DONE, "")
    assert b"state        interrupted" in ended.out


def test_interrupted_watcher(place: Workplace) -> None:
    """Whoever watches and presses Ctrl-C ends with 0; the run goes on."""
    training = place.start_waiting()
    watching = place.start("status", "-w", "run")
    assert watching.stdout is not None
    os.read(watching.stdout.fileno(), 1000)
    watching.send_signal(signal.SIGINT)
    ended = place.end(watching)
    assert (ended.status, ended.err) == (exit_status.DONE, "")
    assert training.poll() is None


def test_watched_storage_that_is_away_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read for a while is looked at again."""
    with attempt(tmp_path):
        overview = read_overview(tmp_path)
    found = iter([StorageUnavailableError("away"), read_overview(tmp_path)])

    def read(run_dir: str) -> Overview:
        one = next(found)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(status_module, "read_overview", read)
    waits: list[float] = []
    seen = list(
        status_module.watched(
            str(tmp_path), overview, every_secs=2.0, sleep=waits.append
        )
    )
    assert [one.status.state for one in seen] == ["running", "done"]
    assert waits == [2.0, 2.0]


def on_a_terminal(place: Workplace, *arguments: str) -> tuple[str, int]:
    """What a command shows on a terminal, and its exit status."""
    master, slave = pty.openpty()
    process = place.start(
        *arguments,
        stdout=slave,
        environment={"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(slave)
    seen = b""
    with contextlib.suppress(OSError):
        while block := os.read(master, 1000):
            seen += block
    os.close(master)
    return seen.decode(), process.wait(timeout=60)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """`status` and `verify` leave every file and folder as it is."""
    with attempt(tmp_path) as directory:
        commit(directory, 5)
    (tmp_path / ".half-written.tmp").touch()

    def everything() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in [tmp_path, *tmp_path.rglob("*")]
        }

    before = everything()
    main(["status", str(tmp_path)])
    main(["verify", str(tmp_path)])
    assert everything() == before
