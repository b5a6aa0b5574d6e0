"""What is being shipped, held so that it may be given up meanwhile.

Invariant: a file that was pinned stays what it was, whoever removes it: the
trainer may give a checkpoint up without asking anybody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from colab_keras_bg.checkpoint.hashing import Digest, Hasher
from colab_keras_bg.checkpoint.layout import step_directory
from colab_keras_bg.checkpoint.manifest import Manifest

__all__ = ["Pinned", "digest_of"]

_BLOCK_BYTES = 1 << 20


class Pinned:
    """The files that a checkpoint needs, under names of our own.

    Attributes:
        manifest: Its manifest.
    """

    def __init__(self, manifest: Manifest, prefix: str, folder: Path) -> None:
        """Takes a checkpoint; nothing is linked yet.

        Args:
            manifest: Its manifest.
            prefix: The folder of the checkpoints.
            folder: Where the links go.
        """
        self.manifest = manifest
        own = f"{prefix}/{step_directory(manifest.step)}"
        self._digests: dict[str, Digest | None] = {
            f"{prefix}/{step_directory(origin)}/{file}": None
            for origin, file in sorted(manifest.origins)
        }
        for file, digest in manifest.files.items():
            self._digests[f"{own}/{file}"] = digest
        self._folder = folder
        self._paths: dict[str, Path] = {}

    def take(self, directory: Path) -> None:
        """Links the files.

        Args:
            directory: The spool.

        Raises:
            FileNotFoundError: If one is missing.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in self._digests:
            path = self._folder / name.rpartition("/")[2]
            try:
                os.link(directory / name, path)
            except FileNotFoundError:
                raise
            except OSError:  # No links here: it may vanish while it is sent.
                path = directory / name
                os.stat(path)
            self._paths[name] = path

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._paths[name]

    def digests(self) -> Iterator[tuple[str, Digest]]:
        """Each file's name, with what it has to be.

        Of one that an earlier step has written, its own manifest may be gone.
        """
        for name, digest in self._digests.items():
            yield name, digest or digest_of(self.path(name))


def digest_of(path: Path) -> Digest:
    """Size and checksums of a file.

    Args:
        path: The file.
    """
    hasher = Hasher()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.digest()
