"""An object at one moment, and what may be asked of it before it changes.

Invariant: nothing here changes; a new state of an object is a new value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from colab_keras_bg.testing.loopback.answers import ApiError
from colab_keras_bg.testing.loopback_gcs.content import Content

__all__ = [
    "Preconditions",
    "Source",
    "StoredObject",
    "check_name",
    "merged",
    "settable",
]

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


def settable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an object's fields that an uploader may set."""
    return {
        key: value
        for key, value in fields.items()
        if key in _SETTABLE and value is not None
    }


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """An object's fields after a patch: a null removes."""
    result = {**old, **new}
    if isinstance(new.get("metadata"), dict):
        pairs = {**(old.get("metadata") or {}), **new["metadata"]}
        result["metadata"] = {k: v for k, v in pairs.items() if v is not None}
    return result


def check_name(name: str) -> None:
    """Sees whether an object may be called that.

    Raises:
        ApiError: 400, if not.
    """
    if (
        not 1 <= len(name.encode("utf-8", "replace")) <= 1024
        or name in (".", "..")
        or "\r" in name
        or "\n" in name
    ):
        raise ApiError.invalid(f"Invalid object name: {name!r}")
