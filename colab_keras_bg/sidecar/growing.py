"""The files of a run that grow, kept up with at the far end.

Invariant: each is shipped by appending, up to where a part of it ends, and no
byte twice; what was cut back here is put anew there. Nothing is deleted there:
a machine that goes on has fetched only what it may have to cut back.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from colab_keras_bg.journal.event_records import end_of_records
from colab_keras_bg.sidecar.appending import (
    AppendedFile,
    Boundary,
    end_of_bytes,
)
from colab_keras_bg.storage.interface import ObjectInfo, Storage, is_name
from colab_keras_bg.storage.local import LocalStorage

__all__ = ["RULES", "GrowingFiles", "Rule"]


@dataclass(frozen=True)
class Rule:
    """How files of some names are shipped.

    Attributes:
        folder: The folder of the run in which they are.
        pattern: Their names below it, as a regular expression.
        boundary: Where they may be cut.
    """

    folder: str
    pattern: str
    boundary: Boundary


# Of the rules of one folder, the first that fits a name counts.
RULES = (
    Rule(
        "tensorboard",
        r"(.+/)?events\.out\.tfevents\.[^/]+",
        end_of_records,
    ),
    Rule("tensorboard", r".+", end_of_bytes),
)


class GrowingFiles:
    """Ships the files of a spool that grow."""

    def __init__(
        self,
        spool: LocalStorage,
        remote: Storage,
        *,
        rules: Sequence[Rule] = RULES,
    ) -> None:
        """Takes both ends; nothing is read yet.

        Args:
            spool: The local end.
            remote: The far end.
            rules: Which files, and how.
        """
        self._spool, self._remote, self._rules = spool, remote, rules
        self._files: dict[str, AppendedFile] = {}
        self._found: dict[str, dict[str, ObjectInfo]] = {}

    def ship(self) -> bool:
        """Sends what has come.

        Returns:
            Whether there was any.

        Raises:
            StorageError: If something cannot be sent now.
        """
        return any([self._file(*one).ship() for one in self._names()])

    def _names(self) -> Iterator[tuple[str, Rule]]:
        """The files that there are, each with its rule."""
        for folder in dict.fromkeys(rule.folder for rule in self._rules):
            rules = [rule for rule in self._rules if rule.folder == folder]
            top = self._spool.directory / folder
            for path, _, files in os.walk(top):
                below = os.path.relpath(path, top)
                for file in sorted(files):
                    name = file if below == "." else f"{below}/{file}"
                    rule = next(
                        (r for r in rules if re.fullmatch(r.pattern, name)),
                        None,
                    )
                    if rule is not None and _is_object(path, file):
                        yield f"{folder}/{name}", rule

    def _file(self, name: str, rule: Rule) -> AppendedFile:
        if name not in self._files:
            if rule.folder not in self._found:  # One question for all.
                listed = self._remote.list(f"{rule.folder}/")
                self._found[rule.folder] = {one.name: one for one in listed}
            found = self._found[rule.folder].get(name)
            self._files[name] = AppendedFile(
                self._spool.directory / name,
                self._remote,
                name,
                boundary=rule.boundary,
                found=found,
                is_new=found is None,
            )
        return self._files[name]


def _is_object(folder: str, file: str) -> bool:
    """Whether it is a whole file under a name that can be shipped."""
    try:
        mode = os.lstat(os.path.join(folder, file)).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) and is_name(file)
