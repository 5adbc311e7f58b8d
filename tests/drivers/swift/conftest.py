# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the Swift store."""

from __future__ import annotations

import contextlib
import urllib.parse
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from oslo_config import cfg

from glance_store._drivers.swift import Store, large
from glance_store.location import Location
from tests.drivers.swift.account import Account
from tests.faults.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glance_store._drivers.swift import BaseStore
    from tests.services.keystone import Keystone
    from tests.services.swift import Swift

# The smallest segment that can be configured.
SEGMENT = 1000 * 1024


@pytest.fixture(autouse=True)
def no_proxies_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the tests names no proxy and no certificates."""
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (*names, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def container() -> str:
    """A name for the containers of one test."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def account(keystone: Keystone, swift: Swift, container: str) -> Iterator[Account]:
    """The account of the service, seen past the driver."""
    found = Account(keystone, "glance", swift.storage_url("glance"))
    yield found
    found.remove(container)


@pytest.fixture
def make(keystone: Keystone, swift: Swift, container: str) -> Callable[..., BaseStore]:
    """Make stores on the Swift of the tests; options are given without their common beginning."""

    def make(**options: Any) -> BaseStore:
        service = keystone.accounts["glance"]
        values: dict[str, Any] = {
            "swift_store_auth_address": keystone.auth_url,
            "swift_store_user": f"{service.project}:{service.user}",
            "swift_store_key": service.password,
            "swift_store_container": container,
            "swift_store_create_container_on_put": True,
            "swift_store_large_object_size": 1,
            "swift_store_large_object_chunk_size": 1,
            "swift_store_retry_timeout": 2,
        }
        for name, value in options.items():
            known = name.startswith(("swift", "default_swift"))
            values[name if known else f"swift_store_{name}"] = value
        conf = cfg.ConfigOpts()
        Store(conf, "swift")
        for name, value in values.items():
            conf.set_override(name, value, group="swift")
        store = Store(conf, "swift")
        store.configure(re_raise_bsc=True)
        return store

    return make


@pytest.fixture
def store(make: Callable[..., BaseStore]) -> BaseStore:
    """A store of one account with small segments."""
    return make()


@pytest.fixture
def proxy(swift: Swift) -> Iterator[FaultProxy]:
    """What fails requests to Swift."""
    with FaultProxy("127.0.0.1", swift.port, http=True) as running:
        yield running


@pytest.fixture
def through(swift: Swift, proxy: FaultProxy) -> Callable[[str], str]:
    """Return the address of an account behind the fault proxy."""

    def address(user: str) -> str:
        path = urllib.parse.urlsplit(swift.storage_url(user)).path
        return f"http://{proxy.address}{path}"

    return address


@pytest.fixture
def no_static(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster without static large objects."""
    say(monkeypatch, static=None)


def say(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    """Have the cluster say something else of itself.

    :param changed: fields of `large.ClusterInfo`
    """
    asked = large.cluster_info

    def cluster(client: Any, patience: Any) -> large.ClusterInfo:
        return asked(client, patience)._replace(**changed)

    monkeypatch.setattr(large, "cluster_info", cluster)


def locate(store: BaseStore, uri: str) -> Location:
    """Return the parsed form of a location."""
    scheme = uri.partition(":")[0]
    place = store.get_store_location_class()
    return Location(scheme, place, store.conf, uri=uri, backend=store.backend_group)


def read(store: BaseStore, uri: str, **bounds: Any) -> bytes:
    """Return an image or a range of it."""
    chunks, size = store.get(locate(store, uri), **bounds)
    with contextlib.closing(chunks):
        data = b"".join(chunks)
    assert size == len(data)
    return data
