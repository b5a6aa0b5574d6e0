"""What `TensorBoard` is given, in Keras' words.

Invariant: what cannot be meant is refused where it is given, and tells what
can be.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from colab_keras_bg.errors import UsageError
from colab_keras_bg.storage.addresses import is_remote, local_directory

__all__ = ["check_log_dir", "profiled_batches", "update_frequency"]


def check_log_dir(log_dir: str | os.PathLike[str]) -> None:
    """Refuses where the training must not write to.

    Args:
        log_dir: What was given.

    Raises:
        UsageError: If it is no folder of this machine's disk.
    """
    if is_remote(log_dir):
        raise UsageError(
            f"log_dir={os.fspath(log_dir)!r} lies far away, and the training "
            "writes to this machine's disk only. Give the run directory such "
            'an address instead, as in bg.unattended("gs://BUCKET/FOLDER"), '
            "and leave log_dir out: what is shown is shipped with the run."
        )
    try:
        local_directory(log_dir)
    except UsageError as error:
        raise UsageError(f"log_dir={os.fspath(log_dir)!r}: {error}") from None


def update_frequency(update_freq: Any) -> int | str:
    """Every how many batches something is shown, or `"epoch"`.

    Args:
        update_freq: What was given, in Keras' words.

    Raises:
        UsageError: If it cannot be meant.
    """
    if update_freq == "batch":
        return 1
    if update_freq == "epoch":
        return "epoch"
    if type(update_freq) is int and update_freq > 0:
        return update_freq
    raise UsageError(
        f"update_freq={update_freq!r} cannot be meant: give 'epoch', 'batch' "
        "or a number of batches."
    )


def profiled_batches(given: Any) -> tuple[int, int]:
    """The first and the last batch to be profiled; 0 and 0 for none.

    Args:
        given: As Keras takes it: a number, a pair, or either as text.

    Raises:
        UsageError: If it cannot be meant.
    """
    found = given
    if isinstance(given, str) and all(p.isdigit() for p in given.split(",")):
        found = [int(part) for part in given.split(",")]
        found = found[0] if len(found) == 1 else found
    if isinstance(found, int):
        found = (found, found)
    if (
        not isinstance(found, Sequence)
        or isinstance(found, str)
        or len(found) != 2
        or not all(isinstance(one, int) for one in found)
        or not 0 <= found[0] <= found[1]
    ):
        raise UsageError(
            "profile_batch must be a non-negative integer or 2-tuple of "
            "positive integers. A pair of positive integers signifies a range "
            f"of batches to profile. Found: {given!r}"
        )
    return found[0], found[1]
