"""A loopback server of GCS, and a bucket of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.cloud import storage

from colab_keras_bg.testing.loopback_gcs import LoopbackGcs

from .gcs import client_of


@pytest.fixture
def server() -> Iterator[LoopbackGcs]:
    """A server with one bucket, and one that is forbidden."""
    with LoopbackGcs(["bucket"], forbidden=["secret"]) as server:
        yield server


@pytest.fixture
def bucket(server: LoopbackGcs) -> Iterator[storage.Bucket]:
    """The bucket, as the real client sees it."""
    client = client_of(server.url)
    yield client.bucket("bucket")
    client.close()
