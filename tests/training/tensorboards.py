"""Readers of TensorBoard's files: its own, in this process and as a server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tensorboard.util.tensor_util import make_ndarray

# By folder, tag and step, what is shown.
Shown = dict[str, dict[str, list[tuple[int, float]]]]

_FAST = {"data server": "true", "Python": "false"}
SERVERS = tuple(_FAST)


def accumulated(root: Path) -> Shown:
    """The scalars that a new EventAccumulator of each folder finds."""
    found: Shown = {}
    folders = sorted({path.parent for path in root.rglob("*.tfevents.*")})
    for folder in folders:
        reader = EventAccumulator(str(folder), size_guidance={"tensors": 0})
        reader.Reload()
        name = folder.relative_to(root).as_posix()
        found[name] = {
            tag: [
                (event.step, float(make_ndarray(event.tensor_proto)))
                for event in reader.Tensors(tag)
            ]
            for tag in reader.Tags()["tensors"]
            if reader.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
        }
    return found


class Server:
    """A TensorBoard as a user starts it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **query: str) -> Any:
        """What it answers, parsed; None if there is no such thing."""
        url = f"{self._url}data/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code in (400, 404):
                return None
            raise

    def shown(self) -> Shown:
        """All scalars that it shows."""
        return {
            run: {
                tag: [
                    (step, float(value))
                    for _, step, value in self.get(
                        "plugin/scalars/scalars", run=run, tag=tag
                    )
                    or []
                ]
                for tag in tags
            }
            for run, tags in self.get("plugin/scalars/tags").items()
        }


# TensorBoard reads files by TensorFlow where there is one, which takes seconds
# to start, and by itself where there is none.
_WITHOUT = "import sys; sys.modules['tensorflow'] = None; "
_MAIN = "from tensorboard.main import run_main; run_main()"


@contextmanager
def serving(
    root: Path, *, kind: str, tensorflow: bool = False
) -> Iterator[Server]:
    """Starts a TensorBoard on this machine that looks every second.

    Args:
        root: What it shows.
        kind: One of `SERVERS`.
        tensorflow: Whether it may see TensorFlow, if there is one.
    """
    command = [
        *(sys.executable, "-c", _MAIN if tensorflow else _WITHOUT + _MAIN),
        *("--logdir", str(root), "--host", "127.0.0.1", "--port", "0"),
        *("--reload_interval", "1", "--load_fast", _FAST[kind]),
        *("--samples_per_plugin", "scalars=100000"),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\d+/", line):
                break
        else:
            raise AssertionError("".join(said))
        # What it says later is read by nobody, and little.
        yield Server(address[0])
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()
