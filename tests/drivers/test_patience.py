# SPDX-License-Identifier: Apache-2.0
"""Connections that the drivers of object stores and datastores have in common."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import requests
import urllib3.connection

from glance_store._drivers._patience import patient, prepare, with_connections

INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


@contextlib.contextmanager
def served(interim: bytes, times: int) -> Iterator[str]:
    """Give the address of a server that has something to say before each of its answers."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _address = listener.accept()
            with sock, sock.makefile("rb") as lines:
                for _number in range(times):
                    line = lines.readline()
                    while lines.readline().strip():
                        pass
                    sock.sendall(interim + ANSWER + line.split()[1][-4:])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    thread.join()


def connections() -> requests.Session:
    session = requests.Session()
    prepare(session, 30.0)
    return session


@pytest.mark.parametrize(
    "interim",
    [
        INTERIM,
        3 * INTERIM,
        INTERIM + b"HTTP/1.1 100 Continue\r\n\r\n" + INTERIM,
        b"HTTP/1.1 102 Processing\r\n\r\n",
    ],
    ids=["one", "several", "mixed", "without headers"],
)
def test_interim_answers_are_passed_over(interim: bytes) -> None:
    """Otherwise each would be answered with what belongs to the request before it."""
    with served(interim, 3) as address, connections() as session:
        for name in ("one1", "two2", "six6"):
            response = session.get(address + name)
            assert (response.status_code, response.text) == (200, name)


def test_interim_answers_without_an_end() -> None:
    with (
        served(1000 * INTERIM, 1) as address,
        connections() as session,
        pytest.raises(requests.ConnectionError, match="too many interim answers"),
    ):
        session.get(address + "name")


@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLZeroReturnError])
def test_answer_that_comes_early(kind: type[ssl.SSLError]) -> None:
    """After this error urllib3 reads the answer of a server that has closed; with TLS as well."""

    class Closed(urllib3.connection.HTTPSConnection):
        def send(self, data: object) -> None:
            raise kind("closed")

    class Pool:
        ConnectionCls = Closed

    with pytest.raises(BrokenPipeError):
        with_connections(Pool, patient(30.0)).ConnectionCls("127.0.0.1").send(b"data")


def test_idle_connections_are_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that has forgotten one would let the next request wait for its time to read."""
    connected: list[socket.socket] = []
    connect = urllib3.connection.HTTPConnection.connect

    def note(connection: urllib3.connection.HTTPConnection) -> None:
        connect(connection)
        connected.append(connection.sock)

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "connect", note)
    with served(b"", 1) as address, connections() as session:
        assert session.get(f"{address}here").text == "here"
        (sock,) = connected
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
