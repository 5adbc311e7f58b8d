# SPDX-License-Identifier: Apache-2.0
"""Locations that name servers of somebody else: what may be sent there, and what not."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers import swift
from glance_store._drivers.swift import catalogue
from glance_store.location import Location

if TYPE_CHECKING:
    from collections.abc import Iterator

CATALOGUE = [
    {"type": "image", "endpoints": [{"publicURL": "http://images.example.org/v1/x"}]},
    {
        "type": "object-store",
        "endpoints": [
            {
                "region": "one",
                "publicURL": "https://swift.example.org/v1/AUTH_me",
                "internalURL": "http://10.0.0.1:8080/v1/AUTH_me",
            },
            {
                "region_id": "two",
                "interface": "public",
                "url": "https://Two.Example.org:443/swift/v1/AUTH_me",
            },
        ],
    },
]


def make(**options: Any) -> swift.BaseStore:
    conf = cfg.ConfigOpts()
    swift.Store(conf, "swift")
    values = {
        "swift_store_auth_address": "http://127.0.0.1:1/v3",
        "swift_store_user": "project:user",
        "swift_store_key": "canary",
        "swift_store_retry_timeout": 0,
        **options,
    }
    for name, value in values.items():
        conf.set_override(name, value, group="swift")
    store = swift.Store(conf, "swift")
    store.configure(re_raise_bsc=True)
    return store


def locate(store: swift.BaseStore, uri: str) -> Location:
    place = store.get_store_location_class()
    return Location(uri.partition(":")[0], place, store.conf, uri=uri, backend="swift")


# -- the token of a user


@pytest.mark.parametrize(
    "url",
    [
        "https://swift.example.org/v1/AUTH_me",
        # Images of others on the same cluster.
        "https://swift.example.org/v1/AUTH_other",
        "https://swift.example.org:443/v1/AUTH_other",
        "HTTPS://SWIFT.example.ORG/v1/AUTH_other",
        "http://10.0.0.1:8080/v1/AUTH_other",
        "https://two.example.org/swift/v1/AUTH_other",
    ],
)
def test_clusters_of_a_catalogue(url):
    assert catalogue.is_known(url, catalogue.addresses(CATALOGUE, "object-store"))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.org/v1/AUTH_me",
        "http://swift.example.org/v1/AUTH_me",
        "http://swift.example.org:443/v1/AUTH_me",
        "https://swift.example.org:8443/v1/AUTH_me",
        "https://10.0.0.1:8080/v1/AUTH_me",
        "http://10.0.0.1/v1/AUTH_me",
        "https://swift.example.org.evil.org/v1/AUTH_me",
        "https://evil.org/swift.example.org/v1/AUTH_me",
        "https://swift.example.org@evil.org/v1/AUTH_me",
        "https://evil.org@swift.example.org/v1/AUTH_me",
        "https://evil.org\\@swift.example.org/v1/AUTH_me",
        "https://swift.example.org\\@evil.org/v1/AUTH_me",
        "https://evil.org#swift.example.org/v1/AUTH_me",
        "http://images.example.org/v1/x",
        # Another service behind the same address.
        "https://swift.example.org/compute/v2.1/servers",
        "https://swift.example.org",
        "https://two.example.org/v1/AUTH_me",
        "https://swift.example.org/v1/../compute/v1/AUTH_me",
        "https://swift.example.org/v1/%2e%2e/compute",
        "https://swift.example.org/v1/..%2fcompute",
        "ftp://swift.example.org/v1/AUTH_me",
        "https://",
        "https://[::1/v1/AUTH_me",
        "None",
        "",
    ],
)
def test_servers_of_others(url):
    assert not catalogue.is_known(url, catalogue.addresses(CATALOGUE, "object-store"))


def test_endpoint_without_a_version():
    """Nothing is known then of the paths of other accounts."""
    known = ["https://swift.example.org/store"]
    assert catalogue.is_known("https://swift.example.org/store/c", known)
    assert catalogue.is_known("https://swift.example.org/v1/AUTH_x", known)
    assert not catalogue.is_known("https://other.example.org/store", known)
    assert not catalogue.is_known("https://swift.example.org/store", [])


@pytest.fixture
def strange() -> Iterator[socket.socket]:
    """A server that nothing may be sent to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def context(catalog: Any = CATALOGUE) -> Any:
    return types.SimpleNamespace(auth_token="token", service_catalog=catalog)


OPERATIONS = ("get", "get_size", "delete", "open_reader", "set_acls")


@pytest.mark.parametrize("endpoint", [None, "https://swift.example.org/v1/AUTH_me"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_token_is_not_sent_to_servers_of_others(strange, operation, endpoint):
    store = make(swift_store_multi_tenant=True, swift_store_endpoint=endpoint)
    port = strange.getsockname()[1]
    place = locate(store, f"swift+http://127.0.0.1:{port}/v1/AUTH_me/container/image")
    with pytest.raises(exceptions.BadStoreUri, match="nothing was sent"):
        getattr(store, operation)(place, context=context())
    with pytest.raises(BlockingIOError):
        strange.accept()


@pytest.mark.parametrize(
    ("operation", "known_by"),
    [("get", "endpoint"), ("get", "catalogue"), ("set_acls", "catalogue")],
)
def test_servers_of_the_operator_get_the_token(strange, operation, known_by):
    """Another account on a server that is known; it does not answer like a Swift."""
    port = strange.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/AUTH_me"
    options: dict[str, Any] = {"swift_store_multi_tenant": True, "swift_store_read_timeout": 1}
    asking = context([{"type": "object-store", "endpoints": [{"adminURL": url}]}])
    if known_by == "endpoint":
        options["swift_store_endpoint"] = url
        asking.service_catalog = None
    store = make(**options)
    place = locate(store, f"swift+http://127.0.0.1:{port}/v1/AUTH_other/container/image")
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        getattr(store, operation)(place, context=asking)
    strange.accept()[0].close()


@pytest.mark.parametrize("missing", ["auth_token", "service_catalog"])
def test_request_without_a_user(missing):
    store = make(swift_store_multi_tenant=True)
    place = locate(store, "swift+https://swift.example.org/v1/AUTH_me/container/image")
    asking = context()
    setattr(asking, missing, None)
    for incomplete in (asking, None):
        with pytest.raises(exceptions.BadStoreConfiguration):
            store.get(place, context=incomplete)


# -- credentials of the configuration


class Identity(http.server.ThreadingHTTPServer):
    """An identity service of somebody else, which keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.told: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Identity

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.server.told.append(f"{self.headers}{self.rfile.read(length).decode()}")
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_given: Any) -> None:
        """Be silent."""


@pytest.fixture
def identity() -> Iterator[Identity]:
    with Identity() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("account", ["project%3Auser:guess", "project%3Auser:"])
@pytest.mark.parametrize("operation", ["get", "delete", "open_reader"])
def test_configured_password_goes_to_its_own_address_alone(identity, account, operation):
    """A location's own account is tried at its own address; the rest is of the configuration."""
    store = make()
    place = locate(store, f"swift+http://{account}@127.0.0.1:{identity.server_port}/v3/c/o")
    with pytest.raises(exceptions.BackendException):
        getattr(store, operation)(place)
    (told,) = identity.told
    password = json.loads(told.partition("\n\n")[2])["auth"]["identity"]["password"]
    assert password["user"]["password"] == account.partition(":")[2]
    assert "canary" not in told


def test_application_credential_goes_to_its_own_address_alone(identity):
    store = make(
        swift_store_application_credential_id="known",
        swift_store_application_credential_secret="canary",
        swift_store_user=None,
        swift_store_key=None,
    )
    port = identity.server_port
    place = locate(store, f"swift+http://project%3Auser:guess@127.0.0.1:{port}/v3/c/o")
    with pytest.raises(exceptions.BackendException):
        store.get(place)
    place = locate(store, f"swift+http://127.0.0.1:{port}/v3/c/o")
    with pytest.raises(exceptions.BadStoreUri):
        store.get(place)
    (told,) = identity.told
    assert "canary" not in told
    assert "known" not in told


@pytest.mark.parametrize(
    "uri",
    [
        "swift+http://other%3Auser:canary@127.0.0.1:1/v3/c/o",
        "swift+http://project%3Auser:canary@127.0.0.1:2/v3/c/o",
    ],
)
def test_size_at_an_address_that_is_made_up(uri):
    """No outage of the store: the image service tells the user of the mistake."""
    store = make()
    with pytest.raises(exceptions.BadStoreUri, match="refused") as caught:
        store.get_size(locate(store, uri))
    assert "canary" not in str(caught.value)
    assert "guess" not in str(caught.value)


def test_size_with_credentials_that_are_made_up(identity):
    store = make()
    uri = f"swift+http://project%3Auser:guess@127.0.0.1:{identity.server_port}/v3/c/o"
    with pytest.raises(exceptions.BadStoreUri, match="401"):
        store.get_size(locate(store, uri))


@pytest.mark.parametrize(
    "uri",
    [
        "swift+http://project%3Auser:canary@127.0.0.1:1/v3/c/o",
        # With the password of other days, and with none.
        "swift+http://project%3Auser:guess@127.0.0.1:1/v3/c/o",
        "swift+http://127.0.0.1:1/v3/c/o",
        "swift+config://ref1/c/o",
    ],
)
def test_size_when_the_configured_service_fails(uri):
    """That is no mistake of the user."""
    store = make()
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        store.get_size(locate(store, uri))


def test_guessed_accounts_are_not_kept_for_ever(identity):
    store = make()
    for number in range(100):
        uri = f"swift+http://project%3Auser:{number}@127.0.0.1:{identity.server_port}/v3/c/o"
        with pytest.raises(exceptions.BackendException):
            store.get(locate(store, uri))
    assert len(identity.told) == 100
    accounts = store._sessions
    assert len(accounts._passing) + len(accounts._staying) <= 32


def test_configured_account_in_either_form():
    store = make()
    uri = "swift+http://project%3Auser:canary@127.0.0.1:1/v3/c/o"
    first = store._client(locate(store, uri).store_location, None).account
    for number in range(100):
        other = locate(store, f"swift+http://project%3Auser:{number}@127.0.0.1:1/v3/c/o")
        store._client(other.store_location, None)
    assert store._client(locate(store, uri).store_location, None).account is first
    assert store._account_for(None)[0] is first
    named = locate(store, "swift+config://ref1/c/o")
    assert store._client(named.store_location, None).account is first
