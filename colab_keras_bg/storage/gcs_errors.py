"""What Google Cloud Storage and its client raise, in our words.

Invariant: "there is no such object" is only said of a bucket that answers;
what asks for somebody to act is a `StorageRefusedError`, and all else, what a
retry may mend, a `StorageUnavailableError`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import google.auth.exceptions as auth
import requests
import urllib3
from google.api_core import exceptions as api
from google.cloud.exceptions import GoogleCloudError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from colab_keras_bg.errors import (
    ObjectNotFoundError,
    StorageRefusedError,
    StorageUnavailableError,
)

__all__ = ["LOGIN", "translated"]

LOGIN = (
    "Log in: google.colab.auth.authenticate_user() in a notebook, "
    "`gcloud auth application-default login` elsewhere, or let "
    "GOOGLE_APPLICATION_CREDENTIALS name a key file."
)
_PASSING_REASONS = (
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "quotaExceeded",
    "dailyLimitExceeded",
)
_MESSAGE = re.compile(r'"message": *"((?:[^"\\]|\\.)*)"')
# What the client says of any answer that it did not expect.
_NOISE = re.compile(r"\('Request failed with status code', .*", re.S)
_REQUEST = re.compile(r"^(?:GET|POST|PUT|PATCH|DELETE) \S+: ")
_TRANSPORT = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    auth.TransportError,
    ConnectionError,
    TimeoutError,
    DataCorruption,
    # A final answer that was cut off; the object may be there. (Of which
    # JSON library the error is, depends on what is installed.)
    ValueError,
    # An answer that is none: the client does not look before it takes apart.
    AttributeError,
    KeyError,
    TypeError,
)


@contextlib.contextmanager
def translated(where: str, name: str, *, bucket: str) -> Iterator[None]:
    """Raises our errors for those of the client.

    Args:
        where: The storage, for people.
        name: The object that it is about.
        bucket: The bucket's name.

    Raises:
        ObjectNotFoundError: If the bucket answers that there is none.
        StorageRefusedError: If somebody has to act.
        StorageUnavailableError: If it may pass.
    """
    try:
        yield
    except (api.PreconditionFailed, api.RequestRangeNotSatisfiable):
        raise  # What these mean, the caller knows.
    except InvalidResponse as error:
        raise _of_status(
            error.response.status_code, error.response.text, where, name, bucket
        ) from error
    except GoogleCloudError as error:
        text = f"{error.message} {error.errors}"
        raise _of_status(
            int(error.code or 0), text, where, name, bucket
        ) from error
    except auth.TransportError as error:
        raise _passing(where, error) from error
    except auth.GoogleAuthError as error:
        raise StorageRefusedError(
            where,
            cause=f"the credentials are not accepted or have expired ({error})",
            advice=LOGIN,
        ) from error
    except _TRANSPORT as error:
        raise _passing(where, error) from error


def _passing(where: str, error: Exception) -> StorageUnavailableError:
    return StorageUnavailableError(
        f"{where} cannot be reached: {type(error).__name__}: {error!s:.300}"
    )


def _of_status(
    status: int, text: str, where: str, name: str, bucket: str
) -> Exception:
    if status == api.NotFound.code:
        if "No such object" in text:
            return ObjectNotFoundError(name, where=where)
        return StorageRefusedError(
            where,
            cause=f"there is no bucket {bucket!r}",
            advice="Create it, or correct the address.",
        )
    if status == api.Unauthorized.code:
        return StorageRefusedError(
            where, cause="the credentials are not accepted", advice=LOGIN
        )
    if status == api.Forbidden.code and not any(
        reason in text for reason in _PASSING_REASONS
    ):
        return StorageRefusedError(
            where,
            cause=f"access is denied ({text.strip():.200})",
            advice=(
                "Give this account the role Storage Object User on the "
                f"bucket {bucket!r}, or log in as another."
            ),
        )
    said = _in_few_words(text)
    answers = f"{where} answers with status {status}"
    return StorageUnavailableError(
        f"{answers}: {said:.200}." if said else f"{answers}."
    )


def _in_few_words(text: str) -> str:
    """What the service says itself, without what the client puts around it."""
    if found := _MESSAGE.search(text):
        return found[1]
    return _REQUEST.sub("", _NOISE.sub("", text)).strip(" :\n")
