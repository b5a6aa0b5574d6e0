"""All benchmarks, one table each: `python -m benchmarks`.

`--quick` leaves the largest states out. Tables are printed as Markdown; where
matplotlib is installed, `benchmarks/blocked.png` shows how the time that a
save blocks the training grows with the size of the state. Each measurement runs
in a process of its own; what is compared runs in the same one.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

PEERS = ["none", "ours", "BackupAndRestore", "OrbaxCheckpoint"]
SIZES_MB = [10, 100, 300, 1000, 4000]
NUMBERS = [12, 300, 3000, 10_000]
STATES = ["answers", "hangs", "fails", "gone"]
KEPT = [2, 30, 300, 1000]


def measured(module: str, *arguments: object) -> dict[str, Any]:
    """What a benchmark printed, run in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peers() -> list[str]:
    """Those that there are, on this backend and with this Keras."""
    import keras

    found = [
        name
        for name in PEERS
        if name in ("none", "ours") or hasattr(keras.callbacks, name)
    ]
    if keras.backend.backend() == "tensorflow":
        found.append("CheckpointManager")
    return found


def median(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    """Of one number over the rounds."""
    return statistics.median(one[name] for one in rounds)


def row(cells: Sequence[object]) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table."""
    print(row(head))
    print(row(["---"] * len(head)))
    for cells in rows:
        print(row(cells), flush=True)
    print()


def saving(
    settings: Sequence[tuple[int, int]], *, title: str
) -> list[dict[str, Any]]:
    """Saves of several states, by all peers."""
    found, rows = [], []
    names = peers()
    for megabytes, variables in settings:
        # Rounds even out what passes; of these, one takes minutes.
        rounds = 1 if megabytes > 1000 or variables > 3000 else 3
        one = measured("saving", megabytes, variables, rounds, ",".join(names))
        found.append(one)
        bare = median(one["peers"]["none"], "took_secs")
        for name in names[1:]:
            shown = one["peers"][name]
            rows.append(
                [
                    f"{one['megabytes']:.0f}",
                    one["variables"],
                    name,
                    f"{median(shown, 'blocked_ms'):.1f}",
                    f"{median(shown, 'first_ms'):.1f}",
                    f"{median(shown, 'took_secs') - bare:.2f}",
                    f"{median(shown, 'memory_mb'):.0f}",
                    f"{median(shown, 'written_mb'):.0f}",
                ]
            )
    print(f"{title}\n")
    table(
        [
            "state, MB",
            "variables",
            "by",
            "blocked a save, ms",
            "by the first, ms",
            "four saves and their end, s beyond bare `fit`",
            "memory beyond, MB",
            "written, MB",
        ],
        rows,
    )
    return found


def restoring(sizes: Sequence[int]) -> None:
    """Reading back, by size."""
    found = [measured("restoring", size, 300, 5) for size in sizes]
    names = [name for name in found[-1]["secs"] if "reading" not in name]
    print("Reading back into the variables, ours with verification\n")
    table(
        ["state, MB", "speed over safetensors", *(f"{n}, ms" for n in names)],
        [
            [
                f"{one['megabytes']:.0f}",
                f"{one['speed_over_safetensors']:.2f}",
                *(f"{one['secs'][name] * 1e3:.0f}" for name in names),
            ]
            for one in found
        ],
    )


def going_back() -> None:
    """To the first new batch, by kind of data."""
    one = measured("going_back", 3000, 3)
    print(f"To the first new batch, {one['batches']} batches into an epoch\n")
    table(
        [
            "data",
            "a new training, ms",
            "going back, ms",
            "drawing the batches before, ms",
        ],
        [
            [name, *(f"{value:.0f}" for value in numbers.values())]
            for name, numbers in one["sources"].items()
        ],
    )


def keeping(numbers: Sequence[int]) -> None:
    """A small save, by how many are kept; and what is written of little."""
    found = [measured("keeping", number) for number in numbers]
    names = list(found[0]["milliseconds"])
    print("A save of 16 kB and giving up the oldest, by how many are kept\n")
    table(
        ["kept", *(f"{name}, ms" for name in names)],
        [
            [
                one["kept"],
                *(f"{one['milliseconds'][name]:.1f}" for name in names),
            ]
            for one in found
        ],
    )
    share = found[-1]["frozen_share"]
    print(f"Written if 90 % of the state is frozen: {share:.1%} of it.\n")


def shipping(megabytes: int) -> None:
    """To a bucket on this machine."""
    one = measured("shipping", megabytes, 5)
    print(f"Shipping {megabytes} MiB to a loopback server\n")
    table(
        ["by", "s", "s of a core"],
        [
            [name, f"{secs:.2f}", f"{one['cpu_secs'][name]:.2f}"]
            for name, secs in one["secs"].items()
        ],
    )
    print(
        f"Speed over the peer: {one['speed_over_peer']:.2f}. The sidecar had "
        f"{one['sidecar_peak_mb']:.0f} MB at most, and idle it used "
        f"{one['sidecar_idle_share']:.1%} of a core.\n"
    )


def console() -> None:
    """What is printed, and what it costs to keep it."""
    one = measured("console", 200, 3)
    table(
        ["printed", "MB a second"],
        [
            ["lines, stored", f"{one['lines']:.0f}"],
            ["bars, stored", f"{one['bars']:.0f}"],
            ["by a program, not kept", f"{one['without']:.0f}"],
            ["by a program, kept", f"{one['with']:.0f}"],
        ],
    )
    print(f"The program is slowed down by {one['slowed']:.1%}.\n")


def protection(secs: int) -> None:
    """The whole protection, beside a bare fit."""
    one = measured("protection", secs, 3)
    table(
        ["a step, ms", "wall", "cores"],
        [
            [
                f"{one['step_ms']:.1f}",
                f"{one['wall_ratio']:.3f}x",
                f"{one['core_ratio']:.3f}x",
            ]
        ],
    )


def tensorboard() -> None:
    """Showing each step, and shipping what is shown."""
    one = measured("tensorboard", 5)
    kinds = [name for name in ("ours", "keras") if f"{name}_ms" in one]
    print(f"TensorBoard at each step, of {one['bare_ms']:.2f} ms\n")
    table(
        ["by", "a step longer, ms", "of a core, ms"],
        [
            [name, f"{one[f'{name}_ms']:.2f}", f"{one[f'{name}_core_ms']:.2f}"]
            for name in kinds
        ],
    )
    for looks, sent in one.items():
        if looks.endswith("looks"):
            print(
                f"{sent['written_mb']:.0f} MB of events, {looks}: "
                f"{sent['over_written']:.3f} of it sent.\n"
            )


def in_trouble(megabytes: int) -> None:
    """Saves of a run in a bucket, whatever becomes of that."""
    names = ["none", "ours", *(f"bucket {state}" for state in STATES)]
    one = measured("saving", megabytes, 300, 3, ",".join(names))
    print(f"A save of {one['megabytes']:.0f} MB while the bucket ...\n")
    table(
        ["", "blocked a save, ms"],
        [
            [name, f"{median(one['peers'][name], 'blocked_ms'):.1f}"]
            for name in names[1:]
        ],
    )


def looking() -> None:
    """Importing us, and looking at a run of three days."""
    one = measured("looking")
    print(f"A run of three days, {one['run_bytes'] / 1e6:.0f} MB.\n")
    table(
        ["", "ms", "beyond bare Python, ms"],
        [
            [name, millisecs, one["beyond_bare_python"][name]]
            for name, millisecs in one["milliseconds"].items()
        ],
    )


def plot(found: Sequence[Mapping[str, Any]], where: Path) -> None:
    """Blocked time over the size of the state, if there is matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("matplotlib is not installed: no plot.")
        return
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name in peers()[1:]:
        axes.plot(
            [one["megabytes"] for one in found],
            [median(one["peers"][name], "blocked_ms") for one in found],
            marker="o",
            label=name,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="state, MB",
        ylabel="training blocked a save, ms",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(where, dpi=120)
    print(f"{where} shows it.")


def main() -> None:
    """Measures everything."""
    import keras

    quick = "--quick" in sys.argv[1:]
    sizes = SIZES_MB[:3] if quick else SIZES_MB
    numbers = NUMBERS[:2] if quick else NUMBERS
    print(
        f"{date.today()}, {os.cpu_count()} CPU cores, Python "
        f"{platform.python_version()}, Keras {keras.__version__} on "
        f"{keras.backend.backend()}\n"
    )
    by_size = saving(
        [(size, 300) for size in sizes], title="A save, by the state's size"
    )
    plot(by_size, Path(__file__).with_name("blocked.png"))
    saving(
        [(100, number) for number in numbers],
        title="A save, by the number of variables",
    )
    keeping(KEPT[:2] if quick else KEPT)
    restoring([size for size in sizes if size <= 1000])
    going_back()
    shipping(128 if quick else 512)
    tensorboard()
    console()
    protection(20 if quick else 90)
    in_trouble(100 if quick else 300)
    looking()


if __name__ == "__main__":
    main()
