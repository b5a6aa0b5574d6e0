"""The files of a run that grow, kept up with at the far end.

Invariant: each is shipped by appending, up to where a part of it ends, and no
byte twice; what was cut back here is put anew there. Nothing is deleted there
but parts of a console that were dropped here: a machine that goes on has
fetched only what it may have to cut back.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from colab_keras_bg.errors import ObjectNotFoundError
from colab_keras_bg.journal.console_log import LogFile, log_files
from colab_keras_bg.journal.event_records import end_of_records
from colab_keras_bg.sidecar.appending import (
    AppendedFile,
    Boundary,
    end_of_bytes,
    end_of_lines,
)
from colab_keras_bg.storage.interface import ObjectInfo, Storage, is_name
from colab_keras_bg.storage.local import LocalStorage

__all__ = ["ATTEMPTS", "EVENTS", "GrowingFiles", "Rule"]


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
EVENTS = (
    Rule(
        "tensorboard",
        r"(.+/)?events\.out\.tfevents\.[^/]+",
        end_of_records,
    ),
    Rule("tensorboard", r".+", end_of_bytes),
)
ATTEMPTS = (
    Rule("attempts", r"\d+/console(-\d+)?\.log", end_of_lines),
    Rule("attempts", r"\d+/resources\.jsonl", end_of_lines),
)
_CONSOLE = re.compile(r"(attempts/\d+/)(console(?:-\d+)?\.log)")


class GrowingFiles:
    """Ships the files of a spool that grow."""

    def __init__(
        self,
        spool: LocalStorage,
        remote: Storage,
        *,
        rules: Sequence[Rule] = EVENTS,
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
        names = list(self._names())
        sent = any([self._file(*one).ship() for one in names])
        self._drop({name for name, _ in names})
        return sent

    def _drop(self, here: Collection[str]) -> None:
        """Deletes there what is dropped of the consoles that are here.

        What is dropped lies between a console's beginning and its newest part.
        """
        newest: dict[str, LogFile] = {}
        for name in here:
            if match := _CONSOLE.fullmatch(name):
                (file,) = log_files([match[2]])
                newest[match[1]] = max(newest.get(match[1], file), file)
        for name in sorted(self._there() - set(here)):
            match = _CONSOLE.fullmatch(name)
            if match is None or match[1] not in newest:
                continue
            (file,) = log_files([match[2]])
            if 0 < file.offset < newest[match[1]].offset:
                with contextlib.suppress(ObjectNotFoundError):
                    self._remote.delete(name)
                self._files.pop(name, None)
                for found in self._found.values():
                    found.pop(name, None)

    def _there(self) -> set[str]:
        """The names that are there, as far as we know."""
        return set(self._files).union(*self._found.values())

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
