"""Several requests in one, as `multipart/mixed`.

Invariant: each part is a request of its own, counted and struck by faults as
such, and answered in the order of the parts whatever became of the others.
"""

from __future__ import annotations

import email
import http.client
import io
import re
import uuid
from collections.abc import Callable, Mapping
from email.message import Message
from urllib.parse import urlsplit

from colab_keras_bg.testing.loopback.answers import Answer, ApiError
from colab_keras_bg.testing.loopback.body import Body
from colab_keras_bg.testing.loopback_gcs.routes import Request, route

__all__ = ["batch_answer"]

_MOST_PARTS = 1000


def batch_answer(
    request: Request, carry_out: Callable[[Request], Answer]
) -> Answer:
    """Carries the parts out, one after the other.

    Args:
        request: The whole.
        carry_out: What carries one out.

    Raises:
        ApiError: 400, if the whole is not of that form.
    """
    head = f"Content-Type: {request.headers.get('content-type', '')}\n\n"
    message = email.message_from_bytes(head.encode() + request.body.read())
    parts = message.get_payload() if message.is_multipart() else []
    if not isinstance(parts, list) or not 1 <= len(parts) <= _MOST_PARTS:
        raise ApiError.invalid("A batch of 1 to 1000 requests is expected.")
    boundary = f"batch_{uuid.uuid4().hex}"
    answers = []
    for part in parts:
        assert isinstance(part, Message)  # noqa: S101 - for mypy
        # A surrogate stands for each byte that is not ASCII.
        text = str(part.get_payload()).encode("utf-8", "surrogateescape")
        answer = _part_answer(text, request.headers, carry_out)
        answers.append(f"--{boundary}\r\nContent-Type: application/http\r\n")
        if content_id := part.get("Content-ID"):
            answers.append(
                f"Content-ID: <response-{content_id.strip('<>')}>\r\n"
            )
        answers.append("\r\n" + _as_text(answer) + "\r\n")
    answers.append(f"--{boundary}--\r\n")
    return Answer(
        200,
        {"Content-Type": f"multipart/mixed; boundary={boundary}"},
        ["".join(answers).encode()],
    )


def _part_answer(
    text: bytes,
    outer: Mapping[str, str],
    carry_out: Callable[[Request], Answer],
) -> Answer:
    first, _, rest = text.partition(b"\n")
    line = re.fullmatch(r"([A-Z]+) (\S+) HTTP/\S+", first.decode().strip())
    if not line:
        return ApiError.invalid("Invalid request in a batch.").answer()
    head, _, body = rest.replace(b"\r\n", b"\n").partition(b"\n\n")
    told = email.message_from_bytes(head + b"\n\n")
    headers = {key.lower(): value for key, value in told.items()}
    headers.setdefault("host", outer.get("host", ""))
    url = urlsplit(line[2])
    target = f"{url.path}?{url.query}"
    try:
        inner = Body(io.BytesIO(body), len(body))
        return carry_out(route(line[1], target, headers, inner))
    except ApiError as error:
        return error.answer()


def _as_text(answer: Answer) -> str:
    reason = http.client.responses.get(answer.status, "Unknown")
    headers = {**answer.headers, "Content-Length": str(answer.size_bytes)}
    lines = [f"HTTP/1.1 {answer.status} {reason}"]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    body = b"".join(answer.body).decode()
    return "\r\n".join([*lines, "", body])
