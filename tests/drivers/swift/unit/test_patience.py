# SPDX-License-Identifier: Apache-2.0
"""Failures that pass, and such that no patience cures."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING

import pytest
import requests

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.swift.conftest import locate
from tests.drivers.swift.loopback import (
    ACCOUNT,
    Answer,
    LittleSwift,
    Seen,
    client_of,
    context_at,
    store_at,
)

if TYPE_CHECKING:
    from glance_store._drivers.swift import BaseStore
    from tests.drivers.swift.loopback import Act

FOR_EVER = 3600.0
MIB = 1024 * 1024


class Failing:
    """Fails the first requests of each kind.

    :param status: of the answers
    :param times: how many of each
    """

    def __init__(self, status: int, times: int = 2) -> None:
        self._status = status
        self._times = times
        self.counts: dict[str, int] = {}

    def __call__(self, seen: Seen, act: Act) -> Answer:
        # Names of segments differ from one upload to the next.
        kind = f"{seen.method} {seen.path.rpartition('-')[2]}"
        count = self.counts[kind] = self.counts.get(kind, 0) + 1
        if count > self._times:
            return act()
        assert seen.body is not None
        return Answer(self._status, headers={"Retry-After": "1"})


def add(store: BaseStore, data: bytes, size: int | None = None) -> str:
    size = len(data) if size is None else size
    return str(store.add("image", io.BytesIO(data), size, "sha256")[0])


@pytest.mark.parametrize("status", [408, 429, 498, 499, 500, 502, 503, 504, 520, 524])
@pytest.mark.parametrize("size", [100, 3_000_000], ids=["object", "segments"])
def test_proxies_that_are_not_well_for_a_while(server, pauses, status, size):
    """Each request of an upload, a download and a deletion is repeated, when they want it."""
    store = store_at(server, large_object_size=1, large_object_chunk_size=1, retry_timeout=FOR_EVER)
    server.rule = failing = Failing(status)
    data = image(size)
    uri = add(store, data)
    place = locate(store, uri)
    assert b"".join(store.get(place)[0]) == data
    store.delete(place)
    server.rule = None
    assert server.names() == []
    # Of Keystone, of Swift itself, of the container, and of what is in it.
    assert len(failing.counts) == (6 if size == 100 else 10)
    assert len(pauses) == 2 * len(failing.counts)
    assert min(pauses) >= 1


@pytest.mark.parametrize("operation", ["add", "get", "get_size", "delete"])
def test_patience_that_is_at_its_end(server, operation):
    store = store_at(server, retry_timeout=0.3)
    place = locate(store, add(store, b"data"))
    server.rule = lambda _seen, _act: Answer(503)
    call = getattr(store, operation)
    arguments = ("new", io.BytesIO(b"data"), 4, "sha256") if operation == "add" else (place,)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="503"):
        call(*arguments)


def test_tries_can_be_counted(server, pauses):
    store = store_at(server, retry_timeout=FOR_EVER, retries=2)
    place = locate(store, add(store, b"data"))
    server.requests.clear()
    server.rule = lambda _seen, _act: Answer(503)
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        store.get_size(place)
    assert len(server.requests) == 1 + 2


def test_server_that_wants_more_time_than_there_is(server):
    """It is not waited for in vain."""
    store = store_at(server, retry_timeout=30)
    place = locate(store, add(store, b"data"))
    server.requests.clear()
    server.rule = lambda _seen, _act: Answer(503, headers={"Retry-After": "3600"})
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        store.get_size(place)
    assert len(server.requests) == 1


# -- what is an error at once


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT"])
def test_redirect_never_gets_the_token(server, pauses, method, status):
    with LittleSwift() as other:
        server.rule = lambda seen, _act: Answer(
            status, headers={"Location": f"http://{other.address}{seen.path}"}
        )
        sender = client_of(server.url, patience=FOR_EVER)
        with pytest.raises(exceptions.BackendException, match="swift_store_endpoint") as caught:
            sender.request(
                method, "images", "image", action="Trying", patience=sender.patience(), body=bytes
            )
        assert not isinstance(caught.value, exceptions.RemoteServiceUnavailable)
        assert other.requests == []
    assert len(server.requests) == 1
    assert pauses == []


def test_redirect_of_the_token_of_a_user(server, pauses):
    with LittleSwift() as other:
        server.rule = lambda seen, _act: Answer(
            307, headers={"Location": f"http://{other.address}{seen.path}"}
        )
        store = store_at(server, multi_tenant=True, retry_timeout=FOR_EVER)
        context = context_at(server, "secret-token")
        place = locate(store, f"swift+http://{server.address}{ACCOUNT}/images/image")
        for operation in (store.get, store.get_size, store.delete):
            with pytest.raises(exceptions.BackendException):
                operation(place, context=context)
        with pytest.raises(exceptions.BackendException):
            store.add("new", io.BytesIO(b"data"), 4, "sha256", context=context)
        assert other.requests == []
    assert pauses == []


@pytest.mark.parametrize("tenants", [False, True], ids=["Keystone", "Swift"])
@pytest.mark.parametrize("address", ["http://", "http:///nowhere", "nothing://x:1"])
def test_address_of_a_proxy_that_is_none(server, pauses, monkeypatch, address, tenants):
    monkeypatch.setenv("http_proxy", address)
    store = store_at(server, multi_tenant=tenants, retry_timeout=FOR_EVER)
    context = context_at(server) if tenants else None
    with pytest.raises(exceptions.BackendException) as caught:
        store.add("image", io.BytesIO(b"data"), 4, "sha256", context=context)
    assert not isinstance(caught.value, exceptions.RemoteServiceUnavailable)
    assert pauses == []
    assert server.requests == []


@pytest.mark.parametrize("tenants", [False, True], ids=["Keystone", "Swift"])
def test_authorities_that_go_away(server, pauses, tmp_path, tenants):
    """They were there when the store was configured."""
    file = tmp_path / "authorities.pem"
    shutil.copyfile(requests.certs.where(), file)
    options = {
        "auth_address": f"https://{server.address}/v3",
        "endpoint": f"https://{server.address}{ACCOUNT}",
        "cacert": str(file),
    }
    store = store_at(server, multi_tenant=tenants, retry_timeout=FOR_EVER, **options)
    file.unlink()
    context = context_at(server) if tenants else None
    with pytest.raises(exceptions.BackendException, match="swift_store_cacert") as caught:
        store.add("image", io.BytesIO(b"data"), 4, "sha256", context=context)
    assert not isinstance(caught.value, exceptions.RemoteServiceUnavailable)
    assert pauses == []


# -- several segments


def test_failure_does_not_wait_for_what_is_being_tried_again(server):
    """The first segment finds no room; the others would be tried again for an hour."""
    store = store_at(
        server,
        large_object_size=1,
        large_object_chunk_size=1,
        thread_pool_size=3,
        retry_timeout=FOR_EVER,
    )

    def rule(seen: Seen, act: Act) -> Answer:
        if seen.method != "PUT" or "-0" not in seen.name:
            return act()
        assert seen.body
        if not seen.name.endswith("-00001"):
            return Answer(503)
        # Not before the others are being tried again.
        return Answer(507 if len(server.of("PUT", "-00002")) > 1 else 503)

    server.rule = rule
    with pytest.raises(exceptions.StorageFull):
        add(store, image(6_000_000))
    assert server.names() == []


def test_connections_are_not_patient_twice(server):
    """What swiftclient would do by itself is left to the one loop."""
    sender = client_of(server.url, patience=0)
    server.rule = lambda _seen, _act: Answer(0)
    patience = sender.patience()
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        sender.request("HEAD", "images", "image", action="Trying", patience=patience)
    assert len(server.requests) == 1
