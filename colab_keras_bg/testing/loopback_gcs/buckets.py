"""Buckets of objects, with generations.

Invariant: every change happens under one lock, after its preconditions were
checked under the same: of racing creators one wins. A generation is never
used twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from colab_keras_bg.testing.loopback.answers import (
    ApiError,
    error_for_status,
)
from colab_keras_bg.testing.loopback_gcs.content import Content, composed
from colab_keras_bg.testing.loopback_gcs.objects import (
    Preconditions,
    Source,
    StoredObject,
    check_name,
    merged,
    settable,
)

__all__ = ["Buckets"]

_MOST_COMPONENTS = 32


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
            check_name(name)
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
                fields=settable(fields),
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
        if not 1 <= len(sources) <= _MOST_COMPONENTS:
            raise ApiError.invalid(
                f"The number of source components provided ({len(sources)}) "
                f"must be between 1 and {_MOST_COMPONENTS}."
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
                fields=settable(
                    fields if whole else merged(current.fields, fields)
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
