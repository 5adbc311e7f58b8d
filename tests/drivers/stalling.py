# SPDX-License-Identifier: Apache-2.0
"""A server that takes no data for a while, with and without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
import trustme

from glance_store import exceptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Takes one connection; a request for ``/stalls`` is read when `go_on` is set, not before."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.stalls = threading.Event()
        self.go_on = threading.Event()
        self.received = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            sock, _address = self._listener.accept()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            with sock, sock.makefile("rb") as file:
                while self._answer(sock, file):
                    pass

    def _answer(self, sock, file) -> bool:
        line = file.readline()
        length = 0
        while header := file.readline().strip():
            name, _colon, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if b"/stalls " in line:
            self.stalls.set()
            assert self.go_on.wait(60)
        while length and (data := file.read(min(length, 65536))):
            length -= len(data)
            self.received += len(data)
        if line and not length:
            sock.sendall(ANSWER)
        return bool(line)

    def stalling(self, put: Callable[[], int], seconds: float) -> object:
        """Have something put, and read on when that has stalled for a while.

        :param put: puts to a path that ends with ``/stalls``
        :param seconds: how long it is read on after at least, unless `put` gives up
        :returns: what `put` returns, or what it raises
        """
        outcome: list[object] = []
        over = threading.Event()

        def run() -> None:
            try:
                outcome.append(put())
            except exceptions.GlanceStoreException as exc:
                outcome.append(exc)
            over.set()

        running = threading.Thread(target=run)
        running.start()
        assert self.stalls.wait(60)
        # If the sender gives up it does so now; else it has to be waited for.
        over.wait(seconds)
        self.go_on.set()
        running.join(60)
        (found,) = outcome
        return found

    def close(self) -> None:
        self.go_on.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["http", "https"])
def server(request, authority) -> Iterator[Server]:
    context = None
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
    running = Server(context)
    running.scheme = request.param
    yield running
    running.close()
