# SPDX-License-Identifier: Apache-2.0
"""Requests to a server that takes no data for a while, or never again."""

from __future__ import annotations

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import body
from glance_store._drivers.swift import client
from glance_store.testing import image
from tests.drivers.stalling import Server, authority, server
from tests.drivers.swift import loopback

__all__ = ["authority", "server"]

# More than the kernel holds for a peer that does not read.
SIZE = 16 * 1024 * 1024
CONNECTING = 1.0  # seconds; the server stalls for longer


def client_of(server: Server, connecting: float, reading: float) -> client.Client:
    url = f"{server.scheme}://127.0.0.1:{server.port}/v1/AUTH_x"
    return loopback.client_of(
        url, insecure=True, connect_timeout=connecting, read_timeout=reading, patience=0
    )


def put(sender: client.Client, name: str) -> int:
    patience = sender.patience()
    block = body.RequestBody(image(SIZE), patience)
    return sender.request(
        "PUT", "container", name, action="Storing", patience=patience, body=block.rewound
    ).status_code


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
