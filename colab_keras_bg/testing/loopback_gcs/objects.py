"""Buckets of objects, with generations and preconditions.

Invariant: every change happens under one lock, after its preconditions were
checked under the same: of racing creators one wins. A generation is never
used twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from colab_keras_bg.testing.loopback_gcs.answers import (
    ApiError,
    error_for_status,
)
from colab_keras_bg.testing.loopback_gcs.content import Content, composed

__all__ = ["Buckets", "Preconditions", "Source", "StoredObject"]

MOST_COMPONENTS = 32

# The fields of an object that its uploader may set.
_SETTABLE = frozenset(
    {
        "cacheControl",
        "contentDisposition",
        "contentEncoding",
        "contentLanguage",
        "contentType",
        "customTime",
        "eventBasedHold",
        "metadata",
        "storageClass",
        "temporaryHold",
    }
)


@dataclass(frozen=True)
class StoredObject:
    """An object as it is at one moment.

    Attributes:
        name: Its name in its bucket.
        data: Its bytes and their CRC-32C.
        generation: Which content of that name this is.
        metageneration: Which metadata of that content.
        md5: Its MD5 in base64; None if it was composed.
        fields: What its uploader said of it, in the service's words.
        created_secs: When the content came, as seconds since 1970.
        updated_secs: When the metadata was changed last.
    """

    name: str
    data: Content
    generation: int
    metageneration: int = 1
    md5: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    created_secs: float = 0.0
    updated_secs: float = 0.0

    @cached_property
    def content(self) -> bytes:
        """Its bytes, in one."""
        return b"".join(self.data.pieces)

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return self.data.size_bytes

    @property
    def crc32c(self) -> str:
        """Its CRC-32C in base64, as the service states it."""
        return self.data.stated_crc32c

    @property
    def component_count(self) -> int | None:
        """How many uploads it was composed of; None if of none."""
        return self.data.component_count

    @property
    def content_type(self) -> str | None:
        """The media type that its uploader gave it."""
        return self.fields.get("contentType")

    @property
    def metadata(self) -> Mapping[str, str]:
        """Its custom metadata."""
        return dict(self.fields.get("metadata") or {})


@dataclass(frozen=True)
class Preconditions:
    """What must hold of an object for a request to be carried out.

    Attributes:
        wanted: The generation that is asked for; another is not found.
        generation: The generation it must have; 0: it must not exist.
        not_generation: The one that it must not have; 0: it must exist.
        metageneration: The metageneration it must have.
        not_metageneration: The one that it must not have.
    """

    wanted: int | None = None
    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    @classmethod
    def stated_in(
        cls, query: Mapping[str, Any], *, source: bool = False
    ) -> Preconditions:
        """Takes them from a query, or from an object of the same words.

        Args:
            query: The parameters.
            source: Whether those of the source of a copy are meant.
        """

        def number(key: str) -> int | None:
            try:
                return None if query.get(key) is None else int(query[key])
            except ValueError:
                raise ApiError.invalid(
                    f"Invalid value for {key}: {query[key]!r}"
                ) from None

        of = "Source" if source else ""
        return cls(
            number("sourceGeneration" if source else "generation"),
            number(f"if{of}GenerationMatch"),
            number(f"if{of}GenerationNotMatch"),
            number(f"if{of}MetagenerationMatch"),
            number(f"if{of}MetagenerationNotMatch"),
        )

    def check(
        self, current: StoredObject | None, *, reading: bool = False
    ) -> None:
        """Compares with what is there.

        Args:
            current: The object, or None if there is none.
            reading: Whether "has not changed" is an answer: 304.

        Raises:
            ApiError: 412 or 304.
        """
        generation = current.generation if current else 0
        metageneration = current.metageneration if current else 0
        if self.generation not in (None, generation):
            raise ApiError.condition_not_met()
        if self.metageneration not in (None, metageneration):
            raise ApiError.condition_not_met()
        if self.not_generation == generation or (
            self.not_metageneration == metageneration
        ):
            if reading and current:
                raise ApiError(304, "Not Modified", "notModified")
            raise ApiError.condition_not_met()


@dataclass(frozen=True)
class Source:
    """A source of a composition or copy, and what must hold of it."""

    name: str
    preconditions: Preconditions = Preconditions()


class Buckets:
    """All that the server keeps."""

    def __init__(
        self,
        names: Iterable[str],
        *,
        forbidden: Iterable[str] = (),
        clock: Callable[[], float],
        md5: bool = True,
        write_interval_secs: float = 0.0,
    ) -> None:
        """Starts with empty buckets; see `LoopbackGcs`."""
        self._buckets: dict[str, dict[str, StoredObject]] = {
            name: {} for name in names
        }
        self._forbidden = frozenset(forbidden)
        self._clock = clock
        self._md5 = md5
        self._write_interval_secs = write_interval_secs
        self._written_secs: dict[tuple[str, str], float] = {}
        self._generation = 0
        self._lock = threading.RLock()

    def names(self) -> Sequence[str]:
        """The buckets."""
        return sorted(self._buckets)

    def objects(self, bucket: str) -> dict[str, StoredObject]:
        """The objects of a bucket as they are now.

        Raises:
            ApiError: 404 or 403.
        """
        with self._lock:
            return dict(self._bucket(bucket))

    def get(
        self,
        bucket: str,
        name: str,
        preconditions: Preconditions,
        *,
        reading: bool = True,
    ) -> StoredObject:
        """An object.

        Raises:
            ApiError: 404, 412 or 304.
        """
        with self._lock:
            current = self._bucket(bucket).get(name)
            if not current or preconditions.wanted not in (
                None,
                current.generation,
            ):
                raise ApiError.not_found(f"No such object: {bucket}/{name}")
            preconditions.check(current, reading=reading)
            return current

    def check(
        self, bucket: str, name: str, preconditions: Preconditions
    ) -> None:
        """Sees whether an object could be written now.

        Raises:
            ApiError: If not.
        """
        with self._lock:
            _check_name(name)
            preconditions.check(self._bucket(bucket).get(name))

    def insert(
        self,
        bucket: str,
        name: str,
        content: Content,
        fields: Mapping[str, Any],
        preconditions: Preconditions,
    ) -> StoredObject:
        """Creates an object, or replaces one."""
        known = content.component_count is None and self._md5
        md5 = content.stated_md5() if known else None  # Not under the lock.
        with self._lock:
            self.check(bucket, name, preconditions)
            now = self._admit(bucket, name)
            self._generation = max(self._generation + 1, int(now * 1e6))
            stored = StoredObject(
                name,
                content,
                self._generation,
                md5=md5,
                fields=_settable(fields),
                created_secs=now,
                updated_secs=now,
            )
            self._buckets[bucket][name] = stored
            return stored

    def compose(
        self,
        bucket: str,
        name: str,
        sources: Sequence[Source],
        fields: Mapping[str, Any],
        preconditions: Preconditions,
        *,
        delete_sources: bool = False,
    ) -> StoredObject:
        """Strings objects together."""
        if not 1 <= len(sources) <= MOST_COMPONENTS:
            raise ApiError.invalid(
                f"The number of source components provided ({len(sources)}) "
                f"must be between 1 and {MOST_COMPONENTS}."
            )
        with self._lock:
            found = [
                self.get(bucket, s.name, s.preconditions, reading=False)
                for s in sources
            ]
            fields = {"contentType": found[0].content_type, **fields}
            content = composed(source.data for source in found)
            made = self.insert(bucket, name, content, fields, preconditions)
            if delete_sources:
                for gone in {source.name for source in found} - {name}:
                    del self._buckets[bucket][gone]
            return made

    def copy(
        self,
        origin: str,
        source: Source,
        bucket: str,
        name: str,
        fields: Mapping[str, Any],
        preconditions: Preconditions,
    ) -> StoredObject:
        """Copies an object, with its metadata unless others are given."""
        with self._lock:
            found = self.get(
                origin, source.name, source.preconditions, reading=False
            )
            return self.insert(
                bucket,
                name,
                found.data,
                fields or found.fields,
                preconditions,
            )

    def change(
        self,
        bucket: str,
        name: str,
        fields: Mapping[str, Any],
        preconditions: Preconditions,
        *,
        whole: bool,
    ) -> StoredObject:
        """Changes the metadata of an object.

        Args:
            bucket: Its bucket.
            name: Its name.
            fields: Of those, a null removes what was there.
            preconditions: What must hold.
            whole: Whether what is not among the fields is removed as well.
        """
        with self._lock:
            current = self.get(bucket, name, preconditions, reading=False)
            now = self._admit(bucket, name)
            changed = replace(
                current,
                metageneration=current.metageneration + 1,
                fields=_settable(
                    fields if whole else _merged(current.fields, fields)
                ),
                updated_secs=now,
            )
            self._buckets[bucket][name] = changed
            return changed

    def delete(
        self, bucket: str, name: str, preconditions: Preconditions
    ) -> None:
        """Removes an object."""
        with self._lock:
            self.get(bucket, name, preconditions, reading=False)
            self._admit(bucket, name)
            del self._buckets[bucket][name]

    def _bucket(self, name: str) -> dict[str, StoredObject]:
        if name in self._forbidden:
            raise error_for_status(403)
        try:
            return self._buckets[name]
        except KeyError:
            raise ApiError.not_found(
                "The specified bucket does not exist."
            ) from None

    def _admit(self, bucket: str, name: str) -> float:
        """The time, if an object may be written at it."""
        now = self._clock()
        last = self._written_secs.get((bucket, name))
        if last is not None and now - last < self._write_interval_secs:
            raise error_for_status(429)
        if self._write_interval_secs:
            self._written_secs[bucket, name] = now
        return now


def _settable(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in fields.items()
        if key in _SETTABLE and value is not None
    }


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**old, **new}
    if isinstance(new.get("metadata"), dict):
        pairs = {**(old.get("metadata") or {}), **new["metadata"]}
        merged["metadata"] = {k: v for k, v in pairs.items() if v is not None}
    return merged


def _check_name(name: str) -> None:
    if (
        not 1 <= len(name.encode("utf-8", "replace")) <= 1024
        or name in (".", "..")
        or "\r" in name
        or "\n" in name
    ):
        raise ApiError.invalid(f"Invalid object name: {name!r}")
