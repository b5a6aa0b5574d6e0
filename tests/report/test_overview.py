"""Where a run stands, and how it goes: what `status` shows."""

from __future__ import annotations

import html
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from an_hour import BEGAN, HOUR, a_run_of_an_hour
from rich.cells import cell_len
from rich.console import Console

from colab_keras_bg.report.curves import metric_charts
from colab_keras_bg.report.overview import (
    Overview,
    eta_secs,
    newest_values,
    overview_of,
    read_overview,
)
from colab_keras_bg.report.page import report_page
from colab_keras_bg.report.screen import screen
from colab_keras_bg.report.status import RunStatus
from colab_keras_bg.report.text import as_text
from colab_keras_bg.report.timeline import Look
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.stored_run import StoredRun

HOSTILE = "[red]x[/red] \x1b[2J\x9b31m\ud800 \u202e {0}"


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an hour."""
    return a_run_of_an_hour(tmp_path_factory.mktemp("hour") / "run").path


def test_how_an_hour_went(hour: Path) -> None:
    """
    The hour adds up: three attempts, two of which trained some steps for
    those after them to train again.
    """
    found = read_overview(hour)
    assert found.status.state == "done"
    assert [one.number for one in found.stretches] == [1, 2, 3]
    first, second, _ = found.stretches
    assert (first.from_step, first.kept_step) == (0, 5000)
    assert (second.from_step, second.kept_step) == (5000, 7500)
    split = found.split
    assert split.wall_secs == pytest.approx(HOUR, abs=15)
    assert split.waiting == pytest.approx(180, abs=15)
    assert split.lost == pytest.approx(305, abs=40)
    assert split.starting == pytest.approx(140, abs=45)
    assert split.goodput == pytest.approx(0.76, abs=0.03)
    assert found.metrics["val_loss"] == pytest.approx(0.32, abs=0.05)
    assert found.resources["gpus"][0]["name"] == "Tesla T4"
    assert found.eta_secs is None  # It is done.


def test_without_resources(tmp_path: Path) -> None:
    """
    Where nobody has measured what is used, the reports tell about the same.
    """
    path = a_run_of_an_hour(tmp_path).path
    for file in path.glob("attempts/*/resources.jsonl"):
        file.unlink()
    found = read_overview(path)
    assert found.split.goodput == pytest.approx(0.8, abs=0.1)
    assert found.resources == {}
    assert found.stretches[-1].to_step == found.status.step


def test_json(hour: Path) -> None:
    """
    All of it is valid JSON.
    """
    told = json.dumps(read_overview(hour).to_json(), allow_nan=False)
    assert json.loads(told)["expected_steps"] == 15_000


class Counting(LocalStorage):
    """Counts the bytes that were read."""

    read_bytes = 0

    def read(self, name: str) -> bytes:
        found = super().read(name)
        self.read_bytes += len(found)
        return found

    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        found = super().read_range(name, start, size_bytes)
        self.read_bytes += len(found)
        return found


def test_looking_does_not_cost_more_for_a_longer_run(tmp_path: Path) -> None:
    """
    Of files that have grown a hundredfold no more is read than of others.
    """
    path = a_run_of_an_hour(tmp_path).path
    for file in [
        path / "metrics.jsonl",
        *path.glob("attempts/*/resources.jsonl"),
    ]:
        file.write_bytes(file.read_bytes() * 400)
    storage = Counting(path)
    sizes = [file.stat().st_size for file in path.rglob("*.jsonl")]
    assert sum(sizes) > 20e6
    found = overview_of(StoredRun(storage, address=str(path)))
    assert storage.read_bytes < 2e6
    assert len(found.stretches) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe" * 1000,
        b"{" * 10_000,
        b"x" * 10_000_000 + b"\n",
        b'{"step": 1e400, "time": NaN}\n{"step": -5, "time": -1e300}\n',
        b'{"step": 9999999999999999999999, "time": 1e9, "loss": 1}\n' * 3,
        b'{"step": 3, "time": 1e308, "step_secs": 1e-320, "gpus": [[], 7]}\n',
        b'{"step": 3, "time": 1.5e9, "step_secs": "x", "gpus": {"a": 1}}\n',
        b'{"step": 3, "time": 1.5e9, "loss": Infinity, "x": 1e999}\n',
        b"[1, 2]\nnull\n7\n",
    ],
    ids=range(10),
)
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    """
    Whatever the files that grow hold, it can be told where the run stands.
    """
    path = a_run_of_an_hour(tmp_path).path
    for name in ("metrics.jsonl", "attempts/0002/resources.jsonl"):
        (path / name).write_bytes(content)
    (path / "attempts/0003/resources.jsonl").write_bytes(content)
    (path / "attempts/0001/attempt.json").write_bytes(content[:1000])
    found = read_overview(path)
    assert found.status.durable_step == found.status.step
    json.dumps(found.to_json(), allow_nan=False)
    assert as_text(found.status, now=BEGAN, overview=found)
    assert on_a_terminal(found)


def on_a_terminal(overview: Overview, *, now: float = BEGAN + HOUR) -> str:
    """What a terminal of 80 columns gets."""
    console = Console(width=80, force_terminal=True, color_system="truecolor")
    with console.capture() as captured:
        console.print(screen(overview, now=now))
    return captured.get()


def test_screen(hour: Path) -> None:
    """
    A terminal of 80 columns and 24 lines shows what there is to know.
    """
    printed = on_a_terminal(read_overview(hour))
    lines = printed.splitlines()
    assert len(lines) <= 24
    for told in (
        *("DONE", "11,900", "of 15,000", "epoch 24", "val_loss", "Tesla T4"),
        *("goodput", "76.", "lost 5 min", "interrupted (SIGTERM)", "committed"),
    ):
        assert told in printed


def test_hostile_strings_on_a_terminal(tmp_path: Path) -> None:
    """
    What was read is neither taken for markup nor reaches the terminal as a
    command; what goes wrong is shown on top of it.
    """
    path = a_run_of_an_hour(tmp_path, hostile=HOSTILE, end="failed").path
    found = read_overview(path)
    status = replace(found.status, problem=HOSTILE, damaged=[HOSTILE] * 9)
    printed = on_a_terminal(replace(found, status=status))
    assert "[red]x[/red]" in printed
    assert "\x1b[2J" not in printed
    assert "\x9b" not in printed
    assert "\\x1b[2J" in printed
    assert "PROBLEM" in printed
    plain = as_text(status, now=BEGAN, overview=found)
    assert "\x1b" not in plain
    assert [row for row in plain.splitlines() if row[12:13] != " "] == []


RUNNING = RunStatus(
    run_dir="run",
    state="running",
    step=500,
    epoch=1,
    durable_step=400,
    durable_since=1.0,
    attempts=1,
    last_heartbeat=1000.0,
    reason="",
    problem=None,
    checkpoints=[400],
    expected_steps=1500,
    step_secs=0.5,
)


@pytest.mark.parametrize(
    ("changes", "looks", "expected"),
    [
        ({}, [], 500.0),
        # With validation and saves, it takes longer than its steps do.
        ({}, [Look(900.0, 400), Look(1000.0, 500)], 1000.0),
        # What is too old tells nothing.
        ({}, [Look(1.0, 0), Look(1000.0, 500)], 500.0),
        ({"expected_steps": None}, [], None),
        ({"step_secs": None}, [], None),
        ({"state": "done"}, [], None),
        ({"step": 1500}, [], 0.0),
    ],
    ids=range(7),
)
def test_eta(
    changes: dict[str, Any], looks: list[Look], expected: float | None
) -> None:
    """
    The time that is left goes by the pace of the last minutes, if it runs.
    """
    status = replace(RUNNING, **changes)
    assert eta_secs(status, looks, now=1005.0) == expected


def test_time_is_of_now_while_it_runs(tmp_path: Path) -> None:
    """
    A goodput without a past is none, and no division by nothing.
    """
    empty = Overview(RUNNING)
    assert empty.to_json()["goodput"] is None
    assert "goodput" not in as_text(RUNNING, now=time.time(), overview=empty)
    assert on_a_terminal(empty)


def test_what_has_diverged(tmp_path: Path) -> None:
    """
    A metric that is no number any more is shown as that, and not by what it
    was before; JSON stays JSON.
    """
    run = a_run_of_an_hour(tmp_path / "run").path
    with (run / "metrics.jsonl").open("a") as file:
        line = {"step": 15_001, "time": BEGAN + HOUR, "loss": float("nan")}
        file.write(json.dumps({**line, "accuracy": float("inf")}) + "\n")
    found = read_overview(run)
    text = as_text(found.status, now=time.time(), overview=found)
    assert "loss nan" in text
    assert "accuracy inf" in text
    since = "loss is nan since step 15,001"
    assert since in text
    assert since in on_a_terminal(found)
    assert since in report_page(run)
    told = json.loads(
        json.dumps(found.to_json()),
        parse_constant=lambda name: pytest.fail(name),
    )
    assert ("nan", "inf") == (
        told["metrics"]["loss"],
        told["metrics"]["accuracy"],
    )
    assert {"loss": 15_001, "accuracy": 15_001} == told["diverged"]


def test_the_loss_comes_first() -> None:
    """
    Of a model with many outputs, the loss is shown, wherever Keras puts it.
    """
    reports = [
        {"step": step, **{f"head_{n:02d}_loss": 1.0 for n in range(30)}}
        | {"loss": 0.5, "val_head_00_loss": 1.0, "val_loss": 0.7}
        for step in (1, 2)
    ]
    found = newest_values(reports)
    assert ["loss", "val_loss", "head_00_loss"] == list(found)[:3]
    charts, more = metric_charts(reports, most=5)
    assert "loss" == charts[0].title
    assert ["training", "validation"] == [c.name for c in charts[0].curves]
    assert 26 == more


def test_what_is_known_of_some_attempts_only(hour: Path) -> None:
    """
    A goodput that leaves attempts out says so, everywhere.
    """
    found = replace(read_overview(hour), left_out=0)
    assert "of 3 attempts" not in as_text(
        found.status, now=time.time(), overview=found
    )
    found = replace(found, left_out=1)
    told = "over 2 of 3 attempts"
    assert told in as_text(found.status, now=time.time(), overview=found)
    assert told in on_a_terminal(found)
    assert 1 == found.to_json()["attempts_left_out"]


@pytest.mark.parametrize("width", [30, 40, 64, 100, 200])
def test_bar_that_fits(hour: Path, width: int) -> None:
    """
    The goodput is one line of the terminal, and without colours its parts
    differ.
    """
    console = Console(width=width, color_system=None, file=io.StringIO())
    with console.capture() as capture:
        console.print(screen(read_overview(hour), now=BEGAN + HOUR))
    lines = capture.get().splitlines()
    assert max(map(cell_len, lines)) <= width
    bars = [n for n, line in enumerate(lines) if "██" in line]
    assert 1 == len(bars)
    bar = lines[bars[0]].strip("│ ")
    assert min(100, width - 4) - 1 <= len(bar) <= min(100, width - 4)
    used = set(bar) - {" "}
    assert len(used) >= 3
    legend = "".join(lines[bars[0] + 1 : bars[0] + 5])
    assert used <= set(legend)


def test_damage_is_named(tmp_path: Path) -> None:
    """
    What cannot be understood is named, by `status` and in the report, though
    the rest is shown.
    """
    run = a_run_of_an_hour(tmp_path / "run").path
    assert [] == list(read_overview(run).status.damaged)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\x00\n{\n")
    with (run / "attempts/0003/resources.jsonl").open("ab") as file:
        file.write(b"[1]\n")
    for attempt in (1, 2):
        (run / f"attempts/000{attempt}/attempt.json").write_bytes(b"")
    damaged = read_overview(run).status.damaged
    assert 3 == len(damaged)
    assert "attempt 1, 2 cannot be understood" in damaged[0]
    assert damaged[1].startswith("metrics.jsonl: 2 of the last ")
    assert "attempts/0003/resources.jsonl: 1 of the last" in damaged[2]
    page = report_page(run)
    assert all(html.escape(text) in page for text in damaged[:2])
    assert "over 1 of 3 attempts" in page
