"""Where a run stands, as a screen of a terminal.

Invariant: nothing that was read is taken for markup, or reaches the terminal
as a command: all of it goes through `_text`. It fits a screen of 24 lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import (
    Console,
    ConsoleOptions,
    Group,
    RenderableType,
    RenderResult,
)
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from colab_keras_bg.durability import ago
from colab_keras_bg.journal.announce import printable
from colab_keras_bg.report.divergence import divergence_text
from colab_keras_bg.report.numbers import (
    as_bytes,
    as_count,
    as_secs,
    as_value,
)
from colab_keras_bg.report.overview import Overview
from colab_keras_bg.report.status import RunStatus
from colab_keras_bg.report.text import (
    resources_text,
    safe_text,
    told_attempts,
)
from colab_keras_bg.report.timeline import Split

__all__ = ["screen"]

_COLOURS = {
    "running": "green",
    "done": "blue",
    "interrupted": "yellow",
    "failed": "red",
}
_PARTS = (
    ("productive", "training", "green"),
    ("input_wait", "data", "cyan"),
    ("save_wait", "saves", "blue"),
    ("lost", "lost", "red"),
    ("starting", "starting", "yellow"),
    ("waiting", "idle", "bright_black"),
)
_SHOWN_METRICS, _SHOWN_ATTEMPTS, _SHOWN_DAMAGED = 6, 3, 3
_MOST_CELLS = 100
# Less is too narrow for two columns.
_TWO_COLUMNS = 64
# Where there are no colours, what tells the parts of a bar apart.
_FILLED, _SIGNS = "█", "█▒░▚▞·"
# Signs of life come every ten seconds.
_OLD_SECS = 90.0


def screen(overview: Overview, *, now: float) -> RenderableType:
    """What to print on a terminal.

    Args:
        overview: What to show.
        now: Seconds since 1970.
    """
    status = overview.status
    parts: list[RenderableType] = [_head(overview)]
    if status.problem:
        parts.append(_alarm("problem", [status.problem], "red"))
    if overview.diverged:
        told = divergence_text(overview.diverged)
        parts.append(_alarm("diverged", [told], "red"))
    if status.damaged:
        shown = status.damaged[:_SHOWN_DAMAGED]
        if more := len(status.damaged) - len(shown):
            shown = [*shown, f"and {more} more"]
        parts.append(_alarm("damaged", shown, "yellow"))
    parts += [_facts(overview, now), _Measured(overview)]
    if overview.split.wall_secs >= 1:
        parts.append(_Goodput(overview))
    parts.append(_attempts(overview))
    title = _text(status.run_dir, style="bold", most=200)
    colour = _COLOURS.get(status.state, "white")
    return Panel(Group(*parts), title=title, border_style=colour)


def _head(overview: Overview) -> RenderableType:
    status = overview.status
    line = Text()
    colour = _COLOURS.get(status.state, "white")
    line.append(f" {status.state.upper()} ", style=f"bold reverse {colour}")
    line.append(" ")
    step = "no step yet" if status.step is None else as_count(status.step)
    line.append(f"step {step}" if status.step is not None else step, "bold")
    if status.expected_steps:
        line.append(f" of {as_count(status.expected_steps)}")
    if status.epoch is not None:
        line.append(f"   epoch {status.epoch + 1}", "dim")
    if overview.eta_secs is not None:
        line.append(f"   {as_secs(overview.eta_secs)} left", "bold cyan")
    if status.reason not in ("", status.state):
        line.append("  ")
        line.append_text(_text(status.reason, most=160))
    if not status.expected_steps:
        return line
    bar = ProgressBar(
        total=float(status.expected_steps),
        completed=float(min(status.step or 0, status.expected_steps)),
        complete_style=colour,
        finished_style=colour,
    )
    return Group(line, bar, Text(""))


def _facts(overview: Overview, now: float) -> RenderableType:
    status = overview.status
    table = _table()
    what = "durable" if status.shipped_to else "committed"
    table.add_row(what, _text(safe_text(status, now=now), _safe_style(status)))
    beat = Text("never", "dim")
    if status.last_heartbeat is not None:
        secs = now - status.last_heartbeat
        is_old = status.state == "running" and secs > _OLD_SECS
        beat = Text(f"{ago(secs)} ago", "bold red" if is_old else "")
    table.add_row("heartbeat", beat)
    kept = as_count(len(status.checkpoints))
    best = f", the best: {status.best}" if status.best else ""
    table.add_row("checkpoints", _text(f"{kept}{best}", most=120))
    if status.saves and status.state == "running":
        table.add_row("saves", _text(status.saves, most=200))
    return table


def _safe_style(status: RunStatus) -> str:
    if status.unconfirmed_step is not None or status.durable_step is None:
        return "yellow"
    return "green"


class _Goodput:
    """What the time went into: a bar, and what its colours mean."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        split = self._overview.split
        cells = min(_MOST_CELLS, options.max_width)
        no_colours = console.no_color or console.color_system is None
        signs = _SIGNS if no_colours else _FILLED * len(_PARTS)
        head = Text.assemble(
            ("\ngoodput      ", "dim"),
            (f"{100 * (split.goodput or 0):.1f} %", "bold green"),
            f" of {as_secs(split.wall_secs)}",
        )
        if self._overview.left_out:
            head.append(f", over {told_attempts(self._overview)}", "dim")
        head.append("\n")
        parts = [
            (*part, sign, length)
            for part, sign, length in zip(
                _PARTS, signs, _cells_of(split, cells), strict=True
            )
        ]
        for _, _, colour, sign, length in parts:
            head.append(sign * length, colour)
        head.append("\n")
        for name, what, colour, sign, length in parts:
            secs = getattr(split, name)
            if length or secs >= 0.005 * split.wall_secs:
                head.append(sign if no_colours else "■", colour)
                head.append(f" {what} {as_secs(secs)} ", "dim")
        yield head


def _cells_of(split: Split, cells: int) -> list[int]:
    """How much of a bar each part has: never more than there is in all."""
    found, passed, shown = [], 0.0, 0
    for name, _, _ in _PARTS:
        passed += getattr(split, name) / split.wall_secs
        count = max(0, min(cells, round(passed * cells)) - shown)
        found.append(count)
        shown += count
    return found


def _attempts(overview: Overview) -> RenderableType:
    count = as_count(overview.status.attempts)
    lines = Text.assemble(("attempts     ", "dim"), count)
    for stretch in overview.stretches[-_SHOWN_ATTEMPTS:]:
        lines.append(f"\n{stretch.number:>11}  ", "dim")
        lines.append(f"{as_secs(stretch.secs):<12} ")
        lines.append_text(_text(stretch.reason, most=50))
    return lines


class _Measured:
    """The newest metrics, and beside or below them what is used."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        overview = self._overview
        metrics, used = _table(), _table()
        shown = list(overview.metrics.items())[:_SHOWN_METRICS]
        for name, value in shown:
            metrics.add_row(_text(name, most=24), Text(as_value(value), "bold"))
        if more := len(overview.metrics) - len(shown):
            metrics.add_row("", Text(f"and {more} more", "dim"))
        for name, told in resources_text(overview.resources).items():
            used.add_row(name.replace("_wait", ""), _text(told, most=80))
        sent = overview.resources.get("sent_bytes_per_sec")
        if sent:
            used.add_row("network", Text(f"{as_bytes(sent)}/s sent"))
        if not shown and not overview.resources:
            return
        yield Text("")
        if options.max_width < _TWO_COLUMNS:
            yield metrics
            yield used
            return
        both = Table.grid(padding=(0, 3))
        both.add_column(ratio=2)
        both.add_column(ratio=3)
        both.add_row(metrics, used)
        yield both


def _alarm(title: str, lines: Sequence[str], colour: str) -> RenderableType:
    text = Text("\n").join(_each(lines))
    return Panel(
        text, title=title.upper(), border_style=f"bold {colour}", style=colour
    )


def _each(lines: Sequence[str]) -> Iterator[Text]:
    for line in lines:
        yield _text(line, most=400)


def _table() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    return table


def _text(value: str, style: str = "", *, most: int = 300) -> Text:
    """Something that was read, as it is shown: on one line, not too long."""
    flat = printable(" ".join(value.split("\n")))
    return Text(flat if len(flat) <= most else f"{flat[:most]}…", style)
