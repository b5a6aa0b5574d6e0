"""The server as a test uses it.

Invariant: its objects outlive its network: `stop` and `start` change what can
be reached, never what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from colab_keras_bg.testing.loopback.faults import Faults
from colab_keras_bg.testing.loopback.process import SpawnedServer
from colab_keras_bg.testing.loopback.server import LoopbackServer
from colab_keras_bg.testing.loopback_gcs.buckets import Buckets
from colab_keras_bg.testing.loopback_gcs.objects import StoredObject
from colab_keras_bg.testing.loopback_gcs.service import Service

__all__ = ["LoopbackGcs", "SpawnedLoopbackGcs"]


class SpawnedLoopbackGcs(SpawnedServer):
    """A `LoopbackGcs` in another process, until it is closed."""

    def __init__(self, *arguments: str) -> None:
        """Starts it.

        Args:
            *arguments: Of `python -m colab_keras_bg.testing.loopback_gcs`.

        Raises:
            RuntimeError: If it does not start.
        """
        super().__init__("colab_keras_bg.testing.loopback_gcs", *arguments)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that lead `storage.Client` there."""
        return {"STORAGE_EMULATOR_HOST": self.url}


class LoopbackGcs(LoopbackServer):
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
        self._buckets = Buckets(
            buckets,
            forbidden=forbidden,
            clock=clock,
            md5=md5,
            write_interval_secs=write_interval_secs,
        )
        service = Service(
            self._buckets, rewrite_bytes_per_call=rewrite_bytes_per_call
        )
        super().__init__(service, port=port, faults=faults)

    @staticmethod
    def spawn(*arguments: str) -> SpawnedLoopbackGcs:
        """Starts one in a process of its own.

        Args:
            *arguments: Of `python -m colab_keras_bg.testing.loopback_gcs`.
        """
        return SpawnedLoopbackGcs(*arguments)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that lead `storage.Client` here."""
        return {"STORAGE_EMULATOR_HOST": self.url}

    def objects(self, bucket: str = "bucket") -> Mapping[str, StoredObject]:
        """The objects of a bucket by name, as they are now."""
        return self._buckets.objects(bucket)
