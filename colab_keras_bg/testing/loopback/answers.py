"""What the server answers, and the errors of the service.

Invariant: an error's body is the service's: a message, a reason, a domain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BEARER", "Answer", "ApiError", "error_for_status"]

# How an answer with 401 asks for a token.
BEARER = 'Bearer realm="https://accounts.google.com/"'

_JsonObject = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """An answer before it is sent.

    Attributes:
        status: Its HTTP status.
        headers: Its headers, but for its length.
        body: Its body, in pieces.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[bytes | memoryview] = ()

    @classmethod
    def json(cls, value: _JsonObject, status: int = 200) -> Answer:
        """One that holds a JSON object."""
        return cls(
            status,
            {"Content-Type": "application/json; charset=UTF-8"},
            [json.dumps(value).encode()],
        )

    @property
    def size_bytes(self) -> int:
        """The size of its body."""
        return sum(map(len, self.body))


class ApiError(Exception):
    """A request that the service refuses.

    Attributes:
        status: The HTTP status.
        message: What the service says.
        reason: Its word for it.
        domain: Whose word that is.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        reason: str,
        *,
        domain: str = "global",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Takes what the answer says."""
        self.status = status
        self.message = message
        self.reason = reason
        self.domain = domain
        self.headers = dict(headers or {})
        super().__init__(f"{status} {reason}: {message}")

    @classmethod
    def invalid(cls, message: str) -> ApiError:
        """A request that makes no sense: 400."""
        return cls(400, message, "invalid")

    @classmethod
    def not_found(cls, what: str) -> ApiError:
        """Something that is not there: 404."""
        return cls(404, what, "notFound")

    @classmethod
    def condition_not_met(cls) -> ApiError:
        """A precondition that does not hold: 412."""
        return cls(
            412,
            "At least one of the pre-conditions you specified did not hold.",
            "conditionNotMet",
        )

    def answer(self, *, as_text: bool = False) -> Answer:
        """The answer that says so.

        Args:
            as_text: Whether the message alone is said, as in media answers.
        """
        if self.status == 304:
            return Answer(304, self.headers)
        if as_text:
            text = {"Content-Type": "text/html; charset=UTF-8", **self.headers}
            return Answer(self.status, text, [self.message.encode()])
        one = {
            "message": self.message,
            "domain": self.domain,
            "reason": self.reason,
        }
        told = Answer.json(
            {
                "error": {
                    "code": self.status,
                    "message": self.message,
                    "errors": [one],
                }
            },
            self.status,
        )
        return Answer(told.status, {**told.headers, **self.headers}, told.body)


_SAID = {
    401: ("Invalid Credentials", "authError"),
    403: ("Access denied.", "forbidden"),
    404: ("Not Found", "notFound"),
    408: ("Request Timeout", "requestTimeout"),
    429: (
        "The object exceeded the rate limit for object mutation operations "
        "(create, update, and delete). Please reduce your request rate.",
        "rateLimitExceeded",
    ),
    500: (
        "We encountered an internal error. Please try again.",
        "internalError",
    ),
    502: ("Bad Gateway", "backendError"),
    503: ("Backend Error", "backendError"),
    504: ("Gateway Timeout", "backendError"),
}
_QUOTA = {
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "quotaExceeded",
    "dailyLimitExceeded",
}


def error_for_status(status: int, reason: str | None = None) -> ApiError:
    """The error with which the service gives a status of itself.

    Args:
        status: The HTTP status.
        reason: The word for it, such as "quotaExceeded"; the usual one of
            the status if None.
    """
    message, usual = _SAID.get(status, (f"Error {status}", "backendError"))
    reason = reason or usual
    if reason != usual:
        message = f"{message} ({reason})"
    challenge = {"WWW-Authenticate": BEARER} if status == 401 else {}
    return ApiError(
        status,
        message,
        reason,
        domain="usageLimits" if reason in _QUOTA else "global",
        headers=challenge,
    )
