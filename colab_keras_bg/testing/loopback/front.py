"""The HTTP in front of the service, and where faults strike.

Invariant: a request is counted once, struck by at most one fault, and its
body is read to its end or its connection closed, so that the next request on
the connection is understood.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import socketserver
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

from colab_keras_bg.testing.loopback.answers import (
    Answer,
    ApiError,
    error_for_status,
)
from colab_keras_bg.testing.loopback.body import Body, CutShort
from colab_keras_bg.testing.loopback.faults import Fault, Faults

__all__ = ["Api", "HttpFront", "Tally"]

_RESETS = struct.pack("ii", 1, 0)  # SO_LINGER: what is not sent is dropped.


class Api(Protocol):
    """A service behind the front."""

    def understand(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> Any:
        """Which operation a request means: a `Request`.

        Raises:
            ApiError: If it is none that is served.
        """

    def name_of(self, request: Any) -> str:
        """What it is about, by name."""

    def answer(
        self, request: Any, part: Callable[[Any], Answer] | None = None
    ) -> Answer:
        """Carries it out.

        Args:
            request: The request.
            part: Carries out one of those that it is made of.

        Raises:
            ApiError: If the service refuses it.
        """

    def refused(self, request: Any, error: ApiError) -> Answer:
        """How it says so."""


class Tally:
    """What a server has done so far; for any thread.

    Attributes:
        requests: The requests by their operation.
        bytes_received: The bytes of their bodies.
        bytes_sent: The bytes of the answers' bodies.
    """

    def __init__(self) -> None:
        """Starts with nothing."""
        self.requests: Counter[str] = Counter()
        self.bytes_received = 0
        self.bytes_sent = 0
        self._lock = threading.Lock()

    def count(self, operation: str) -> None:
        """Counts a request."""
        with self._lock:
            self.requests[operation] += 1

    def add(self, *, received: int = 0, sent: int = 0) -> None:
        """Adds bytes."""
        with self._lock:
            self.bytes_received += received
            self.bytes_sent += sent

    def as_json(self) -> dict[str, Any]:
        """All of it, for another process."""
        with self._lock:
            return {
                "requests": dict(self.requests),
                "bytes_received": self.bytes_received,
                "bytes_sent": self.bytes_sent,
            }


class HttpFront(socketserver.ThreadingTCPServer):
    """Listens at one port of 127.0.0.1, a thread a connection.

    Attributes:
        service: What carries requests out.
        faults: What strikes them.
        tally: What counts them.
        failures: What went wrong in the server itself.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, port: int, service: Api, faults: Faults, tally: Tally
    ) -> None:
        """Takes a port, any free one if 0, and does not listen yet."""
        self.service = service
        self.faults = faults
        self.tally = tally
        self.failures: list[BaseException] = []
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._closing = False
        # A port that is chosen for us must not be one that another process
        # has bound, too, and does not listen at yet.
        self.allow_reuse_address = port != 0
        super().__init__(
            ("127.0.0.1", port), _Connection, bind_and_activate=False
        )
        try:
            self.server_bind()
        except BaseException:
            self.server_close()
            raise

    @property
    def closing(self) -> bool:
        """Whether nothing is to be carried out any more."""
        return self._closing

    def server_bind(self) -> None:
        """Takes the port, so that nobody else gets it before we listen."""
        super().server_bind()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    def server_activate(self) -> None:
        """Listens, whatever connections of old there are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        super().server_activate()

    def reset_all(self) -> None:
        """Resets all connections, and waits until their threads have ended."""
        self._closing = True
        self.faults.release()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            _reset(connection)
        for thread in connections.values():
            thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves a connection from a thread of its own."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            daemon=True,
        )
        with self._lock:
            self._connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection: with a reset, if one was asked for."""
        with self._lock:
            self._connections.pop(request, None)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps what went wrong in the server; connections may end."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.failures.append(error)


def _reset(connection: socket.socket) -> None:
    """Makes a connection end in a reset, and wakes up who waits for it."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It has ended already.


class _Dropped(Exception):  # noqa: N818 - it is what a fault asks for
    """The connection is to be reset."""


class _Connection(BaseHTTPRequestHandler):
    """One connection, request after request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 1 << 16
    server: HttpFront

    def _serve(self) -> None:
        self._headers = {k.lower(): v for k, v in self.headers.items()}
        chunked = "chunked" in self._headers.get("transfer-encoding", "")
        length = int(self._headers.get("content-length", 0))
        self._body = Body(
            self.rfile,
            None if chunked else length,
            lambda size_bytes: self.server.tally.add(received=size_bytes),
        )
        try:
            if self.path.startswith("/_"):
                self._send(self._controlled())
            else:
                self._answer()
        except _Dropped:
            self.close_connection = True
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _RESETS
            )
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _answer(self) -> None:
        fault = None
        try:
            request = self.server.service.understand(
                self.command, self.path, self._headers, self._body
            )
            fault = self._fault(request)
            try:
                answer = self._carried_out(request, fault)
            except ApiError as error:
                answer = self.server.service.refused(request, error)
        except ApiError as error:
            answer = error.answer()
        self._body.drain()
        self._send(answer, fault)

    def _fault(self, request: Any, **of: Container[str]) -> Fault | None:
        self.server.tally.count(request.operation)
        name = self.server.service.name_of(request)
        return self.server.faults.take(request.operation, name, **of)

    def _carried_out(self, request: Any, fault: Fault | None) -> Answer:
        if fault and fault.kind == "stall":
            self._hold(fault)
        if fault and fault.kind in ("status", "reset"):
            self._strike_before(request, fault)
        answer = self.server.service.answer(request, self._part_carried_out)
        if fault and fault.kind == "stalled_answer":
            self._hold(fault)
        if fault and fault.kind == "lost_answer":
            raise _Dropped
        return answer

    def _part_carried_out(self, request: Any) -> Answer:
        fault = self._fault(request, kinds=["status"])
        if fault:
            raise error_for_status(fault.status, fault.reason)
        if request.operation not in ("get.metadata", "patch", "delete"):
            raise ApiError.invalid(f"{request.operation} is not for batches.")
        return self.server.service.answer(request)

    def _strike_before(self, request: Any, fault: Fault) -> None:
        """Ends a request that is not to be carried out."""
        if fault.after_bytes is not None and self._body.size_bytes != 0:
            self._body.cut_after_bytes = fault.after_bytes
            # Of what came, only a resumable upload keeps something.
            with contextlib.suppress(CutShort):
                self.server.service.answer(request)
        if fault.kind == "reset":
            raise _Dropped
        raise error_for_status(fault.status, fault.reason)

    def _hold(self, fault: Fault) -> None:
        self.server.faults.hold(fault.secs)
        if self.server.closing:
            raise _Dropped

    def _send(self, answer: Answer, fault: Fault | None = None) -> None:
        kind = fault.kind if fault else ""
        headers = dict(answer.headers)
        size_bytes = sent_bytes = answer.size_bytes
        body: Iterable[bytes | memoryview] = answer.body
        offset = _offset(fault, size_bytes)
        if kind in ("truncated_answer", "broken_answer"):
            sent_bytes = offset
            self.close_connection = True
        if kind == "corrupt_answer":
            body = _corrupt(body, offset)
        if kind == "truncated_answer":
            headers["Connection"] = "close"
        elif answer.status not in (204, 304):
            headers["Content-Length"] = str(size_bytes)
        reason = http.client.responses.get(answer.status, "Unknown")
        lines = [f"HTTP/1.1 {answer.status} {reason}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        self._write(head, body, sent_bytes)

    def _write(
        self, head: bytes, body: Iterable[bytes | memoryview], most_bytes: int
    ) -> None:
        left_bytes = most_bytes
        for piece in body:
            part = piece[:left_bytes]
            left_bytes -= len(part)
            self.server.tally.add(sent=len(part))
            if head:
                part, head = head + part, b""
            self.connection.sendall(part)
        if head:
            self.connection.sendall(head)

    def _controlled(self) -> Answer:
        """Answers who controls this server from another process."""
        if (self.command, self.path) == ("GET", "/_requests"):
            return Answer.json(self.server.tally.as_json())
        text = self._body.read()
        if (self.command, self.path) != ("POST", "/_faults"):
            return ApiError.not_found(self.path).answer()
        try:
            self.server.faults.control(json.loads(text or b"{}"))
        except (AttributeError, ValueError) as error:
            return ApiError.invalid(str(error)).answer()
        return Answer.json({"struck": dict(self.server.faults.struck)})

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a test reads the tally."""


def _offset(fault: Fault | None, size_bytes: int) -> int:
    """The byte of an answer's body at which a fault strikes."""
    if fault is None or fault.after_bytes is None:
        return size_bytes // 2
    return min(fault.after_bytes, size_bytes)


def _corrupt(
    body: Iterable[bytes | memoryview], offset: int
) -> Iterable[bytes | memoryview]:
    for piece in body:
        if 0 <= offset < len(piece):
            wrong = bytearray(piece)
            wrong[offset] ^= 0x01
            piece = bytes(wrong)
        offset -= len(piece)
        yield piece
