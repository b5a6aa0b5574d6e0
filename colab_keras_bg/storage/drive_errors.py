"""What Google Drive and its client raise, in our words.

Invariant: what asks for somebody to act is a `StorageRefusedError`, and all
else, what a retry may mend, a `StorageUnavailableError`. No message tells what
stands in a request's headers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator

import google.auth.exceptions as auth
import httplib2
from googleapiclient.errors import Error, HttpError

from colab_keras_bg.errors import (
    NoSpaceError,
    StorageRefusedError,
    StorageUnavailableError,
)

__all__ = ["LOGIN", "AbsentError", "TakenError", "translated"]

LOGIN = (
    "Log in: google.colab.auth.authenticate_user() in a notebook, `gcloud auth "
    "application-default login --scopes=openid,"
    "https://www.googleapis.com/auth/cloud-platform,"
    "https://www.googleapis.com/auth/drive` elsewhere, or let "
    "GOOGLE_APPLICATION_CREDENTIALS name a key file."
)
_NO_SPACE = (
    "Empty the trash of Drive, which counts, or get more space. A service "
    "account has no space of its own: use a folder of a shared drive."
)
_FULL = frozenset({"storageQuotaExceeded", "teamDriveFileLimitExceeded"})
_PASSING = frozenset(
    {
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "sharingRateLimitExceeded",
        "dailyLimitExceeded",
        "quotaExceeded",
        "downloadQuotaExceeded",
        "backendError",
        "internalError",
    }
)
# What credentials are not for, whoever's they are.
_NARROW = frozenset({"insufficientPermissions", "insufficientScopes"})
_TRANSPORT = (
    httplib2.HttpLib2Error,
    http.client.HTTPException,
    auth.TransportError,
    ConnectionError,
    TimeoutError,
    OSError,
    # An answer that was cut off.
    ValueError,
    # One that is none: the client does not look before it takes apart.
    AttributeError,
    KeyError,
    TypeError,
)


class AbsentError(Exception):
    """There is no file of this id."""


class TakenError(Exception):
    """There is a file of this id already."""


@contextlib.contextmanager
def translated(where: str, name: str) -> Iterator[None]:
    """Raises our errors for those of the client.

    Args:
        where: The storage, for people.
        name: What it is about.

    Raises:
        AbsentError: If there is no such file.
        TakenError: If the id is used.
        NoSpaceError: If there is no space.
        StorageRefusedError: If somebody has to act.
        StorageUnavailableError: If it may pass.
    """
    try:
        yield
    except (AbsentError, TakenError):
        raise
    except HttpError as error:
        raise _of(error, where, name) from error
    except auth.TransportError as error:
        raise _passing(where, error) from error
    except auth.GoogleAuthError as error:
        if getattr(error, "retryable", False):
            raise _passing(where, error) from error
        raise StorageRefusedError(
            where,
            cause=f"the credentials are not accepted or have expired ({error})",
            advice=LOGIN,
        ) from error
    except StorageUnavailableError:
        raise
    except (Error, *_TRANSPORT) as error:
        raise _passing(where, error) from error


def _passing(where: str, error: Exception) -> StorageUnavailableError:
    return StorageUnavailableError(
        f"{where} cannot be reached: {type(error).__name__}: {error!s:.300}"
    )


def _of(error: HttpError, where: str, name: str) -> Exception:
    status, reasons, message = int(error.resp.status), *_said(error)
    if status == 404:
        return AbsentError(name)
    if status == 409:
        return TakenError(name)
    if reasons & _FULL:
        full = NoSpaceError(name, where=where)
        full.args = (f"No space left in {where} for {name!r}. {_NO_SPACE}",)
        return full
    if status == 401:
        return StorageRefusedError(
            where, cause="the credentials are not accepted", advice=LOGIN
        )
    if status == 403 and not reasons & _PASSING:
        if reasons & _NARROW:
            return StorageRefusedError(
                where, cause="the credentials are not for Drive", advice=LOGIN
            )
        return StorageRefusedError(
            where,
            cause=f"access is denied ({message:.200})",
            advice=(
                "Let this account edit the folder, or log in as another; the "
                "Drive API has to be switched on in its project."
            ),
        )
    return StorageUnavailableError(
        f"{where} answers with status {status}: {message:.200}"
    )


def _said(error: HttpError) -> tuple[set[str], str]:
    """The reasons that the service gives, and its message."""
    try:
        told = json.loads(error.content)["error"]
        reasons = {str(one.get("reason")) for one in told.get("errors", ())}
        return reasons, str(told.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return set(), repr(error.content[:200])
