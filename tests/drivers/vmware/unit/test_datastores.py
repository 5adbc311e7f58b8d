# SPDX-License-Identifier: Apache-2.0
"""What needs no server: entries of the option, names of files, ids."""

from __future__ import annotations

import io

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.vmware_datastore import Store
from glance_store._drivers.vmware_datastore.datastores import Datastore
from glance_store._drivers.vmware_datastore.files import File
from glance_store._drivers.vmware_datastore.store import _directory


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("dc:ds", ("dc", "ds", 0)),
        ("a/b:d s:10", ("a/b", "d s", 10)),
        ("/a:b/c:ds:-1", ("a:b/c", "ds", -1)),
        (" a / b : d%2fs : +5 ", ("a / b", "d%2fs", 5)),
    ],
)
def test_entries(entry: str, expected: tuple[str, str, int]) -> None:
    assert Datastore.parse(entry) == expected


def test_names_of_a_file() -> None:
    file = File("folder/dc", "d s", "dir/im age")
    assert file.name == "[d s] dir/im age"
    assert file.target == "/folder/dir/im%20age?dcPath=folder%2Fdc&dsName=d+s"
    assert File(None, "ds", "x").target == "/folder/x?dsName=ds"


@pytest.mark.parametrize("option", ["/a/../b", ".", "a%20b", "a?b", "[ds] a", " ", "a /b", "a\nb"])
def test_directories_that_make_no_location(option: str) -> None:
    with pytest.raises(exceptions.BadStoreConfiguration, match="vmware_store_image_dir = "):
        _directory(option)
    assert _directory("//a b/c/") == "a b/c"


def test_without_options() -> None:
    """A store that was never configured says what it lacks."""
    conf = cfg.ConfigOpts()
    store = Store(conf, "datastores")
    with pytest.raises(exceptions.BadStoreConfiguration, match="vmware_server_host is not set"):
        store.add("image", io.BytesIO(b"data"), 4, "sha256")
