# SPDX-License-Identifier: Apache-2.0
"""Encryption in front of a server that has none, as a load balancer would do it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def _carry(encrypted: ssl.SSLSocket, plain: socket.socket) -> None:
    """Pass bytes on in both directions until one side has ended."""
    with encrypted, plain, selectors.DefaultSelector() as ready:
        ready.register(encrypted, selectors.EVENT_READ, plain)
        ready.register(plain, selectors.EVENT_READ, encrypted)
        while True:
            for key, _events in ready.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                # What is decrypted already wakes nobody.
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    data += source.recv(source.pending())
                if not data:
                    return
                key.data.sendall(data)


def _serve(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    def handle(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            encrypted = context.wrap_socket(client, server_side=True)
            _carry(encrypted, socket.create_connection(("127.0.0.1", port)))

    while True:
        try:
            client, _address = listener.accept()
        except OSError:
            return
        threading.Thread(target=handle, args=(client,), daemon=True).start()


@contextlib.contextmanager
def encrypted(context: ssl.SSLContext, port: int) -> Iterator[int]:
    """Yield a port that leads, encrypted, to a port of loopback.

    :param context: with the certificate
    :param port: of the server
    """
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_serve, args=(listener, context, port), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # A close alone does not wake accept().
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
