# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the S3 store: every test runs on a RADOS gateway and on Swift."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from oslo_config import cfg

from glance_store._drivers.s3 import Store
from glance_store.location import Location
from tests.drivers.s3.service import BUCKET, Service, serving, without_pauses, without_waiting
from tests.faults.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module", params=["radosgw", "swift"])
def link(request: pytest.FixtureRequest) -> Iterator[tuple[Service, FaultProxy]]:
    """A server, and the proxy through which the stores reach it."""
    server = request.getfixturevalue(request.param)
    with (
        serving(server) as service,
        FaultProxy("127.0.0.1", server.port, http=True) as proxy,
    ):
        yield service, proxy


@pytest.fixture
def service(link: tuple[Service, FaultProxy]) -> Iterator[Service]:
    yield link[0]
    link[0].empty()


@pytest.fixture
def proxy(link: tuple[Service, FaultProxy]) -> Iterator[FaultProxy]:
    yield link[1]
    link[1].clear()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting, no proxies and no credentials from outside."""
    without_pauses(monkeypatch)
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (*names, *map(str.upper, names), "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed requests come again at once; for stores with much patience."""
    without_waiting(monkeypatch)


class Images:
    """A configured S3 store, by what a service does with it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(self, image_id: str, data: Any, size: int | None = None) -> str:
        if isinstance(data, bytes):
            size = len(data) if size is None else size
            data = io.BytesIO(data)
        uri: str = self.store.add(image_id, data, size or 0, "sha256")[0]
        return uri

    def at(self, uri: str) -> Location:
        store = self.store
        place = store.get_store_location_class()
        scheme = uri.partition(":")[0]
        return Location(scheme, place, store.conf, uri=uri, backend=store.backend_group)

    def get(self, uri: str, **bounds: Any) -> Any:
        return self.store.get(self.at(uri), **bounds)[0]

    def read(self, uri: str, **bounds: Any) -> bytes:
        return b"".join(self.get(uri, **bounds))

    def size(self, uri: str) -> int:
        return self.store.get_size(self.at(uri))

    def delete(self, uri: str) -> None:
        self.store.delete(self.at(uri))


@pytest.fixture
def make(service: Service, proxy: FaultProxy) -> Callable[..., Images]:
    """Configure a store that reaches its server through the proxy."""

    def create(**options: Any) -> Images:
        conf = cfg.ConfigOpts()
        store = Store(conf, "objects")
        for name, value in {**service.options(proxy.address), **options}.items():
            conf.set_override(name, value, group="objects")
        store.configure(re_raise_bsc=True)
        return Images(store)

    return create


@pytest.fixture
def images(make: Callable[..., Images]) -> Images:
    return make()


@pytest.fixture
def name() -> dict[str, str]:
    """The bucket, for requests past the driver."""
    return {"Bucket": BUCKET}
