"""Where a run stands, as lines of text.

Invariant: `name   value`, a line each, whatever was read: nothing breaks a
line or commands a terminal. The first rows are always there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
from colab_keras_bg.report.timeline import Split

__all__ = [
    "as_text",
    "metrics_text",
    "resources_text",
    "safe_text",
    "split_text",
    "told_attempts",
]

_SHOWN_STEPS = 6
_SHOWN_METRICS = 8


def as_text(
    status: RunStatus, *, now: float, overview: Overview | None = None
) -> str:
    """One screen for people.

    Args:
        status: What to show.
        now: Seconds since 1970.
        overview: How it goes, if that is to be shown, too.
    """
    step = "-" if status.step is None else str(status.step)
    if status.expected_steps:
        step += f" of {status.expected_steps}"
    if status.epoch is not None:
        step += f" (epoch {status.epoch + 1})"
    reason = "" if status.reason in ("", status.state) else f": {status.reason}"
    beat = "never"
    if status.last_heartbeat is not None:
        beat = f"{ago(now - status.last_heartbeat)} ago"
    rows = [
        ("run", status.run_dir),
        ("state", status.state + reason),
        ("step", step),
        (
            "durable" if status.shipped_to else "committed",
            safe_text(status, now=now),
        ),
        ("checkpoints", _listed(status.checkpoints)),
        ("attempts", str(status.attempts)),
        ("heartbeat", beat),
    ]
    if status.best:
        rows.insert(5, ("best", status.best))
    if overview is not None:
        rows += _how_it_goes(overview)
    if status.saves and status.state == "running":
        rows.append(("saves", status.saves))
    if status.problem:
        rows.append(("problem", status.problem))
    rows += [("damaged", text) for text in status.damaged]
    return "\n".join(
        f"{name:<12} {printable(' '.join(text.split(chr(10))))}"
        for name, text in rows
    )


def _how_it_goes(overview: Overview) -> list[tuple[str, str]]:
    rows = []
    goodput = overview.split.goodput
    if goodput is not None and overview.split.wall_secs >= 1:
        rows.append(("goodput", split_text(overview.split)))
        if overview.left_out:
            told = f"{rows[-1][1]}, over {told_attempts(overview)}"
            rows[-1] = ("goodput", told)
    if overview.eta_secs is not None:
        rows.append(("eta", f"{as_secs(overview.eta_secs)} left"))
    if overview.metrics:
        rows.append(("metrics", metrics_text(overview.metrics)))
    if overview.diverged:
        rows.append(("diverged", divergence_text(overview.diverged)))
    if used := resources_text(overview.resources):
        rows.append(("resources", "; ".join(used.values())))
    return rows


def told_attempts(overview: Overview) -> str:
    """Of how many attempts the time is known, where not of all."""
    count = overview.status.attempts
    told = as_count(max(0, count - overview.left_out))
    return f"{told} of {as_count(count)} attempts"


def split_text(split: Split) -> str:
    """The goodput, and where the rest of the time went."""
    rest = [
        (secs, name)
        for name, secs in (
            ("lost", split.lost),
            ("starting", split.starting),
            ("between attempts", split.waiting),
            ("waiting for data", split.input_wait),
            ("saving", split.save_wait),
        )
        if secs >= 0.005 * split.wall_secs
    ]
    told = f"{100 * (split.goodput or 0):.1f} % of {as_secs(split.wall_secs)}"
    if rest:
        parts = (f"{name} {as_secs(secs)}" for secs, name in sorted(rest)[::-1])
        told += f" ({', '.join(parts)})"
    return told


def metrics_text(metrics: Mapping[str, float]) -> str:
    """The newest values, a few of them."""
    shown = list(metrics.items())[:_SHOWN_METRICS]
    told = ", ".join(f"{name[:60]} {as_value(v)}" for name, v in shown)
    more = len(metrics) - len(shown)
    return told + (f", and {more} more" if more else "")


def resources_text(used: Mapping[str, Any]) -> dict[str, str]:
    """What is used, in words, by what it is."""
    found: dict[str, str] = {}
    if "cores_busy" in used:
        of = f" of {used['cores']:g}" if "cores" in used else ""
        found["cpu"] = f"{used['cores_busy']:.1f}{of} cores"
    if "memory_used_bytes" in used and "memory_total_bytes" in used:
        total = as_bytes(used["memory_total_bytes"])
        found["memory"] = f"{as_bytes(used['memory_used_bytes'])} of {total}"
    if "disk_free_bytes" in used:
        found["disk"] = f"{as_bytes(used['disk_free_bytes'])} disk free"
    for index, gpu in enumerate(used.get("gpus", ())):
        found[f"gpu {index}"] = _gpu_text(gpu)
    if "step_secs" in used:
        found["step"] = f"{1000 * used['step_secs']:.4g} ms a step"
    for name, what in (("input_wait", "data"), ("save_wait", "saves")):
        if used.get(name, 0) >= 0.005:
            found[name] = f"{100 * used[name]:.0f} % waiting for {what}"
    return found


def _gpu_text(gpu: Mapping[str, Any]) -> str:
    parts = [str(gpu.get("name", "GPU"))]
    if "utilisation" in gpu:
        parts.append(f"{100 * gpu['utilisation']:.0f} %")
    if "used_bytes" in gpu and "total_bytes" in gpu:
        total = as_bytes(gpu["total_bytes"])
        parts.append(f"{as_bytes(gpu['used_bytes'])} of {total}")
    if "celsius" in gpu:
        parts.append(f"{gpu['celsius']:.0f} °C")
    return " ".join(parts)


def safe_text(status: RunStatus, *, now: float) -> str:
    """Which step is safe, since when, and where."""
    if status.unconfirmed_step is not None:
        return (
            f"not confirmed: step {status.unconfirmed_step} was written to "
            f"{status.shipped_to}, which does not tell what has arrived"
        )
    if status.durable_step is None:
        if status.committed_step is None or status.shipped_to is None:
            return "nothing yet"
        return f"nothing yet; step {status.committed_step} on its way there"
    since = ""
    if status.durable_since is not None:
        since = f", {ago(now - status.durable_since)} ago"
    where = status.shipped_to or "this machine's disk"
    ahead = ""
    if (status.committed_step or 0) > status.durable_step:
        ahead = f"; step {status.committed_step} on its way there"
    return f"step {status.durable_step}{since}, on {where}{ahead}"


def _listed(steps: Sequence[int]) -> str:
    if len(steps) <= _SHOWN_STEPS:
        return ", ".join(map(str, steps)) or "none"
    newest = ", ".join(map(str, steps[-_SHOWN_STEPS:]))
    return f"{len(steps)}, the newest: {newest}"
