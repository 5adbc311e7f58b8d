# SPDX-License-Identifier: Apache-2.0
"""Servers behind the fault proxy."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.http_server import WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20.0


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait for what has to happen sooner or later; tell whether it did in a generous time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Serving:
    """A server of the standard library in a thread, which waits for its handlers at the end.

    :param handler: class of the handlers
    """

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        self.received: list[Any] = []
        self._tcp = _Server(("127.0.0.1", 0), handler)
        self._tcp.serving = self
        self._thread = threading.Thread(target=self._tcp.serve_forever, args=(0.01,))
        self.port: int = self._tcp.server_address[1]

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._tcp.connections)

    def __enter__(self) -> Serving:  # noqa: PYI034 - Self needs Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._tcp.shutdown()
        self._thread.join()
        for connection in list(self._tcp.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._tcp.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False
    request_queue_size = 128
    serving: Serving

    def __init__(self, *arguments: Any) -> None:
        self.connections: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: connections that break are what the tests are about."""


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes, until the client ends its side; then says goodbye."""

    def handle(self) -> None:
        received = self.server.serving.received  # type: ignore[attr-defined]
        try:
            while data := self.request.recv(65536):
                received.append(data)
                self.request.sendall(data)
        except ConnectionResetError:
            received.append("reset")
            return
        received.append("end")
        self.request.sendall(b"goodbye")


class Uploads(http.server.BaseHTTPRequestHandler):
    """Takes PUT, with a length or in chunks, and remembers the bodies by their paths."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.serving.received.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(201)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"stored")

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def echo() -> Iterator[Serving]:
    with Serving(Echo) as server:
        yield server


@pytest.fixture
def uploads() -> Iterator[Serving]:
    with Serving(Uploads) as server:
        yield server


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server
