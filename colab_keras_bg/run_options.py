"""What a run is asked for: when to save, what to keep, how to ship.

Invariant: checked as a whole before anything is touched; the command line,
the callbacks and `Run` take the same arguments by the same names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from colab_keras_bg.checkpoint.keeping import KeepPolicy, keep_policy
from colab_keras_bg.checkpoint.policies import SavePolicy, save_policy
from colab_keras_bg.sidecar.options import ShippingOptions
from colab_keras_bg.sidecar.watch_options import WatchOptions

__all__ = ["KEPT", "SHIPPED", "WATCHED", "RunOptions"]

# The arguments of `Run`, by what they are for.
KEPT = ("keep_last", "keep_every", "keep_best", "monitor", "mode")
SHIPPED = (
    "take_over",
    "max_undurable",
    "fallback_dir",
    "fallback_after",
    "bandwidth",
)
WATCHED = ("console", "resources", "report")


@dataclass(frozen=True)
class RunOptions:
    """The arguments of a run, understood.

    Attributes:
        keep: Those of `keep_policy`.
        save_policy: When to save.
        keep_policy: What to keep.
        shipping: How it is shipped.
        watch: What is kept besides checkpoints.
    """

    keep: dict[str, Any]
    save_policy: SavePolicy
    keep_policy: KeepPolicy
    shipping: ShippingOptions
    watch: WatchOptions

    @classmethod
    def of(
        cls,
        run_dir: str | os.PathLike[str],
        *,
        save_freq: str | int | SavePolicy,
        **given: Any,
    ) -> RunOptions:
        """Takes them as they are written.

        Args:
            run_dir: The run directory.
            save_freq: As for `Run`.
            given: As for `Run`; those of `KEPT`, `SHIPPED` and `WATCHED`.

        Raises:
            UsageError: If one cannot be meant.
        """
        keep = {name: given[name] for name in KEPT}
        return cls(
            keep=keep,
            save_policy=save_policy(save_freq),
            keep_policy=keep_policy(**keep),
            shipping=ShippingOptions.of(
                run_dir, **{name: given[name] for name in SHIPPED}
            ),
            watch=WatchOptions.of(**{name: given[name] for name in WATCHED}),
        )
