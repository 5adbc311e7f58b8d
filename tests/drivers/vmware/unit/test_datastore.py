# SPDX-License-Identifier: Apache-2.0
"""The VMware store has no data path: it keeps its configuration valid, and says what it lacks."""

from __future__ import annotations

import io

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.vmware_datastore import Store
from glance_store.capabilities import BitMasks
from glance_store.location import Location

URI = "vsphere://host/folder/dir/id?dsName=ds"


@pytest.fixture(params=[None, "datastores"], ids=["single", "multi"])
def store(request: pytest.FixtureRequest) -> Store:
    return Store(cfg.ConfigOpts(), request.param)


def test_it_neither_reads_nor_writes(store: Store) -> None:
    assert store.capabilities == BitMasks.DRIVER_REUSABLE
    store.configure()
    assert store.capabilities == BitMasks.DRIVER_REUSABLE
    location = Location("vsphere", store.get_store_location_class(), store.conf, URI)
    with pytest.raises(exceptions.StoreAddDisabled):
        store.add("id", io.BytesIO(b"data"), 4, "sha256")
    with pytest.raises(exceptions.StoreGetNotSupported):
        store.get(location)
    with pytest.raises(exceptions.StoreGetNotSupported, match="previous release"):
        store.get_size(location)
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        store.delete(location)
    with pytest.raises(NotImplementedError):
        store.set_acls(location)


def test_configuration_says_what_to_do(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        store.configure(re_raise_bsc=True)
    for words in ("the driver 'vmware'", "enabled_backends", "previous release"):
        assert words in str(caught.value)
        assert words in caplog.text
    assert f"Store {store.name} could not be configured" in str(caught.value)
