# SPDX-License-Identifier: Apache-2.0
"""Uploads to an S3 service that takes no data for a while, or never again."""

from __future__ import annotations

import pytest

from glance_store import exceptions
from glance_store._drivers._objects.body import RequestBody
from glance_store._drivers.s3 import client as clients
from glance_store._drivers.s3.endpoint import parse
from glance_store._drivers.s3.errors import guarded
from glance_store.testing import image
from glance_store.transfer.retry import Patience
from tests.drivers.stalling import Server, authority, server

__all__ = ["authority", "server"]

# More than the kernel holds for a peer that does not read.
SIZE = 16 * 1024 * 1024
CONNECTING = 1  # seconds; the server stalls for longer


@pytest.fixture
def trusted(authority, tmp_path) -> str:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def client_of(server: Server, trusted: str, connecting: float, reading: float) -> clients.Client:
    settings = clients.Settings(
        endpoint=parse(f"{server.scheme}://127.0.0.1:{server.port}", "us-east-1"),
        access_key="access",
        secret_key="secret",
        addressing="path",
        authorities=trusted,
        request_checksums="when_required",
        response_checksums="when_required",
        patience=0,
        attempts=None,
        payer="",
        connect_timeout=connecting,
        read_timeout=reading,
        proxies={},
        concurrency=1,
    )
    return clients.make_client(settings)


def put(sender: clients.Client, name: str) -> int:
    body = RequestBody(image(SIZE), Patience(0))
    answer = guarded(
        lambda: sender.s3.put_object(Bucket="bucket", Key=name, Body=body, ContentLength=SIZE),
        "Storing",
    )
    return answer["ResponseMetadata"]["HTTPStatusCode"]


# The server knows no queries, and takes for a stall what ends with this name.
STALLS = "stalls"


@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
def test_service_that_takes_no_data_for_a_while(server, trusted, reused):
    """The limit for connecting says nothing about the data."""
    sender = client_of(server, trusted, CONNECTING, 60)
    if reused:
        assert put(sender, "before") == 201
    assert server.stalling(lambda: put(sender, STALLS), 1.5 * CONNECTING) == 201
    assert server.received == (1 + reused) * SIZE


def test_service_that_never_takes_the_data(server, trusted):
    """It is given up after the time for reading, however long connecting may take."""
    sender = client_of(server, trusted, 3600, 0.2)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="time"):
        put(sender, STALLS)
    assert not server.go_on.is_set()
