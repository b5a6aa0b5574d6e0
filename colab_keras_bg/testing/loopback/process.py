"""The server in a process of its own.

Invariant: the process ends with the one that started it, however that ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from colab_keras_bg.testing.loopback.faults import Fault

__all__ = ["RemoteFaults", "SpawnedServer"]

_PATIENCE_SECS = 30


class RemoteFaults:
    """The `Faults` of a server in another process."""

    def __init__(self, ask: Callable[[str, object], dict[str, Any]]) -> None:
        """Takes what sends an order there."""
        self._ask = ask

    @property
    def struck(self) -> Counter[str]:
        """See `Faults`."""
        return Counter(self._ask("/_faults", {})["struck"])

    def add(self, *faults: Fault) -> None:
        """See `Faults.add`."""
        self._ask("/_faults", {"add": [vars(fault) for fault in faults]})

    def strike_randomly(self, seed: int, rate: float) -> None:
        """See `Faults.strike_randomly`."""
        self._ask("/_faults", {"random": {"seed": seed, "rate": rate}})

    def clear(self) -> None:
        """See `Faults.clear`."""
        self._ask("/_faults", {"clear": True})

    def release(self) -> None:
        """See `Faults.release`."""
        self._ask("/_faults", {"release": True})


class SpawnedServer:
    """A loopback server in another process, until it is closed.

    Attributes:
        url: Where it listens.
        pid: Its process.
        faults: What goes wrong.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        """Starts it.

        Args:
            module: The program: `colab_keras_bg.testing.loopback_gcs`, say.
            *arguments: Its arguments.

        Raises:
            RuntimeError: If it does not start.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - for mypy
        self.url = self._process.stdout.readline().strip()
        self.pid = self._process.pid
        self.faults = RemoteFaults(self._asked)
        if not self.url:
            self.close()
            raise RuntimeError("The loopback server did not start.")

    @property
    def requests(self) -> Counter[str]:
        """See `LoopbackServer.requests`."""
        return Counter(self._asked("/_requests")["requests"])

    @property
    def bytes_received(self) -> int:
        """See `LoopbackServer.bytes_received`."""
        return int(self._asked("/_requests")["bytes_received"])

    @property
    def bytes_sent(self) -> int:
        """See `LoopbackServer.bytes_sent`."""
        return int(self._asked("/_requests")["bytes_sent"])

    def stop(self) -> None:
        """See `LoopbackServer.stop`."""
        self._tell("stop")

    def start(self) -> None:
        """See `LoopbackServer.start`."""
        self._tell("start")

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=_PATIENCE_SECS)  # Closes its input.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _tell(self, word: str) -> None:
        """Says a word, and waits until it is done."""
        process = self._process
        assert process.stdin is not None  # noqa: S101 - for mypy
        assert process.stdout is not None  # noqa: S101 - for mypy
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        if process.stdout.readline().strip() != word:
            raise RuntimeError(f"The loopback server did not {word}.")

    def _asked(self, path: str, order: object = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - a URL of our own
            self.url + path,
            None if order is None else json.dumps(order).encode(),
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_PATIENCE_SECS) as answer:
            told: dict[str, Any] = json.load(answer)
        return told
