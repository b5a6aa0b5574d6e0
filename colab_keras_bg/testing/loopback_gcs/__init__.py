"""A loopback server of the Google Cloud Storage JSON API, with faults.

    with LoopbackGcs(buckets=["bucket"]) as server:
        client = storage.Client(
            credentials=AnonymousCredentials(),
            project="none",
            client_options={"api_endpoint": server.url},
        )
        server.faults.add(Fault("upload.*", "lost_answer"))
        client.bucket("bucket").blob("a").upload_from_string(b"1")

It serves what `google.cloud.storage` asks for: buckets (to read), uploads by
media, multipart and resumable, preconditions on every verb, checksums,
ranges, metadata, compose, copy, rewrite, delete, lists, batches. As a process
of its own: `python -m colab_keras_bg.testing.loopback_gcs`, or
`LoopbackGcs.spawn()`; there, `POST /_faults` and `GET /_requests` do what
`faults` and `requests` do here.

The operations, as `requests` counts them and a `Fault` names them:
"bucket.list", "bucket.get", "bucket.permissions", "list", "get.metadata",
"get.media", "patch", "update", "delete", "compose", "rewrite", "copy",
"batch" (and each of its parts besides), "upload.media", "upload.multipart",
"upload.resumable.start", ".chunk", ".last" (the chunk that ends it),
".status" and ".cancel".

Known differences from the real service:

- There are no credentials, permissions, quotas, bills or latencies; buckets
  are neither created, changed nor deleted.
- No XML API (hence no XML multipart upload and no signed URLs), no gRPC, no
  HTTPS, no HTTP/2, no `X-HTTP-Method-Override`.
- No versioning, soft deletion, retention, holds that hold, ACLs, encryption
  keys, notifications, folders, `moveTo`, `matchGlob`. Nothing expires.
- `fields`, `projection`, `userProject` and the like are ignored: the whole
  answer comes. `versions=true` lists what is live.
- Content stored with `Content-Encoding: gzip` is never unpacked.
- A chunk, other than the last, that is no multiple of 256 KiB is refused with
  400; so is one that leaves a gap. The service may keep the beginning of the
  first. A request that ends early leaves as many whole 256 KiB as came; the
  service may have kept fewer.
- An upload that was cancelled, or whose checksum was wrong, is 410; one that
  is not known is 404. The service is not as regular.
- A rewrite takes several calls only if `maxBytesRewrittenPerCall` or
  `rewrite_bytes_per_call` says so; its tokens do not bind the destination.
- Writes to one name faster than once a second are taken, unless
  `write_interval_secs` or a fault says otherwise.
- In a batch, `get`, `patch` and `delete` of objects are served, and of all
  faults only "status" strikes a part.
- Messages of errors are like the service's; a program should read no more
  than their status and reason.
"""

from __future__ import annotations

from colab_keras_bg.testing.loopback.faults import (
    PASSING_FAULTS,
    Fault,
    Faults,
)
from colab_keras_bg.testing.loopback_gcs.objects import StoredObject
from colab_keras_bg.testing.loopback_gcs.server import (
    LoopbackGcs,
    SpawnedLoopbackGcs,
)

__all__ = [
    "PASSING_FAULTS",
    "Fault",
    "Faults",
    "LoopbackGcs",
    "SpawnedLoopbackGcs",
    "StoredObject",
]
