"""The records of a run, wherever they lie.

Invariant: looking changes nothing, and "cannot be read" is never taken for
"there is nothing there".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from colab_keras_bg.checkpoint.head import HEAD
from colab_keras_bg.checkpoint.store import CheckpointStore
from colab_keras_bg.errors import UsageError
from colab_keras_bg.journal.announce import say
from colab_keras_bg.journal.attempts import Attempts
from colab_keras_bg.journal.progress import ProgressBar
from colab_keras_bg.storage.addresses import (
    is_remote,
    local_directory,
    open_remote,
    remote_address,
)
from colab_keras_bg.storage.interface import Storage
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.storage.records import DamagedRecordError, read_record

__all__ = ["DONE", "RUN", "StoredRun", "stored_run"]

RUN = "run.json"
DONE = "DONE"


class StoredRun:
    """What is stored of a run.

    Attributes:
        address: Where, as people write it: an absolute path, or a URL.
        storage: Its objects.
        checkpoints: What training goes on from.
        finals: What each finished `fit` left.
        attempts: The attempts made.
        is_remote: Whether it lies beyond this machine.
    """

    def __init__(
        self, storage: Storage, *, address: str, is_remote: bool = False
    ) -> None:
        """Takes its objects; nothing is read yet.

        Args:
            storage: The objects.
            address: Where they are.
            is_remote: Whether that is beyond this machine.
        """
        self.address = address
        self.storage = storage
        self.is_remote = is_remote
        watch = ProgressBar()
        self.checkpoints = CheckpointStore(storage, watch=watch)
        self.finals = CheckpointStore(
            storage, prefix="final", refers=False, watch=watch
        )
        self.attempts = Attempts(storage)

    def holds_a_run(self) -> bool:
        """Whether anything of a run is there, whole or not.

        Raises:
            StorageUnavailableError: If that cannot be told.
        """
        return (
            any(self.storage.exists(name) for name in (RUN, HEAD, DONE))
            or bool(self.attempts.numbers())
            or bool(self.checkpoints.steps() or self.finals.steps())
        )

    def check_holds_a_run(self) -> None:
        """Returns if there is a run.

        Raises:
            UsageError: If there is none.
            StorageUnavailableError: If that cannot be told.
        """
        if not self.holds_a_run():
            raise UsageError(
                f"There is no run in {self.address}: give the directory that "
                "`train` was given as --run_dir."
            )

    def done(self) -> dict[str, Any] | None:
        """What DONE says; None if the run is not done."""
        try:
            return read_record(self.storage, DONE)
        except DamagedRecordError as error:
            say(str(error))
            return None


def stored_run(run_dir: str | os.PathLike[str]) -> StoredRun:
    """What is stored of a run, for whoever only reads it.

    Args:
        run_dir: A local path, or a URL.

    Raises:
        UsageError: If the address cannot be meant.
        StorageRefusedError: If there are no credentials.
    """
    if is_remote(run_dir):
        address = remote_address(run_dir)
        remote = open_remote(address)
        return StoredRun(remote.storage, address=address, is_remote=True)
    path: Path = local_directory(run_dir)
    return StoredRun(LocalStorage(path), address=str(path))
