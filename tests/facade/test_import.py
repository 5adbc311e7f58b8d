# SPDX-License-Identifier: Apache-2.0
"""What happens when the package is imported, seen from a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FACTS = json.loads((Path(__file__).parents[1] / "data" / "options.json").read_text())

# Most of these libraries are not installed where the tests run: what counts is the attempt.
IMPORT = """
import sys, warnings

class Record:
    tried = set()

    def find_spec(self, name, path=None, target=None):
        self.tried.add(name.partition(".")[0])

sys.meta_path.insert(0, Record())
warnings.simplefilter("default")
before = list(warnings.filters)
import glance_store
print(sorted(Record.tried & set(sys.argv[1:])))
print(list(warnings.filters) == before)
"""
HEAVY = [
    "boto3",
    "botocore",
    "cinderclient",
    "eventlet",
    "keystoneauth1",
    "os_brick",
    "oslo_middleware",
    "oslo_privsep",
    "oslo_vmware",
    "osprofiler",
    "prettytable",
    "prometheus_client",
    "rados",
    "rbd",
    "requests",
    "swiftclient",
    "tqdm",
    "urllib3",
]


def test_r17_r21_import_is_light_and_leaves_the_filters_of_warnings_alone():
    result = subprocess.run(
        [sys.executable, "-c", IMPORT, *HEAVY], check=True, capture_output=True, text=True
    )
    assert result.stdout.splitlines() == ["[]", "True"]


IMPORT_ALL = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from glance_store import loading, registry
print(sorted(name for name, plugin in loading.drivers() if plugin.OPTIONS))
print("eventlet" in sys.modules)
"""


def test_r21_r42_all_drivers_can_be_imported_without_any_client_library():
    clients = [name for name in HEAVY if name not in ("requests", "urllib3", "tqdm", "prettytable")]
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *clients], check=True, capture_output=True, text=True
    )
    found, eventlet = result.stdout.splitlines()
    assert found == repr(sorted(name for name in FACTS["entry_points"] if name != "no_conf"))
    assert eventlet == "False"


# -- a driver from outside, in an interpreter that knows nothing of these tests


OUTSIDE = """
import io, sys
from oslo_config import cfg
import glance_store

conf = cfg.ConfigOpts()
conf.register_opt(cfg.DictOpt("enabled_backends"))
conf.set_override("enabled_backends", {"one": "memory", "two": "memory.by.function"})
glance_store.register_store_opts(conf)
conf.set_override("memory_shelf", "second", group="two")
assert glance_store.create_multi_stores(conf) == 2
for identifier in ("one", "two"):
    url, size, checksum, multihash, metadata = glance_store.add_with_multihash(
        conf, "image", io.BytesIO(b"abcdefghij"), 10, identifier, "sha256"
    )
    data, length = glance_store.get(url, identifier)
    assert (b"".join(data), length, size) == (b"abcdefghij", 10, 10)
    print(url, metadata["store"])

glance_store.register_opts(conf)
conf.set_override("stores", ["memory"], group="glance_store")
assert glance_store.create_stores(conf) == 1
print(glance_store.get_size_from_backend("memory://shelf/image"))
glance_store.delete_from_backend("memory://shelf/image")
"""


def test_driver_of_another_distribution_in_a_process_of_its_own(outside_site):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", OUTSIDE],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(outside_site)},
    )
    assert result.stdout.splitlines() == [
        "memory://shelf/image one",
        "memory://second/image two",
        "10",
    ]
