"""Damages checkpoints at random, and looks whether it is found out.

    python -m colab_keras_bg.testing.fuzz --damages=10000

Invariant: after each damage every checkpoint either has the very bits that
were saved or is refused by name; nothing else is ever raised, and nothing is
changed by looking. A checkpoint one of whose own files was changed is refused.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from colab_keras_bg.checkpoint.store import Checkpoint, CheckpointStore
from colab_keras_bg.errors import (
    DamagedCheckpointError,
    NoUsableCheckpointError,
    StepNotFoundError,
)
from colab_keras_bg.storage.local import LocalStorage
from colab_keras_bg.tensor import LazyTensor

__all__ = ["Fuzz", "main"]

_STEPS = (1, 2, 3, 4)
_REFUSED = (DamagedCheckpointError, StepNotFoundError)

_Content = dict[str, bytes]


@dataclass
class Fuzz:
    """A folder of checkpoints that is damaged and mended again and again.

    Attributes:
        directory: Where it lies; made by this.
        draw: Where the damages are drawn from.
        found: How many damages made a checkpoint be refused.
        harmless: How many changed nothing that any checkpoint needs.
        wrong: What was not as it should be, in words.
    """

    directory: Path
    draw: random.Random
    found: int = 0
    harmless: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Saves checkpoints, of which most tensors stay the same."""
        store = self._store()
        for step in _STEPS:
            tensors = {k: LazyTensor.of(a) for k, a in _arrays(step).items()}
            store.save(step, attempt=1, tensors=tensors, state={"step": step})
        store.delete(_STEPS[0])  # The others still need a file of it.
        self._steps = store.steps()
        self._saved = {step: _bits(store.load(step)) for step in self._steps}
        self._own = {
            step: {
                f"checkpoints/step-{step:09d}/{name}"
                for name in (*store.manifest(step).files, "manifest.json")
            }
            for step in self._steps
        }
        self._whole = self._content()

    def damage_once(self) -> None:
        """Damages, looks at everything, and mends."""
        names = sorted(self._whole)
        what, name = self.draw.choice(list(_DAMAGES)), self.draw.choice(names)
        damaged = dict(self._whole)
        _DAMAGES[what](damaged, name, self.draw)
        self._write(damaged)
        changed = {
            key
            for key in {*damaged, *self._whole}
            if damaged.get(key) != self._whole.get(key)
        }
        told = f"{what} of {name}"
        refused = self._look(changed, told)
        if self._content() != damaged:
            self.wrong.append(f"{told}: looking has changed something")
        self.found += refused
        self.harmless += not refused
        self._write(self._whole)

    def _look(self, changed: set[str], told: str) -> bool:
        store, refused = self._store(), False
        good = []
        for step in self._steps:
            try:
                bits = _bits(store.load(step))
            except _REFUSED:
                refused = True
                continue
            except Exception as error:  # noqa: BLE001 - that is looked for
                self.wrong.append(f"{told}: step {step} raised {error!r}")
                continue
            good.append(step)
            if bits != self._saved[step]:
                self.wrong.append(f"{told}: step {step} was loaded DAMAGED")
            if changed & self._own[step]:
                self.wrong.append(f"{told}: step {step} was not refused")
        try:
            newest = self._store().latest()
        except NoUsableCheckpointError:
            newest = None
        except Exception as error:  # noqa: BLE001 - that is looked for
            self.wrong.append(f"{told}: the newest raised {error!r}")
            return refused
        expected = max(good, default=None)
        if (newest.step if newest else None) != expected:
            self.wrong.append(f"{told}: not the newest good one was taken")
        return refused

    def _store(self) -> CheckpointStore:
        return CheckpointStore(LocalStorage(self.directory))

    def _content(self) -> _Content:
        return {
            path.relative_to(self.directory).as_posix(): path.read_bytes()
            for path in self.directory.rglob("*")
            if path.is_file()
        }

    def _write(self, content: Mapping[str, bytes]) -> None:
        """Makes the folder hold this; only what differs is written."""
        present = self._content()
        for name in present.keys() - content.keys():
            (self.directory / name).unlink()
        for name, value in content.items():
            if present.get(name) != value:
                (self.directory / name).write_bytes(value)


def _arrays(step: int) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(step)
    return {
        "frozen": np.arange(1500, dtype=np.float32).reshape(30, 50),
        "head": draw.normal(size=(8, 9)),
        "iterations": np.array(step),
    }


def _bits(checkpoint: Checkpoint) -> dict[str, Any]:
    tensors = {
        key: (str(array.dtype), array.shape, array.tobytes())
        for key, array in checkpoint.tensors.items()
    }
    return {**tensors, "state": dict(checkpoint.state)}


def _flip(content: _Content, name: str, draw: random.Random) -> None:
    changed = bytearray(content[name])
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    content[name] = bytes(changed)


def _overwrite(content: _Content, name: str, draw: random.Random) -> None:
    changed = bytearray(content[name])
    start = draw.randrange(len(changed))
    end = min(len(changed), start + draw.randrange(1, 600))
    filling = draw.choice([b"\x00", b"\xff", None])
    changed[start:end] = (
        draw.randbytes(end - start)
        if filling is None
        else filling * (end - start)
    )
    content[name] = bytes(changed)


def _truncate(content: _Content, name: str, draw: random.Random) -> None:
    content[name] = content[name][: draw.randrange(len(content[name]))]


def _extend(content: _Content, name: str, draw: random.Random) -> None:
    content[name] += draw.randbytes(draw.randrange(1, 100))


def _cut_out(content: _Content, name: str, draw: random.Random) -> None:
    start = draw.randrange(len(content[name]))
    end = start + draw.randrange(1, 50)
    content[name] = content[name][:start] + content[name][end:]


def _swap(content: _Content, name: str, draw: random.Random) -> None:
    other = draw.choice(sorted(content))
    content[name], content[other] = content[other], content[name]


def _replace(content: _Content, name: str, draw: random.Random) -> None:
    content[name] = content[draw.choice(sorted(content))]


def _delete(content: _Content, name: str, draw: random.Random) -> None:
    del content[name]


_DAMAGES: Mapping[str, Callable[[_Content, str, random.Random], None]] = {
    "a flipped bit": _flip,
    "an overwritten stretch": _overwrite,
    "the loss of the end": _truncate,
    "a longer end": _extend,
    "a stretch cut out": _cut_out,
    "a swap with another file": _swap,
    "another file in place": _replace,
    "the loss": _delete,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs from the command line.

    Args:
        argv: The arguments; those of the process if None.

    Returns:
        0 if every damage was found out, 1 if not.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(argv)
    seed = options.seed
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "little")
    print(f"fuzz seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        fuzz = Fuzz(Path(directory), random.Random(seed))
        for _ in range(options.damages):
            fuzz.damage_once()
    for line in fuzz.wrong:
        print(f"WRONG: {line}")
    print(
        f"{options.damages} damages: {fuzz.found} found out, {fuzz.harmless} "
        f"of nothing that is needed, {len(fuzz.wrong)} wrong"
    )
    return 1 if fuzz.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
