# SPDX-License-Identifier: Apache-2.0
"""Stores on a vCenter."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from oslo_config import cfg

from glance_store._drivers.vmware_datastore import Store
from glance_store.location import Location
from tests.services.vcenter import VCenter

MIB = 1024 * 1024
# Seconds; a test that waits for them waits for nothing else.
FAST = {"vmware_store_retry_timeout": 1.0, "vmware_store_read_timeout": 2}


@pytest.fixture
def server(vcenter: VCenter) -> Iterator[VCenter]:
    """Give a vCenter without images and without trouble."""
    # Those of the image service's tests in the same process.
    vcenter.empty()
    yield vcenter
    vcenter.trouble("clear")
    for name in vcenter.datastores:
        vcenter.trouble(
            "datastore", name=name, free=10 << 30, maintenance="normal", accessible="true"
        )
    vcenter.empty()


class Images:
    """Adds, reads and deletes images by their locations."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def locate(self, uri: str) -> Location:
        place = self.store.get_store_location_class()
        return Location("vsphere", place, self.store.conf, uri=uri)

    def add(self, image_id: str, data: bytes, size: int | None = None) -> str:
        size = len(data) if size is None else size
        uri: str = self.store.add(image_id, io.BytesIO(data), size, "sha256")[0]
        return uri

    def read(self, uri: str, **bounds: Any) -> bytes:
        chunks, _size = self.store.get(self.locate(uri), **bounds)
        return b"".join(chunks)

    def delete(self, uri: str) -> None:
        self.store.delete(self.locate(uri))


MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(server: VCenter) -> Iterator[MakeStore]:
    """Give a function that returns a store, with other options than usual."""
    made = []

    def make(**options: Any) -> Store:
        conf = cfg.ConfigOpts()
        store = Store(conf, "datastores")
        made.append(store)
        for name, value in {**server.store_options(), **FAST, **options}.items():
            conf.set_override(name, value, group="datastores")
        store.configure(re_raise_bsc=True)
        return store

    yield make
    for store in made:
        if store._files is not None:
            store._files.sessions.log_out()


@pytest.fixture
def images(make_store: MakeStore) -> Images:
    """Give the images of a store."""
    return Images(make_store())
