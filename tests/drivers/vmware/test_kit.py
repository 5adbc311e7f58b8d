# SPDX-License-Identifier: Apache-2.0
"""The conformance kit on the VMware driver, with a vCenter whose requests fail."""

from __future__ import annotations

import pytest
from oslo_config import cfg

from glance_store._drivers.vmware_datastore import Store, reader, writer
from glance_store.testing import StoreConformance
from tests.services.vcenter import Requests, VCenter

pytestmark = pytest.mark.services

BLOCK = 64 * 1024


class VMwareKit(StoreConformance):
    """What both modes have in common."""

    __test__ = False

    block_size = BLOCK
    finds_killed_uploads = True
    random_sequences = 5
    secrets = (VCenter.password,)
    hostile_uris = (
        "vsphere://127.0.0.1",
        "vsphere://127.0.0.1/folder/dir/id",
        "vsphere://127.0.0.1/folder/../id?dsName=ds",
        "vsphere://127.0.0.1/folder/dir/?dsName=ds",
    )

    server: VCenter

    @pytest.fixture
    def backend(self, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = vcenter
        self.proxy = Requests(vcenter)
        # The kit sends thousands of them.
        monkeypatch.setattr(writer.DatastoreWriter, "block_size", BLOCK)
        monkeypatch.setattr(reader, "RANGE_SIZE", BLOCK)
        monkeypatch.setattr("glance_store.transfer.retry._FIRST_PAUSE", 0.001)
        monkeypatch.setattr("glance_store.transfer.retry._LONGEST_PAUSE", 0.01)

    def listing(self) -> list[str]:
        return [str(path) for path in self.server.files()]

    def between_tests(self) -> None:
        self.proxy.clear()
        self.server.empty()

    def configured(self, group: str | None) -> Store:
        conf = cfg.ConfigOpts()
        store = Store(conf, group)
        # The time of the last try is not up to it.
        options = {**self.server.store_options(), "vmware_store_retry_timeout": 0.2}
        for name, value in options.items():
            conf.set_override(name, value, group=group or "glance_store")
        store.configure(re_raise_bsc=True)
        store.READ_CHUNKSIZE = BLOCK
        return store


class TestVMware(VMwareKit):
    def make_store(self) -> Store:
        return self.configured("datastores")


class TestVMwareInSingleStoreMode(VMwareKit):
    variant = ("account", "locations")

    def make_store(self) -> Store:
        return self.configured(None)
