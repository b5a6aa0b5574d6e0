"""A server as a test uses it.

Invariant: what it holds outlives its network: `stop` and `start` change what
can be reached, never what is there.
"""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

from colab_keras_bg.testing.loopback.faults import Faults
from colab_keras_bg.testing.loopback.front import Api, HttpFront, Tally

__all__ = ["LoopbackServer"]

_POLL_SECS = 0.02


class LoopbackServer:
    """A server on 127.0.0.1, in threads of this process.

    A context manager: it listens from `__enter__` to `__exit__`.

    Attributes:
        faults: What goes wrong.
    """

    def __init__(
        self, service: Api, *, port: int = 0, faults: Faults | None = None
    ) -> None:
        """Takes a port, and does not listen yet.

        Args:
            service: What carries requests out.
            port: The port; any free one if 0.
            faults: What goes wrong; nothing if None.
        """
        self.faults = faults or Faults()
        self._api = service
        self._tally = Tally()
        self._front = self._bound(port)
        self._port: int = self._front.server_address[1]
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens, such as "http://127.0.0.1:40001"."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> Counter[str]:
        """The requests so far by operation, such as "upload.media"."""
        return Counter(self._tally.as_json()["requests"])

    @property
    def bytes_received(self) -> int:
        """The bytes of all requests' bodies so far."""
        return self._tally.bytes_received

    @property
    def bytes_sent(self) -> int:
        """The bytes of all answers' bodies so far."""
        return self._tally.bytes_sent

    def start(self) -> None:
        """Listens, at the same port as ever and with the same objects."""
        if self._thread is None:
            self._front.server_activate()
            self._thread = threading.Thread(
                target=self._front.serve_forever,
                args=(_POLL_SECS,),
                name="loopback server",
                daemon=True,
            )
            self._thread.start()

    def stop(self) -> None:
        """The network is gone: resets connections, refuses others.

        What was being carried out is done or not when this returns.

        Raises:
            RuntimeError: If something went wrong in the server itself.
        """
        if self._thread is None:
            return
        self._front.shutdown()
        self._thread.join()
        self._thread = None
        self._front.server_close()
        self._front.reset_all()
        failures = self._front.failures
        # Bound but not listening, so that nobody else gets the port.
        self._front = self._bound(self._port)
        if failures:
            raise RuntimeError("The loopback server failed.") from failures[0]

    def close(self) -> None:
        """Stops, and gives the port back."""
        try:
            self.stop()
        finally:
            self._front.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _bound(self, port: int) -> HttpFront:
        return HttpFront(port, self._api, self.faults, self._tally)
