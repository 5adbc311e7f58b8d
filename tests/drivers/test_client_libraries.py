# SPDX-License-Identifier: Apache-2.0
"""Drivers whose client library is missing load, keep their configuration valid, and say so."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
from oslo_config import cfg

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
# What the operator is told to install.
MISSING = {
    "cinder": "glance_store[cinder]",
    "rbd": "python3-rados and python3-rbd",
    "s3": "glance_store[s3]",
    "swift": "glance_store[swift]",
    "vmware_datastore": "glance_store[vmware]",
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
WITHOUT_CLIENTS = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {CLIENTS!r}:
            raise ImportError(name + " must not be imported")
sys.meta_path.insert(0, Refuse())
"""
CONFIGURE = """
import logging
from oslo_config import cfg
from glance_store import exceptions
logging.disable()
store = importlib.import_module("glance_store._drivers." + {driver!r}).Store(cfg.ConfigOpts(), "x")
try:
    store.configure(re_raise_bsc=True)
except exceptions.BadStoreConfiguration as exc:
    print(exc)
from glance_store.capabilities import BitMasks
print("writes:", store.is_capable(BitMasks.WRITE_ACCESS))
"""


def without_clients(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CLIENTS + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("group", [None, "fast"], ids=["single", "multi"])
@pytest.mark.parametrize("driver", URIS)
def test_schemes_options_and_locations(driver: str, group: str | None) -> None:
    package = importlib.import_module(f"glance_store._drivers.{driver}")
    store = package.Store(cfg.ConfigOpts(), group)
    assert store.get_schemes() == SCHEMES[driver]
    assert store.get_store_location_class() is package.StoreLocation
    group = store.conf[store.backend_group or "glance_store"]
    assert {opt.dest for opt in store.OPTIONS} <= set(group)
    assert URIS[driver].startswith(tuple(f"{scheme}://" for scheme in store.get_schemes()))


def test_swift_entry_point_is_a_function() -> None:
    swift = importlib.import_module("glance_store._drivers.swift")
    assert inspect.isfunction(swift.Store)
    assert isinstance(swift.Store(cfg.ConfigOpts()), swift.BaseStore)


@pytest.mark.parametrize("driver", ["cinder", "rbd", "s3", "swift"])
def test_examples(driver: str) -> None:
    store = importlib.import_module(f"glance_store._drivers.{driver}").Store(cfg.ConfigOpts())
    assert store.EXAMPLE_URL.partition("://")[0] in store.get_schemes()


def test_import_needs_no_client_library() -> None:
    code = f"""
for driver in {list(URIS)!r}:
    importlib.import_module("glance_store._drivers." + driver).Store
print("done")
"""
    assert without_clients(code) == "done\n"


@pytest.mark.parametrize("driver", MISSING)
def test_r113_r147_r182_r202_a_missing_library_is_named(driver: str) -> None:
    told = without_clients(CONFIGURE.format(driver=driver))
    assert "Store x could not be configured" in told
    assert MISSING[driver] in told
    assert told.endswith("writes: False\n")
