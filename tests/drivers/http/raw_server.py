# SPDX-License-Identifier: Apache-2.0
"""A server that sends exactly the bytes a test gives it, HTTP or not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

PATIENCE = 20.0


def head(status: str = "200 OK", *lines: str) -> bytes:
    """Return the head of an answer."""
    return "\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode("latin-1")


class RawServer:
    """A server on a loopback address; use it as a context manager.

    Each connection gets one answer: that of `answer`, a function of the first line of the request
    that returns bytes. Then it is closed.

    :param answer: the function, or the bytes of every answer
    :param host: address to listen on
    :param port: 0 for a free one
    """

    def __init__(
        self, answer: Callable[[str], bytes] | bytes, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._answer = answer if callable(answer) else lambda line: answer
        self._socket = socket.create_server((host, port), backlog=50)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port: int = self._socket.getsockname()[1]
        self.lines: list[str] = []  # the first line of each request
        self.hosts: list[str] = []  # its header Host
        self.accepted = 0
        self.url = f"http://{host}:{self.port}"

    @property
    def methods(self) -> list[str]:
        """The method of each request."""
        return [line.split(" ")[0] for line in self.lines]

    @property
    def targets(self) -> list[str]:
        """The target of each request."""
        return [line.split(" ")[1] for line in self.lines]

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            with connection, contextlib.suppress(OSError):
                connection.settimeout(PATIENCE)
                self._handle(connection)

    def _handle(self, connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            data = connection.recv(65536)
            if not data:
                return
            request += data
        first, *fields = request.decode("latin-1").split("\r\n")
        self.lines.append(first)
        self.hosts += [field[6:] for field in fields if field.lower().startswith("host: ")]
        connection.sendall(self._answer(first))
        connection.shutdown(socket.SHUT_WR)

    def __enter__(self) -> RawServer:  # noqa: PYI034 - Self needs Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # accept() in the thread does not notice close() alone.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()
        assert not self._thread.is_alive(), "a connection of the server is still open"
