# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the http store."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import glance_store
from glance_store.location import get_location_from_uri
from tests.services.http_server import Proxy, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_proxies_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the tests names no proxy and no certificates."""
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (*names, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def other_web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def authority_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def tls_web(authority: trustme.CA) -> Iterator[WebServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with WebServer(context) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        yield server


class Reading:
    """A configured http store, by the functions that a service uses."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def get(self, uri: str, *args: Any, **kwargs: Any) -> tuple[Any, int]:
        return self.store.get(get_location_from_uri(uri), *args, **kwargs)

    def read(self, uri: str, *args: Any, **kwargs: Any) -> bytes:
        chunks, _size = self.get(uri, *args, **kwargs)
        return b"".join(chunks)

    def size(self, uri: str) -> int:
        return self.store.get_size(get_location_from_uri(uri))


@pytest.fixture
def http_store(create_single: Callable[..., int]) -> Callable[..., Reading]:
    """Configure an http store with options."""

    def create(**options: Any) -> Reading:
        defaults = {
            "https_insecure": False,
            "http_store_retry_timeout": 1,
            "http_store_connect_timeout": 5,
            "http_store_read_timeout": 15,
        }
        assert create_single(["http"], {**defaults, **options}) == 1
        return Reading(glance_store.get_store_from_scheme("http"))

    return create


@pytest.fixture
def http(http_store: Callable[..., Reading]) -> Reading:
    """An http store that verifies certificates and resumes once."""
    return http_store()
