"""The server as a program.

    python -m colab_keras_bg.testing.loopback_drive --port=0 --folder=runs

prints its URL in the first line. The lines "stop" and "start" on its standard
input take its network away and give it back, and are echoed when that is
done.

Invariant: see `serve`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from colab_keras_bg.testing.loopback.faults import Faults
from colab_keras_bg.testing.loopback.program import serve
from colab_keras_bg.testing.loopback_drive.server import LoopbackDrive

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server.

    Args:
        arguments: Those of the command line; the process' own if None.

    Returns:
        The exit status.
    """
    parent = os.getppid()  # Before anybody can know that we are there.
    parser = argparse.ArgumentParser(
        prog="python -m colab_keras_bg.testing.loopback_drive",
        description="A server of the Drive API on 127.0.0.1.",
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="any free one if 0")
    add("--folder", action="append", default=[], help="may come several times")
    add("--seed", type=int, default=0, help="of random faults")
    add("--rate", type=float, default=0.0, help="of random faults")
    options = parser.parse_args(arguments)
    server = LoopbackDrive(
        options.folder,
        port=options.port,
        faults=Faults.random(options.seed, options.rate),
    )
    serve(server, parent=parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
