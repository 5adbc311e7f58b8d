# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the S3 driver: radosgw and Swift, through the fault proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from oslo_config import cfg

from glance_store._drivers.s3 import Store
from glance_store.testing import StoreConformance
from tests.drivers.s3.service import Service, serving, without_pauses
from tests.drivers.shared_reads import SharingReads
from tests.faults.proxy import FaultProxy
from tests.services.radosgw import Radosgw
from tests.services.swift import Swift

pytestmark = pytest.mark.services

# The options allow none below the 5 MiB of S3; the servers of these tests do, and the kit sends
# thousands of them. Parts of real size are in the other files here.
PART = 256 * 1024


class S3Kit(StoreConformance):
    """What both servers have in common."""

    __test__ = False

    block_size = PART
    finds_killed_uploads = True
    random_sequences = 5
    hostile_uris = ("s3://127.0.0.1", "s3://127.0.0.1/images", "s3://../images/x", "s3://:0//x")

    service: Service

    @pytest.fixture(autouse=True)
    def _no_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without_pauses(monkeypatch)

    def make_store(self) -> Store:
        conf = cfg.ConfigOpts()
        store = Store(conf, "objects")
        for name, value in self.service.options(self.proxy.address).items():
            conf.set_override(name, value, group="objects")
        store.configure(re_raise_bsc=True)
        store.s3_store_large_object_size = store.s3_store_large_object_chunk_size = PART
        store.READ_CHUNKSIZE = PART
        return store

    def listing(self) -> list[str]:
        return self.service.listing()

    def between_tests(self) -> None:
        self.proxy.clear()
        self.service.empty()


def _through_a_proxy(server: Radosgw | Swift) -> Iterator[tuple[Service, FaultProxy]]:
    with (
        serving(server) as service,
        FaultProxy("127.0.0.1", server.port, http=True) as proxy,
    ):
        yield service, proxy


@pytest.fixture(scope="module")
def proxied_radosgw(radosgw: Radosgw) -> Iterator[tuple[Service, FaultProxy]]:
    yield from _through_a_proxy(radosgw)


@pytest.fixture(scope="module")
def proxied_swift(swift: Swift) -> Iterator[tuple[Service, FaultProxy]]:
    yield from _through_a_proxy(swift)


class TestRadosgw(S3Kit):
    secrets = ("glance-access", "glance-secret")

    @pytest.fixture
    def backend(self, proxied_radosgw: tuple[Service, FaultProxy]) -> None:
        self.service, self.proxy = proxied_radosgw


class TestRadosgwWithSharedReads(SharingReads, TestRadosgw):
    """Downloads that share what they read."""


class TestSwift(S3Kit):
    """Another server: its answers, its conditions, and parts that are objects of their own.

    What the driver makes of credentials, of locations and of threads does not depend on the server.
    """

    variant = ("wire", "layout")
    secrets = (Swift.s3_access_key, Swift.s3_secret_key)

    @pytest.fixture
    def backend(self, proxied_swift: tuple[Service, FaultProxy]) -> None:
        self.service, self.proxy = proxied_swift
