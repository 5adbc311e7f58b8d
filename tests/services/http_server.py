# SPDX-License-Identifier: Apache-2.0
"""Web servers on loopback that tests can make misbehave in every way that HTTP knows.

A path of a `WebServer` has an answerer: a function from a request to an `Answer`. `File` is the one
that behaves; `in_turn` gives one answer after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import http.server
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

PATIENCE = 20.0

_Server = TypeVar("_Server", bound="WebServer")


@dataclasses.dataclass(frozen=True)
class Request:
    """A request as the server got it."""

    method: str
    target: str
    headers: dict[str, str]  # names in lower case


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server sends, and how it ends.

    `framing` is ``length`` (Content-Length of the body), ``chunked``, or ``close`` (the end of the
    connection ends the body). After `cut` bytes of the body the connection is closed, reset, or
    left open in silence, as `ending` says. `status` 0: the connection ends before any answer.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    framing: str = "length"
    cut: int | None = None
    ending: str = "close"
    reason: str | None = None


Answerer = Callable[[Request], Answer]


@dataclasses.dataclass
class File:
    """A file as a good server sends it; what it offers can be switched off."""

    content: bytes
    ranges: bool = True
    etag: str | None = ""  # empty: computed; None: not sent
    modified: str | None = None
    framing: str = "length"
    total: bool = True  # whether answers to range requests say how large the file is
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    def __call__(self, request: Request) -> Answer:
        headers = dict(self.headers)
        etag = self.etag
        if etag is not None:
            etag = etag or '"' + hashlib.sha256(self.content).hexdigest()[:16] + '"'
            headers["ETag"] = etag
        if self.modified:
            headers["Last-Modified"] = self.modified
        headers.setdefault("Accept-Ranges", "bytes" if self.ranges else "none")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        condition = request.headers.get("if-range")
        if not self.ranges or wanted is None or condition not in (None, etag, self.modified):
            return Answer(200, self.content, headers, self.framing)
        size = len(self.content)
        start, last = int(wanted[1]), min(int(wanted[2] or size), size - 1)
        if start >= size or start > last:
            return Answer(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
        total = size if self.total else "*"
        headers["Content-Range"] = f"bytes {start}-{last}/{total}"
        return Answer(206, self.content[start : last + 1], headers, self.framing)


def in_turn(*answerers: Answerer | Answer) -> Answerer:
    """Return an answerer that asks each of these once, and the last one for ever."""
    waiting = list(answerers)
    lock = threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            chosen = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return chosen if isinstance(chosen, Answer) else chosen(request)

    return answer


def cutting(answerer: Answerer, cut: int, ending: str = "close") -> Answerer:
    """Return an answerer that breaks off after so many bytes of the body."""
    return lambda request: dataclasses.replace(answerer(request), cut=cut, ending=ending)


def redirect(target: str | None, status: int = 302) -> Answer:
    """Return a redirect, without a Location for None."""
    return Answer(status, b"moved", {} if target is None else {"Location": target})


class WebServer:
    """A web server with a free port on 127.0.0.1; use it as a context manager.

    :param tls: context for https; None for http
    """

    def __init__(self, tls: ssl.SSLContext | None = None, handler: Any = None) -> None:
        self.answerers: dict[str, Answerer] = {}
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self.scheme = "https" if tls else "http"
        self.stopping = threading.Event()
        self._tcp = _TCPServer(self, tls, handler or _Handler)
        self._thread = threading.Thread(target=self._tcp.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._tcp.server_address[1])

    def url(self, path: str, credentials: str = "", host: str = "127.0.0.1") -> str:
        """Return the URL of a path."""
        return f"{self.scheme}://{credentials}{host}:{self.port}{path}"

    def serve(self, path: str, answerer: Answerer | Answer | bytes) -> str:
        """Serve something under a path (without its query), and return the URL."""
        if isinstance(answerer, bytes):
            answerer = File(answerer)
        self.answerers[path] = in_turn(answerer) if isinstance(answerer, Answer) else answerer
        return self.url(path)

    def seen(self, name: str) -> list[str | None]:
        """Return a header of each request so far."""
        return [request.headers.get(name.lower()) for request in self.requests]

    def wait_until_idle(self) -> int:
        """Wait until no connection is open; return how many are after a generous time."""
        deadline = time.monotonic() + PATIENCE
        while self._tcp.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(self._tcp.connections)

    @property
    def accepted(self) -> int:
        """How many connections there have been."""
        return self._tcp.accepted

    def __enter__(self: _Server) -> _Server:  # noqa: PYI019 - Self needs Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopping.set()
        self._tcp.shutdown()
        self._thread.join()
        self._tcp.end_connections()
        self._tcp.server_close()
        assert not self.errors, self.errors


class _TCPServer(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def __init__(self, web: WebServer, tls: ssl.SSLContext | None, handler: Any) -> None:
        self.web = web
        self.tls = tls
        self.connections: set[socket.socket] = set()
        self.resetting: set[socket.socket] = set()
        self.accepted = 0
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            # The handshake happens with the first read, in the thread of the connection.
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self.accepted += 1
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        if request in self.resetting:
            # Without lingering, and without the orderly end of the base class.
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.close()
        else:
            super().shutdown_request(request)
        self.connections.discard(request)

    def end_connections(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        # Clients that go away are what many tests are about.
        if error is not None and not isinstance(
            error, (ConnectionError, ssl.SSLError, TimeoutError)
        ):
            self.web.errors.append(error)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _TCPServer

    def do_GET(self) -> None:
        web = self.server.web
        request = Request(
            self.command, self.path, {name.lower(): value for name, value in self.headers.items()}
        )
        web.requests.append(request)
        answerer = web.answerers.get(self.path.partition("?")[0])
        self._send(Answer(404, b"nothing here") if answerer is None else answerer(request))

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def _send(self, answer: Answer) -> None:
        if answer.status:
            self.send_response(answer.status, answer.reason)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.framing == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
            elif answer.framing == "length" and "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self._send_body(answer)
        if answer.framing == "close":
            self.close_connection = True
        if answer.cut is not None or not answer.status:
            self._end(answer.ending)

    def _send_body(self, answer: Answer) -> None:
        body = answer.body[: answer.cut]
        if answer.framing != "chunked":
            self.wfile.write(body)
            return
        for start in range(0, len(body), 1000):
            piece = body[start : start + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if answer.cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def _end(self, ending: str) -> None:
        self.close_connection = True
        if ending == "reset":
            self.server.resetting.add(self.connection)
        elif ending == "silence":
            self.server.web.stopping.wait(PATIENCE)

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet: `requests` has what a test may ask about."""


class Proxy(WebServer):
    """A forward proxy: passes requests on, tunnels https, and remembers the targets."""

    def __init__(self) -> None:
        super().__init__(handler=_ProxyHandler)


class _ProxyHandler(_Handler):
    def do_GET(self) -> None:
        web = self.server.web
        headers = {name.lower(): value for name, value in self.headers.items()}
        web.requests.append(Request(self.command, self.path, headers))
        target = urllib.parse.urlsplit(self.path)
        upstream = http.client.HTTPConnection(target.netloc, timeout=PATIENCE)
        with contextlib.closing(upstream):
            headers = {**headers}
            headers.pop("proxy-authorization", None)
            path = urllib.parse.urlunsplit(("", "", target.path, target.query, ""))
            upstream.request(self.command, path, headers=headers)
            answer = upstream.getresponse()
            body = answer.read()
            passed = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in ("server", "date", "connection", "transfer-encoding")
            }
            self._send(Answer(answer.status, body, passed))

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def do_CONNECT(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.web.requests.append(Request(self.command, self.path, headers))
        host, _colon, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as upstream:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(upstream, self.connection))
            back.start()
            _pump(self.connection, upstream)
            back.join()
        self.close_connection = True


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """Give a port on 127.0.0.1 that refuses connections."""
    with socket.socket() as reserved:
        # Bound and not listening: nobody else gets it meanwhile.
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
