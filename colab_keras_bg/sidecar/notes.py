"""What a sidecar remembers of its spool, for the one that follows it.

Invariant: notes are believed only where they were taken. A copy of a spool,
on this machine or on another, is another holder: two that go on from the same
notes would both commit.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from colab_keras_bg.errors import StorageUnavailableError
from colab_keras_bg.sidecar.exchange import FOLDER

__all__ = ["FALLBACK", "Notes"]

FALLBACK = "fallback-"

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Notes:
    """Small texts beside a spool.

    Attributes:
        holder: This spool's name, drawn when it was first asked for.
    """

    def __init__(self, spool: Path, *, of: str = "") -> None:
        """Reads what there is, or begins anew.

        Args:
            spool: The spool, which is there.
            of: Which far end they are of, if there are several.

        Raises:
            StorageUnavailableError: If it cannot be written.
        """
        self._spool, self._folder = spool, spool / FOLDER
        self._of = of
        self._folder.mkdir(parents=True, exist_ok=True)
        here = _place_of(self._folder)
        if self._read("place") != here:
            for path in self._folder.glob("*claim"):
                path.unlink()
            for path in self._folder.glob("*begun_for"):
                path.unlink()
            self._write("holder", secrets.token_hex(8))
            self._write("place", here)  # Last: the rest is whole then.
        self.holder = self._read("holder")

    def of_fallback(self) -> Notes:
        """The notes of the fallback of the same spool."""
        return Notes(self._spool, of=FALLBACK)

    @property
    def claim(self) -> str:
        """By which taking this spool has last had the run; empty if by none."""
        return self._read(f"{self._of}claim")

    @claim.setter
    def claim(self, claim: str) -> None:
        self._write(f"{self._of}claim", claim)

    def is_ours(self, claim: str) -> bool:
        """Whether a taking is this spool's last.

        Args:
            claim: The name of the taking.
        """
        return claim in {self.claim, self.intended, self.closed} - {""}

    @property
    def intended(self) -> str:
        """A taking that was begun with; empty if none was.

        The answer to it may have been lost, and the run be ours by it.
        """
        return self._read(f"{self._of}intended-claim")

    @intended.setter
    def intended(self, claim: str) -> None:
        self._write(f"{self._of}intended-claim", claim)

    @property
    def closed(self) -> str:
        """By which this spool has last closed a fallback; empty if never."""
        return self._read(f"{self._of}closed-claim")

    @closed.setter
    def closed(self, claim: str) -> None:
        self._write(f"{self._of}closed-claim", claim)

    @property
    def is_open(self) -> bool:
        """Of a fallback: whether it may stand in for what has gone on."""
        return bool(self._read(f"{self._of}open"))

    @is_open.setter
    def is_open(self, is_open: bool) -> None:
        self._write(f"{self._of}open", "open" * is_open)

    @property
    def begun_for(self) -> str:
        """The launch that a sidecar has last begun for; empty if for none."""
        return self._read(f"{self._of}begun_for")

    @begun_for.setter
    def begun_for(self, launch: str) -> None:
        self._write(f"{self._of}begun_for", launch)

    def _read(self, name: str) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self._folder / name).read_text(encoding="utf-8")
        return ""

    def _write(self, name: str, text: str) -> None:
        temporary = self._folder / f".{name}.{secrets.token_hex(6)}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self._folder / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StorageUnavailableError(
                f"{self._folder} cannot be written: {error.strerror}."
            ) from error


def _place_of(folder: Path) -> str:
    """A text that a copy of the folder does not have."""
    found = folder.stat()
    boot = ""
    with contextlib.suppress(OSError):
        boot = _BOOT.read_text(encoding="ascii").strip()
    return f"{boot} {found.st_dev} {found.st_ino}"
