"""The server as a program.

    python -m colab_keras_bg.testing.loopback_gcs --port=0 --bucket=b

prints its URL in the first line. The lines "stop" and "start" on its standard
input take its network away and give it back, and are echoed when that is
done.

Invariant: it ends at SIGTERM or SIGINT, when its standard input is closed,
and when its parent is gone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from colab_keras_bg.testing.loopback.faults import Faults
from colab_keras_bg.testing.loopback.program import serve
from colab_keras_bg.testing.loopback_gcs.server import LoopbackGcs

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server.

    Args:
        arguments: Those of the command line; the process' own if None.

    Returns:
        The exit status.
    """
    parent = os.getppid()  # Before anybody can know that we are there.
    options = _parser().parse_args(arguments)
    faults = Faults.random(options.seed, options.rate)
    server = LoopbackGcs(
        options.bucket or ["bucket"],
        forbidden=options.forbidden,
        port=options.port,
        faults=faults,
        md5=not options.no_md5,
    )
    serve(server, parent=parent)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m colab_keras_bg.testing.loopback_gcs",
        description="A server of the GCS JSON API on 127.0.0.1.",
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="any free one if 0")
    add("--bucket", action="append", help="may come several times")
    add("--forbidden", action="append", default=[], help="the same")
    add("--no_md5", action="store_true", help="uploads get no MD5")
    add("--seed", type=int, default=0, help="of random faults")
    add("--rate", type=float, default=0.0, help="of random faults")
    return parser


if __name__ == "__main__":
    sys.exit(main())
