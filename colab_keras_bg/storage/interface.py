"""The promise every storage keeps.

Invariant: an object is there whole or it is not there, and `create` never
replaces one. Names are relative POSIX paths that cannot leave the storage;
they are checked here, before any implementation sees them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from colab_keras_bg.errors import NoSpaceError, ObjectNotFoundError, UsageError

__all__ = [
    "Capabilities",
    "ObjectInfo",
    "Storage",
    "check_name",
    "check_prefix",
    "check_space",
    "is_name",
]

# For small files besides, and what a file system needs itself.
_SPARE_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 20
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Capabilities:
    """What a storage admits it can or cannot do.

    Attributes:
        survives_machine: Whether its objects outlive this machine.
        mapped_reads: Whether `map` reads lazily instead of copying.
        confirms: Whether an object that shows has arrived where it lasts. A
            mounted Drive shows what it has not uploaded yet.
        swaps: Whether `swap` holds against writers on other machines.
        checksums: Whether `info` tells a checksum that the storage itself
            has computed.
        appends: Whether `append` sends only what is new.
    """

    survives_machine: bool
    mapped_reads: bool
    confirms: bool = True
    swaps: bool = True
    checksums: bool = False
    appends: bool = True


@dataclass(frozen=True)
class ObjectInfo:
    """An object as the storage knows it.

    Attributes:
        name: Its name, relative to the storage.
        size_bytes: Its size.
        crc32c: Its CRC-32C as 8 hexadecimal digits, if the storage has
            computed it.
        md5: Its MD5 as 32 hexadecimal digits, if the storage has computed it.
    """

    name: str
    size_bytes: int
    crc32c: str | None = field(default=None, compare=False)
    md5: str | None = field(default=None, compare=False)


def is_name(name: str) -> bool:
    """Whether `name` can name an object; see `check_name`."""
    return all(_PART.fullmatch(part) for part in name.split("/"))


def check_name(name: str) -> str:
    """Returns `name` if it can name an object and nothing outside.

    Args:
        name: A relative path with `/` between its parts.

    Returns:
        The same name.

    Raises:
        UsageError: If the name is empty, absolute, climbs (`..`), starts a
            part with a dot or holds anything but letters, digits, `.`, `_`
            and `-`.
    """
    if not is_name(name):
        raise UsageError(
            f"{name!r} cannot name an object: expected parts of letters, "
            "digits, '.', '_' and '-', not starting with '.', joined by '/'."
        )
    return name


def check_prefix(prefix: str) -> str:
    """Returns `prefix` if the name of an object can begin with it.

    Args:
        prefix: The beginning of a name: empty, a folder with its `/`, or more.

    Returns:
        The same prefix.

    Raises:
        UsageError: If no name that `check_name` accepts begins with it.
    """
    if prefix:
        check_name(prefix + "_" if prefix.endswith("/") else prefix)
    return prefix


def check_space(
    storage: Storage,
    name: str,
    size_bytes: int,
    *,
    make_room: Callable[[], object] | None = None,
) -> None:
    """Refuses to begin what there is no space for, as far as is known.

    Args:
        storage: Where it is to be written.
        name: What is to be written.
        size_bytes: How much that is.
        make_room: Called, once, if there is too little.

    Raises:
        NoSpaceError: If there is less than that, and a little more, free.
    """
    free, needed = storage.free_bytes(), size_bytes + _SPARE_BYTES
    if free is not None and free < needed and make_room is not None:
        make_room()
        free = storage.free_bytes()
    if free is not None and free < needed:
        raise NoSpaceError(
            name,
            where=storage.describe(),
            needed_bytes=needed,
            free_bytes=free,
        )


class Storage(ABC):
    """A place that keeps named, immutable or replaced-as-a-whole objects.

    Every method refuses a name that could lead out of the storage with a
    `UsageError` (see `check_name`). What an object's name is, cannot be the
    folder of another's.
    """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this storage can and cannot do."""

    @abstractmethod
    def describe(self) -> str:
        """Where it is, for people: a path or a URL, never a secret."""

    @abstractmethod
    def create(
        self, name: str, chunks: Iterable[bytes | memoryview]
    ) -> ObjectInfo:
        """Creates an object from its chunks, whole or not at all.

        When it returns the object is as lasting as this storage can make it.
        When it raises, the object does not exist. Chunks are consumed one
        at a time and not kept.

        Args:
            name: The new object's name.
            chunks: Its content, in order: bytes, or views of single bytes.
                Any sizes, empty ones included, and any number of them. What
                the iterator raises comes through; an `OSError` of its may
                come as a `StorageError`.

        Returns:
            The object's name and size.

        Raises:
            ObjectExistsError: If the name is taken; the old object is left.
            NoSpaceError: If the storage is full.
            StorageError: If it cannot be written for another reason.
        """

    @abstractmethod
    def replace(self, name: str, content: bytes) -> ObjectInfo:
        """Puts a small object in place of what there is, if anything.

        A reader sees the old content or the new, never a mixture. When it
        returns the new one is as lasting as this storage can make it.

        Raises:
            NoSpaceError: If the storage is full; the old object is left.
            StorageError: If it cannot be written for another reason; the old
                object or the new one is there, whole.
        """

    @abstractmethod
    def swap(
        self, name: str, content: bytes, *, expected: bytes | None
    ) -> ObjectInfo:
        """Puts a small object in place of the one that the caller has seen.

        Of several that put different contents in place of the same one, one
        succeeds, as far as `Capabilities.swaps` says. If the object is
        `content` already, that was an earlier call of which the answer was
        lost, and is success.

        Args:
            name: The object's name.
            content: All of its new content.
            expected: The content that is to be replaced, all of it; None if
                there is to be no object.

        Raises:
            ConflictError: If there is another, or none; nothing was changed.
            StorageError: If it cannot be written for another reason.
        """

    @abstractmethod
    def append(self, name: str, content: bytes, *, at: int) -> ObjectInfo:
        """Adds to the end of an object, or makes it.

        What was there is not sent again where the storage can help it. Only
        one writer may append to an object.

        Args:
            name: The object's name.
            content: What to add, whole or not at all.
            at: How many bytes the object has; 0 if it is not there. If it
                has these bytes more and they are `content`, that was an
                earlier call of which the answer was lost, and is success.

        Returns:
            The object, with its new size.

        Raises:
            ConflictError: If it has another size; nothing was changed.
            StorageError: If it cannot be written for another reason.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Reads a whole object.

        Raises:
            ObjectNotFoundError: If there is none.
            StorageUnavailableError: If it cannot be read.
        """

    @abstractmethod
    def read_range(self, name: str, start: int, size_bytes: int) -> bytes:
        """Reads a part of an object.

        Args:
            name: Its name.
            start: The first byte, from 0.
            size_bytes: How many; fewer come if the object ends before.

        Raises:
            ObjectNotFoundError: If there is none.
            StorageUnavailableError: If it cannot be read.
        """

    @abstractmethod
    def map(self, name: str) -> memoryview:
        """The object's bytes as a read-only view, lazily where possible.

        Raises:
            ObjectNotFoundError: If there is none.
            StorageUnavailableError: If it cannot be read.
        """

    @abstractmethod
    def info(self, name: str) -> ObjectInfo:
        """Looks an object up without reading it.

        Raises:
            ObjectNotFoundError: If there is none.
            StorageUnavailableError: If that cannot be told.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose name starts with `prefix`, in no order.

        Unfinished objects never show. Objects that come or go while the
        listing is read may or may not show. What is raised may be raised
        only when the listing is read.

        Raises:
            StorageUnavailableError: If the storage cannot be listed. An
                empty listing therefore means that nothing is there.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes an object.

        Raises:
            ObjectNotFoundError: If there is none.
            StorageError: If it cannot be removed.
        """

    def upload(self, name: str, path: Path) -> ObjectInfo:
        """Creates an object from a local file; see `create`.

        A storage that is far away may send parts of it at once.

        Args:
            name: The new object's name.
            path: The file, which must not change meanwhile.

        Raises:
            OSError: If the file cannot be read.
            ObjectExistsError: If the name is taken; the old object is left.
            StorageError: If it cannot be written for another reason.
        """
        with path.open("rb") as file:
            return self.create(name, iter(lambda: file.read(_CHUNK_BYTES), b""))

    def close(self) -> None:  # noqa: B027 - most hold nothing open
        """Gives back what it holds open; it is not to be used afterwards."""

    def free_bytes(self) -> int | None:
        """How much can still be written; None if that is not known."""
        return None

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name.

        Raises:
            StorageUnavailableError: If that cannot be told.
        """
        try:
            self.info(name)
        except ObjectNotFoundError:
            return False
        return True

    def sweep(self, prefix: str = "") -> tuple[str, ...]:
        """Clears up after writers that died. Only for the one writer.

        What they left unfinished is removed; and what they finished without
        living to see it become lasting is made lasting.

        Args:
            prefix: Only below this folder, named without a `/` at its end;
                everywhere if empty.

        Returns:
            What was removed, by names relative to the storage.

        Raises:
            StorageError: If something cannot be removed.
        """
        if prefix:
            check_name(prefix)
        return ()
