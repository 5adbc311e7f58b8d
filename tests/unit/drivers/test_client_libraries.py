# SPDX-License-Identifier: Apache-2.0
"""The stores without a data path load, keep their configuration valid, and say what they lack."""

from __future__ import annotations

import importlib
import inspect
import io
import subprocess
import sys

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store.capabilities import BitMasks
from glance_store.location import Location

URIS = {
    "cinder": "cinder://3a1e5d16-8b2c-4b3e-9e62-0a1f4c0b7a11",
    "rbd": "rbd://fsid/pool/image/snap",
    "s3": "s3://host/bucket/key",
    "swift": "swift://user:key@host/container/object",
    "vmware_datastore": "vsphere://host/folder/dir/id?dsName=ds",
}
SCHEMES = {
    "cinder": ("cinder",),
    "rbd": ("rbd",),
    "s3": ("s3", "s3+http", "s3+https"),
    "swift": ("swift+https", "swift", "swift+http", "swift+config"),
    "vmware_datastore": ("vsphere",),
}
CLIENTS = (
    "boto3",
    "botocore",
    "cinderclient",
    "eventlet",
    "keystoneauth1",
    "os_brick",
    "oslo_vmware",
    "rados",
    "rbd",
    "swiftclient",
)


@pytest.fixture(params=URIS)
def driver(request):
    return request.param


@pytest.fixture(params=[None, "fast"], ids=["single", "multi"])
def store(driver, request):
    package = importlib.import_module(f"glance_store._drivers.{driver}")
    return package.Store(cfg.ConfigOpts(), request.param)


def test_schemes_options_and_locations(store, driver):
    package = importlib.import_module(f"glance_store._drivers.{driver}")
    assert store.get_schemes() == SCHEMES[driver]
    assert store.get_store_location_class() is package.StoreLocation
    group = store.conf[store.backend_group or "glance_store"]
    assert {opt.dest for opt in package.Store.OPTIONS} <= set(group)
    assert URIS[driver].startswith(tuple(f"{scheme}://" for scheme in store.get_schemes()))


def test_it_neither_reads_nor_writes(store, driver):
    assert store.capabilities == BitMasks.DRIVER_REUSABLE
    store.configure()
    assert store.capabilities == BitMasks.DRIVER_REUSABLE
    location = Location("x", store.get_store_location_class(), store.conf, URIS[driver])
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


def test_configuration_says_what_to_do(store, driver, caplog):
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        store.configure(re_raise_bsc=True)
    name = {"vmware_datastore": "vmware"}.get(driver, driver)
    for words in (f"the driver '{name}'", "enabled_backends", "previous release"):
        assert words in str(caught.value)
        assert words in caplog.text
    assert f"Store {store.name} could not be configured" in str(caught.value)


def test_swift_entry_point_is_a_function():
    swift = importlib.import_module("glance_store._drivers.swift")
    assert inspect.isfunction(swift.Store)
    assert type(swift.Store(cfg.ConfigOpts())) is swift.BaseStore


def test_examples():
    for driver in ("cinder", "rbd", "s3", "swift"):
        store = importlib.import_module(f"glance_store._drivers.{driver}").Store(cfg.ConfigOpts())
        assert store.EXAMPLE_URL.partition("://")[0] in store.get_schemes()


def test_cinder_cannot_tell_whose_volume_it_is():
    store = importlib.import_module("glance_store._drivers.cinder").Store(cfg.ConfigOpts())
    assert store.is_image_associated_with_store(None, "volume") is False


def test_import_needs_no_client_library():
    code = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {CLIENTS!r}:
            raise ImportError(name + " must not be imported")
sys.meta_path.insert(0, Refuse())
for driver in {list(URIS)!r}:
    importlib.import_module("glance_store._drivers." + driver).Store
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
