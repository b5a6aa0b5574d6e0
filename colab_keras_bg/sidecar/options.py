"""How a run is shipped, as a person asks for it.

Invariant: checked as a whole before anything is touched.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from colab_keras_bg.checkpoint.policies import secs_of
from colab_keras_bg.errors import UsageError
from colab_keras_bg.storage.addresses import is_remote, remote_address

__all__ = ["ShippingOptions"]

_RATE = re.compile(r"(\d+(?:\.\d+)?) *([kMG]?)B?(?:/s)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class ShippingOptions:
    """How a run is shipped.

    Attributes:
        take_over: Whether to take it from a machine that seems to live.
        max_undurable_secs: For how long nothing may become durable; None for
            ever.
        fallback: Where it is shipped to as long as the run directory stays
            dead; empty if nowhere.
        fallback_after_secs: For how long it has to be dead before.
        bytes_per_sec: How much is sent at most; None for as much as can be.
    """

    take_over: bool = False
    max_undurable_secs: float | None = None
    fallback: str = ""
    fallback_after_secs: float = 300.0
    bytes_per_sec: float | None = None

    @classmethod
    def of(
        cls,
        run_dir: str | os.PathLike[str],
        *,
        take_over: bool = False,
        max_undurable: str | None = None,
        fallback_dir: str | os.PathLike[str] | None = None,
        fallback_after: str = "5m",
        bandwidth: str | None = None,
    ) -> ShippingOptions:
        """Takes them as they are written.

        Args:
            run_dir: The run directory.
            take_over: See above.
            max_undurable: A time such as `"30m"`.
            fallback_dir: Another run directory that lies far away.
            fallback_after: A time such as `"5m"`.
            bandwidth: Bytes a second, such as `"5MB"`.

        Raises:
            UsageError: If one cannot be meant.
        """
        return cls(
            take_over=take_over,
            max_undurable_secs=(
                None
                if max_undurable is None
                else _secs("max_undurable", max_undurable)
            ),
            fallback=_fallback(run_dir, fallback_dir),
            fallback_after_secs=_secs("fallback_after", fallback_after),
            bytes_per_sec=_bytes_per_sec(bandwidth),
        )


def _secs(name: str, text: str) -> float:
    secs = secs_of(text)
    if secs is None:
        raise UsageError(
            f"{name}={text!r} cannot be meant: give a time "
            "such as '10m' or '2h'."
        )
    return secs


def _fallback(
    run_dir: str | os.PathLike[str],
    fallback_dir: str | os.PathLike[str] | None,
) -> str:
    if fallback_dir is None:
        return ""
    if not is_remote(run_dir):
        raise UsageError(
            f"fallback_dir={os.fspath(fallback_dir)!r} is for a run that is "
            f"shipped, and {os.fspath(run_dir)} is on this machine's disk: "
            "leave it out."
        )
    if not is_remote(fallback_dir):
        raise UsageError(
            f"fallback_dir={os.fspath(fallback_dir)!r} goes with this machine: "
            "give gs://BUCKET/FOLDER, drive://FOLDER/PATH, or a folder of a "
            "mounted Drive."
        )
    try:
        address = remote_address(fallback_dir)
    except UsageError as error:
        text = str(error).replace("The run directory", "A place")
        raise UsageError(
            f"fallback_dir={os.fspath(fallback_dir)!r}: {text}"
        ) from None
    if address == remote_address(run_dir):
        raise UsageError(
            f"fallback_dir={address!r} is the run directory itself: give "
            "another place."
        )
    return address


def _bytes_per_sec(bandwidth: str | None) -> float | None:
    if bandwidth is None:
        return None
    match = _RATE.fullmatch(bandwidth.strip())
    rate = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if rate < 1000:
        raise UsageError(
            f"bandwidth={bandwidth!r} cannot be meant: give bytes a second, "
            "1kB or more, such as '500kB' or '20MB'."
        )
    return rate
