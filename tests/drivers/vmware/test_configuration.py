# SPDX-License-Identifier: Apache-2.0
"""What an operator may have written into the options, and what the store says of its health."""

from __future__ import annotations

import io

import pytest
from oslo_config import cfg

from glance_store import exceptions, multi_backend
from glance_store._drivers.vmware_datastore.datastores import Inventory
from glance_store._drivers.vmware_datastore.errors import PrivilegeMissing
from glance_store._drivers.vmware_datastore.files import Files
from glance_store._drivers.vmware_datastore.session import Session
from tests.drivers.vmware.conftest import Images, MakeStore
from tests.services.vcenter import VCenter

pytestmark = pytest.mark.services

MISTAKES = {
    "host": ({"vmware_server_host": None}, "vmware_server_host is not set"),
    "user": ({"vmware_server_username": None}, "vmware_server_username is not set"),
    "password": ({"vmware_server_password": ""}, "vmware_server_password is not set"),
    "wrong-password": ({"vmware_server_password": "no"}, "vmware_server_password is wrong"),
    "no-datastore": ({"vmware_datastores": None}, "vmware_datastores is not set"),
    "one-part": ({"vmware_datastores": ["ds1"]}, "vmware_datastores = ds1 names no datastore"),
    "empty-part": ({"vmware_datastores": ["DC0: "]}, "names no datastore"),
    "slash": ({"vmware_datastores": ["/:ds1"]}, "vmware_datastores = /:ds1 names no datastore"),
    "no-weight": ({"vmware_datastores": ["DC0:ds1:"]}, "the weight ''"),
    "r238-weight": ({"vmware_datastores": ["DC0:ds1:heavy"]}, "the weight 'heavy'"),
    "datastore": ({"vmware_datastores": ["DC0:ds9"]}, "vmware_datastores = DC0:ds9: There is"),
    "datastores": (
        {"vmware_datastores": ["DC0:ds9"]},
        "DC0, which has these datastores: ds two, ds1",
    ),
    "datacenter": ({"vmware_datastores": ["DC9:ds1"]}, "= DC9:ds1: There is no datacenter DC9"),
    "directory": ({"vmware_store_image_dir": "/a/../b"}, "vmware_store_image_dir = /a/../b"),
}


@pytest.mark.parametrize(("options", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(make_store: MakeStore, options: dict[str, object], words: str) -> None:
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        make_store(**options)
    assert words in str(caught.value)
    assert not isinstance(caught.value, exceptions.BackendUnavailable)


def test_r43_a_mistake_stops_this_store_alone(
    server: VCenter, conf: cfg.ConfigOpts, tmp_path: object
) -> None:
    conf.set_override("enabled_backends", {"good": "file", "bad": "vmware"})
    multi_backend.register_store_opts(conf)
    conf.set_override("default_backend", "good", group="glance_store")
    conf.set_override("filesystem_store_datadir", str(tmp_path), group="good")
    for name, value in server.store_options().items():
        conf.set_override(name, value, group="bad")
    conf.set_override("vmware_server_password", "wrong", group="bad")
    multi_backend.create_multi_stores(conf)
    multi_backend.add(conf, "image", io.BytesIO(b"data"), 4, "good")
    with pytest.raises(exceptions.StoreAddDisabled):
        multi_backend.add(conf, "image", io.BytesIO(b"data"), 4, "bad")


def test_a_datastore_that_is_named_twice(
    make_store: MakeStore, server: VCenter, caplog: pytest.LogCaptureFixture
) -> None:
    """It has one weight, and no image there is one of another datastore."""
    images = Images(make_store(vmware_datastores=["DC0:ds1:5", "DC0:ds two:6", "/DC0/:ds1:7"]))
    images.add("image", b"data")
    assert [path.parts[0] for path in server.files()] == ["ds1"]
    assert caplog.text.count("names DC0:ds1 more than once") == 1
    assert images.store.check_health().startswith("2 of 2 ")


def test_one_storage_in_two_datacenters(
    make_store: MakeStore, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is seen in both is one and the same."""
    size, state = Files.size, Inventory.state
    monkeypatch.setattr(
        Files,
        "size",
        lambda self, file, action: size(self, file._replace(datastore="ds1"), action),
    )
    monkeypatch.setattr(
        Inventory, "state", lambda self, one: state(self, one)._replace(url="ds:///vmfs/volumes/1/")
    )
    images = Images(make_store(vmware_datastores=["DC0:ds1:1", "DC0:ds two"]))
    capacity = images.store.capacity()
    assert capacity.total == state(images.store._inventory(), images.store._datastores[1]).capacity
    images.add("image", b"data")
    with pytest.raises(exceptions.Duplicate):
        images.add("image", b"data")


def test_datastores_of_others(
    make_store: MakeStore, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a datastore that the user may not see nobody wants to know."""
    found, asked = Session.property, []

    def denied(self: Session, target: object, name: str, action: str) -> object:
        asked.append(name)
        called = found(self, target, name, action)
        if name == "name" and called == "ds1":
            raise PrivilegeMissing(f"{action}: NoPermission")
        return called

    monkeypatch.setattr(Session, "property", denied)
    make_store(vmware_datastores=["DC0:ds two"])
    assert "name" in asked
    with pytest.raises(exceptions.BadStoreConfiguration, match=r"these datastores: ds two$"):
        make_store(vmware_datastores=["DC0:ds1"])


def test_a_wrong_password_is_sent_once(images: Images, server: VCenter) -> None:
    """More of them would lock the account."""
    images.add("image", b"data")
    sessions = images.store._files.sessions  # type: ignore[union-attr]
    object.__setattr__(sessions.settings, "password", "changed")
    server.trouble("expire")
    before = len(server.requests())
    for _try in range(3):
        with pytest.raises(exceptions.Forbidden, match="InvalidLogin"):
            images.add("other", b"data")
    lines = server.requests()[before:]
    assert sum("/sdk Login " in line for line in lines) == 1


def test_health(images: Images, server: VCenter) -> None:
    assert images.store.check_health().startswith("2 of 2 datastores take images, ")
    server.trouble("datastore", name="ds1", maintenance="inMaintenance")
    assert images.store.check_health().endswith("DC0:ds1: in maintenance mode")
    server.trouble("datastore", name="ds two", accessible="false")
    with pytest.raises(exceptions.BackendUnavailable, match="DC0:ds two: not accessible"):
        images.store.check_health()
    server.trouble("datastore", name="ds1", maintenance="normal", free=0)
    with pytest.raises(exceptions.StorageFull, match="DC0:ds1: 0 MiB free"):
        images.store.check_health()


def test_r236_prefix_and_storage(images: Images, server: VCenter) -> None:
    uri = images.add("image", b"data")
    assert uri.startswith(f"{images.store.url_prefix}/")
    assert images.store.storage_ids() == {
        f"{server.host} DC0:ds1 openstack_glance",
        f"{server.host} DC0:ds two openstack_glance",
    }


def test_other_directory(make_store: MakeStore, server: VCenter) -> None:
    for directory in ("/", "a/b c/d"):
        images = Images(make_store(vmware_store_image_dir=directory))
        uri = images.add("image", b"data")
        assert images.read(uri) == b"data"
        (file,) = server.files()
        assert "/".join(file.parts[1:-1]) == directory.strip("/")
        images.delete(uri)
        assert server.files() == []


def test_an_outage_passes(server: VCenter, conf: cfg.ConfigOpts) -> None:
    """A store whose server was away at the start works when it is back."""
    conf.set_override("enabled_backends", {"vm": "vmware"})
    multi_backend.register_store_opts(conf)
    conf.set_override("default_backend", "vm", group="glance_store")
    for name, value in server.store_options().items():
        conf.set_override(name, value, group="vm")
    server.trouble("fault", path="/sdk", status=503, times=1000)
    multi_backend.create_multi_stores(conf)
    with pytest.raises(exceptions.TimeoutError):
        multi_backend.add(conf, "image", io.BytesIO(b"data"), 4, "vm")
    server.trouble("clear")
    multi_backend.add(conf, "image", io.BytesIO(b"data"), 4, "vm")
