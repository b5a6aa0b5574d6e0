"""The server as a test uses it.

Invariant: its objects outlive its network: `stop` and `start` change what can
be reached, never what is there.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from colab_keras_bg.testing.loopback_gcs.buckets import Buckets
from colab_keras_bg.testing.loopback_gcs.faults import Faults
from colab_keras_bg.testing.loopback_gcs.front import HttpFront, Tally
from colab_keras_bg.testing.loopback_gcs.objects import StoredObject
from colab_keras_bg.testing.loopback_gcs.process import SpawnedLoopbackGcs
from colab_keras_bg.testing.loopback_gcs.service import Service

__all__ = ["LoopbackGcs"]

_POLL_SECS = 0.02


class LoopbackGcs:
    """A server of the GCS JSON API on 127.0.0.1, in threads of this process.

    A context manager: it listens from `__enter__` to `__exit__`.

    Attributes:
        faults: What goes wrong.
    """

    def __init__(
        self,
        buckets: Iterable[str] = ("bucket",),
        *,
        forbidden: Iterable[str] = (),
        port: int = 0,
        faults: Faults | None = None,
        md5: bool = True,
        write_interval_secs: float = 0.0,
        rewrite_bytes_per_call: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Takes a port, and does not listen yet.

        Args:
            buckets: The buckets that there are.
            forbidden: Buckets to which every access is denied.
            port: The port; any free one if 0.
            faults: What goes wrong; nothing if None.
            md5: Whether uploads get an MD5. To hash costs more than all the
                rest; what measures an uploader may do without.
            write_interval_secs: How long after one write to a name another
                is refused with 429; the service's is about a second.
            rewrite_bytes_per_call: How much one rewrite copies before it
                asks to be called again; all if None.
            clock: The time, as seconds since 1970.
        """
        self.faults = faults or Faults()
        self._buckets = Buckets(
            buckets,
            forbidden=forbidden,
            clock=clock,
            md5=md5,
            write_interval_secs=write_interval_secs,
        )
        self._service = Service(
            self._buckets, rewrite_bytes_per_call=rewrite_bytes_per_call
        )
        self._tally = Tally()
        self._front = self._bound(port)
        self._port: int = self._front.server_address[1]
        self._thread: threading.Thread | None = None

    @staticmethod
    def spawn(*arguments: str) -> SpawnedLoopbackGcs:
        """Starts one in a process of its own.

        Args:
            *arguments: Of `python -m colab_keras_bg.testing.loopback_gcs`.
        """
        return SpawnedLoopbackGcs(*arguments)

    @property
    def url(self) -> str:
        """Where it listens, such as "http://127.0.0.1:40001"."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that lead `storage.Client` here."""
        return {"STORAGE_EMULATOR_HOST": self.url}

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

    def objects(self, bucket: str = "bucket") -> Mapping[str, StoredObject]:
        """The objects of a bucket by name, as they are now."""
        return self._buckets.objects(bucket)

    def start(self) -> None:
        """Listens, at the same port as ever and with the same objects."""
        if self._thread is None:
            self._front.server_activate()
            self._thread = threading.Thread(
                target=self._front.serve_forever,
                args=(_POLL_SECS,),
                name="loopback-gcs",
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
        return HttpFront(port, self._service, self.faults, self._tally)
