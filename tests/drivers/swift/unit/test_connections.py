# SPDX-License-Identifier: Apache-2.0
"""Requests to a server that takes no data for a while, or never again."""

from __future__ import annotations

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import client, connections
from glance_store.testing import image
from tests.drivers.stalling import Server, authority, server

__all__ = ["authority", "server"]

# More than the kernel holds for a peer that does not read.
SIZE = 16 * 1024 * 1024
CONNECTING = 1.0  # seconds; the server stalls for longer


class Account:
    """One token for all times."""

    def __init__(self, url: str) -> None:
        self.url = url

    def token(self) -> str:
        return "token"

    def renew(self, refused: str) -> str:
        raise AssertionError("the token is good")

    def tend(self) -> None:
        """Nothing to do."""

    def prepare(self) -> None:
        """Nothing ends."""

    def close(self) -> None:
        """Nothing is open."""


def client_of(server: Server, connecting: float, reading: float) -> client.Client:
    settings = connections.Settings(True, None, connecting, reading, 0, 1)
    account = Account(f"{server.scheme}://127.0.0.1:{server.port}/v1/AUTH_x")
    return client.Client(connections.Connections(), settings, account)


def put(sender: client.Client, name: str) -> int:
    data = memoryview(image(SIZE))
    step = 64 * 1024
    return sender.request(
        "PUT",
        "container",
        name,
        action="Storing",
        headers={"Content-Length": str(SIZE)},
        body=lambda: (data[at : at + step] for at in range(0, SIZE, step)),
    ).status


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
def test_server_that_takes_no_data_for_a_while(server, reused):
    """The limit for connecting says nothing about the data."""
    sender = client_of(server, CONNECTING, 60)
    if reused:
        assert put(sender, "before") == 201
    assert server.stalling(lambda: put(sender, "stalls"), 1.5 * CONNECTING) == 201
    assert server.received == (1 + reused) * SIZE


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_server_that_never_takes_the_data(server):
    """It is given up after the time for reading, however long connecting may take."""
    sender = client_of(server, 3600, 0.2)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="swift_store_read_timeout"):
        put(sender, "stalls")
    assert not server.go_on.is_set()
