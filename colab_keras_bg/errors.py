"""The errors a caller can tell apart.

Invariant: every error of this package derives from `BackgroundTrainingError`
and from the standard type nearest to it, carries what it knows in fields, and
says what was asked, what there was, and what to do. This module imports
nothing of the package.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "BackgroundTrainingError",
    "CheckpointError",
    "ConflictError",
    "DamagedCheckpointError",
    "FingerprintMismatchError",
    "NoSpaceError",
    "NoUsableCheckpointError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "RunHeldError",
    "Skipped",
    "StepExistsError",
    "StepNotFoundError",
    "StorageError",
    "StorageRefusedError",
    "StorageUnavailableError",
    "UsageError",
]


class BackgroundTrainingError(Exception):
    """The root of this package's errors."""


class UsageError(BackgroundTrainingError, ValueError):
    """An argument or a flag that cannot be meant (exit status 64)."""


class RunHeldError(BackgroundTrainingError, RuntimeError):
    """Another live attempt holds the run (exit status 3).

    Attributes:
        run_dir: The run directory that was asked for.
        holder: Who holds it, in words.
    """

    def __init__(self, run_dir: str, *, holder: str) -> None:
        """Names the run and who holds it."""
        self.run_dir = run_dir
        self.holder = holder
        super().__init__(
            f"The run in {run_dir} is held by another live attempt "
            f"({holder}). Wait for it, stop it, or use another run directory."
        )


class StorageError(BackgroundTrainingError, OSError):
    """A storage could not do what it was asked."""


class ObjectNotFoundError(StorageError, FileNotFoundError):
    """There is no object of this name.

    Attributes:
        name: The name that was asked for.
    """

    def __init__(self, name: str, *, where: str) -> None:
        """Names the object and the storage."""
        self.name = name
        super().__init__(f"There is no object {name!r} in {where}.")


class ObjectExistsError(StorageError, FileExistsError):
    """An object of this name exists already and is never overwritten.

    Attributes:
        name: The name that was to be created.
    """

    def __init__(self, name: str, *, where: str) -> None:
        """Names the object and the storage."""
        self.name = name
        super().__init__(
            f"The object {name!r} exists already in {where}; it was left as "
            "it is."
        )


class NoSpaceError(StorageError):
    """The storage is full (`errno` is ENOSPC or EDQUOT).

    Attributes:
        name: The object that was being written.
    """

    def __init__(
        self,
        name: str,
        *,
        where: str,
        needed_bytes: int | None = None,
        free_bytes: int | None = None,
    ) -> None:
        """Names the object and the storage, and what it lacks if known."""
        self.name = name
        lack = ""
        if needed_bytes is not None and free_bytes is not None:
            lack = (
                f" ({_megabytes(needed_bytes)} needed, "
                f"{_megabytes(free_bytes)} free)"
            )
        super().__init__(
            f"No space left while writing {name!r} in {where}{lack}. Free some "
            "space, or keep fewer checkpoints (--keep_last, --keep_every)."
        )
        self.errno = errno.ENOSPC


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


class StorageUnavailableError(StorageError):
    """The storage could not be reached or read; nothing is known about it.

    Never to be taken for "there is nothing there".
    """


class StorageRefusedError(StorageUnavailableError):
    """The storage answers, and will go on refusing until somebody acts.

    Attributes:
        cause: What is wrong, in words.
        advice: What to do about it, in words.
    """

    def __init__(self, where: str, *, cause: str, advice: str) -> None:
        """Says what is wrong and what to do."""
        self.cause = cause
        self.advice = advice
        super().__init__(f"{where} cannot be used: {cause}. {advice}")


class ConflictError(StorageError):
    """An object is not what the caller took it to be; nothing was changed.

    Attributes:
        name: The object that was to be changed.
    """

    def __init__(self, name: str, *, where: str) -> None:
        """Names the object and the storage."""
        self.name = name
        super().__init__(
            f"The object {name!r} in {where} was changed by another writer; "
            "it was left as it is."
        )


class CheckpointError(BackgroundTrainingError):
    """Something about a checkpoint."""


class DamagedCheckpointError(CheckpointError, ValueError):
    """A checkpoint's files are not what its manifest says.

    Attributes:
        step: The step of the checkpoint.
        reason: What is wrong, in words, naming the file.
    """

    def __init__(self, step: int, *, reason: str) -> None:
        """Names the step and the damage."""
        self.step = step
        self.reason = reason
        super().__init__(f"The checkpoint of step {step} is damaged: {reason}.")


class StepNotFoundError(CheckpointError, FileNotFoundError):
    """The requested step was never committed, or has been deleted.

    Attributes:
        step: The step that was asked for.
        available: The committed steps, oldest first.
    """

    def __init__(self, step: int, *, available: Sequence[int]) -> None:
        """Names the step and those that there are."""
        self.step = step
        self.available = tuple(available)
        found = ", ".join(map(str, self.available)) or "none"
        super().__init__(
            f"No committed checkpoint for step {step}. "
            f"Committed steps: {found}. "
            "Leave the step out to take the latest one."
        )


class StepExistsError(CheckpointError, FileExistsError):
    """A checkpoint of this step is committed already.

    Attributes:
        step: The step that was to be saved.
    """

    def __init__(self, step: int) -> None:
        """Names the step."""
        self.step = step
        super().__init__(
            f"Step {step} is committed already, and a committed checkpoint is "
            "never overwritten."
        )


class Skipped(NamedTuple):
    """A checkpoint that was passed over, and why.

    Attributes:
        step: Its step.
        reason: What is wrong with it.
    """

    step: int
    reason: str


class NoUsableCheckpointError(CheckpointError, RuntimeError):
    """There are checkpoints, and none of them verifies.

    Attributes:
        where: The storage that was read.
        skipped: Each checkpoint with what is wrong with it, newest first.
    """

    def __init__(self, where: str, *, skipped: Sequence[Skipped]) -> None:
        """Lists what was found and why each was refused."""
        self.where = where
        self.skipped = tuple(skipped)
        lines = "".join(f"\n  step {s.step}: {s.reason}" for s in self.skipped)
        super().__init__(
            f"None of the {len(self.skipped)} checkpoint(s) in {where} can be "
            f"used:{lines}\nNothing was changed. Put the files back from a "
            "copy, use another run directory, or start over (--start_over, or "
            "bg.Run(run_dir, start_over=True); the present directory is then "
            "set aside, not deleted)."
        )


class FingerprintMismatchError(CheckpointError, ValueError):
    """The checkpoint belongs to a different model or optimizer.

    Attributes:
        differences: One sentence for each difference.
    """

    def __init__(self, where: str, *, differences: Sequence[str]) -> None:
        """Lists what differs."""
        self.where = where
        self.differences = tuple(differences)
        shown = self.differences[:20]
        lines = "".join(f"\n  {difference}" for difference in shown)
        if len(self.differences) > len(shown):
            lines += f"\n  and {len(self.differences) - len(shown)} more"
        super().__init__(
            f"The run in {where} was started with a different model or "
            f"optimizer:{lines}\nNothing was changed. Build the model as "
            "before, or give the changed one its own run directory."
        )
