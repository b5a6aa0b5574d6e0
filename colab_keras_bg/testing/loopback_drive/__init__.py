"""A loopback server of the Google Drive API, v3, with faults.

    with LoopbackDrive(["runs"]) as server:
        document = json.loads(get_static_doc("drive", "v3"))
        document["rootUrl"] = server.url + "/"
        document["baseUrl"] = server.url + "/drive/v3/"
        drive = build_from_document(document, http=httplib2.Http())
        server.faults.add(Fault("upload.*", "lost_answer"))
        drive.files().create(body={"name": "a"}).execute()

It serves `about.get`, `drives.list`, and of `files`: `generateIds`, `list`,
`create`, `get`, `update` and `delete`, with uploads by media, multipart and
resumable. As a process of its own: `python -m
colab_keras_bg.testing.loopback_drive`, or `LoopbackDrive.spawn()`; there,
`POST /_faults` and `GET /_requests` do what `faults` and `requests` do here.

The operations, as `requests` counts them and a `Fault` names them: "about",
"drives.list", "ids", "list", "create", "get.metadata", "get.media", "update",
"delete", "upload.media", "upload.multipart", "upload.resumable.start",
".chunk", ".last" (the chunk that ends it), ".status" and ".cancel".

Known differences from the real service:

- No OAuth: bearer tokens are accepted by a list, or not asked for. No
  permissions but for one: what is shared cannot be deleted.
- No latencies, no limit of requests, no limit of files in a folder.
- No revisions, comments, changes, exports, copies, shortcuts, app data, pages
  of `drives.list`, HTTPS or HTTP/2; nothing of documents but that they have
  no bytes.
- `fields`, `spaces`, `corpora` other than "drive", and the like are ignored:
  the whole answer comes. Of `orderBy` only `createdTime` is served.
- `q` is served as far as `query.py` says; `name contains` looks at the
  beginning of the name only; `name =` takes no notice of case, as the service
  may. Page tokens are places in the list, which may have changed.
- Any id that was never used can be given to a new file, not only one that
  `generateIds` has told.
- A chunk that ends early leaves as many whole 256 KiB as came; the service may
  have kept fewer.
- Trashed files are not deleted after 30 days.
"""

from __future__ import annotations

from colab_keras_bg.testing.loopback.faults import (
    PASSING_FAULTS,
    Fault,
    Faults,
)
from colab_keras_bg.testing.loopback_drive.files import StoredFile
from colab_keras_bg.testing.loopback_drive.server import (
    LoopbackDrive,
    SpawnedLoopbackDrive,
)

__all__ = [
    "PASSING_FAULTS",
    "Fault",
    "Faults",
    "LoopbackDrive",
    "SpawnedLoopbackDrive",
    "StoredFile",
]
