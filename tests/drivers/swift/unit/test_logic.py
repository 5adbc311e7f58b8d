# SPDX-License-Identifier: Apache-2.0
"""The Swift driver as far as it needs no server."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
import urllib3.exceptions
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers import swift
from glance_store._drivers.swift import (
    auth,
    catalogue,
    client,
    containers,
    errors,
)
from tests.drivers.swift.loopback import Account, settings

MIB = 1024 * 1024
SEGMENT = 1000 * 1024


def make(configure=True, **options):
    conf = cfg.ConfigOpts()
    swift.Store(conf, "swift")
    values = {
        "swift_store_auth_address": "http://127.0.0.1:1/v3",
        "swift_store_user": "project:user",
        "swift_store_key": "canary",
        **options,
    }
    for name, value in values.items():
        conf.set_override(name, value, group="swift")
    store = swift.Store(conf, "swift")
    if configure:
        store.configure(re_raise_bsc=True)
    return store


# -- names


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, "glance"),
        (1, "glance_f"),
        (8, "glance_fb4b8b6a"),
        (9, "glance_fb4b8b6a-3"),
        (12, "glance_fb4b8b6a-3a1e"),
        (32, "glance_fb4b8b6a-3a1e-4d16-8b2c-0a1f4c0b7a11"),
    ],
)
def test_seeded_containers(seed, expected):
    image_id = "FB4B8B6A-3a1e-4d16-8b2c-0a1f4c0b7a11"
    assert containers.seeded("glance", image_id, seed) == expected


def test_acls():
    assert containers.acls(False, (), (), ()) == {"X-Container-Read": "", "X-Container-Write": ""}
    assert containers.acls(False, ["a", "b"], ["c"], [" p:u ", ""]) == {
        "X-Container-Read": "a:*,b:*,p:u",
        "X-Container-Write": "c:*,p:u",
    }
    assert containers.acls(True, ["a"], (), ["p:u"])["X-Container-Read"] == "*:*"
    # Without a colon Swift would take it for a role; an asterisk alone lets nobody in.
    assert containers.acls(False, (), ["w"], [" p", "p:u", "*"]) == {
        "X-Container-Read": "p:*,p:u,*",
        "X-Container-Write": "w:*,p:*,p:u,*",
    }


@pytest.mark.parametrize(
    ("container", "obj"),
    [
        ("", "x"),
        ("c", ""),
        ("..", "x"),
        ("c", ".."),
        ("c", "a/../b"),
        ("c/d", "x"),
        ("c", "\udc00"),
    ],
)
def test_names_that_lead_elsewhere(container, obj):
    with pytest.raises(exceptions.BadStoreUri):
        client._target(container, obj, None)


def test_targets():
    assert client._target("c d", "a/b?c#d%", {"x": "1 2"}) == "/c%20d/a/b%3Fc%23d%25?x=1+2"
    assert client._target("c", None, None) == "/c"


@pytest.mark.parametrize(
    "address",
    ["http://h:1/v3", "http://h:1/v3/", "http://h:1", "http://h:1/", "http://h:1/v2.0/"],
)
def test_r110_addresses_of_keystone(address):
    assert auth.v3_address(address) == "http://h:1/v3"
    assert auth.v3_address("https://h/identity") == "https://h/identity/v3"


# -- answers


def answer(status, reason="", **headers):
    return types.SimpleNamespace(status_code=status, reason=reason, headers=headers)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, exceptions.NotFound),
        (403, exceptions.Forbidden),
        (413, exceptions.StorageFull),
        (507, exceptions.StorageFull),
        (503, exceptions.RemoteServiceUnavailable),
        (401, exceptions.BackendException),
        (400, exceptions.BackendException),
        (409, exceptions.RemoteServiceUnavailable),
        # Of proxies and middleware that have too much to do, or trouble behind them.
        (429, exceptions.RemoteServiceUnavailable),
        (498, exceptions.RemoteServiceUnavailable),
        (499, exceptions.RemoteServiceUnavailable),
        (520, exceptions.RemoteServiceUnavailable),
        (524, exceptions.RemoteServiceUnavailable),
    ],
)
def test_statuses(status, expected):
    found = errors.refusal(answer(status, "Some\nReason"), "Storing image x", "x")
    assert isinstance(found, expected)
    assert isinstance(found, exceptions.GlanceStoreException)
    if expected not in (exceptions.NotFound, exceptions.StorageFull):
        assert isinstance(found, exceptions.BackendException)
    assert "Storing image x" in str(found)
    assert "\n" not in str(found)


def test_network_in_words():
    broken = urllib3.exceptions.ProtocolError("x", ConnectionResetError(104, "reset by peer"))
    assert str(errors.unreachable(broken, "Reading")) == "Reading: reset by peer"
    late = urllib3.exceptions.ReadTimeoutError(None, "/secret", "x")
    assert "swift_store_read_timeout" in str(errors.unreachable(late, "Reading"))
    assert "secret" not in str(errors.unreachable(late, "Reading"))


def test_addresses_in_a_catalogue():
    catalog = [
        {"type": "image", "endpoints": [{"publicURL": "http://no"}]},
        {
            "type": "object-store",
            "endpoints": [
                {"region": "one", "publicURL": "http://a", "internalURL": "http://b"},
                {"region_id": "two", "interface": "public", "url": "http://c"},
            ],
        },
    ]
    find = catalogue.addresses
    assert list(find(catalog, "object-store", "publicURL", None)) == ["http://a", "http://c"]
    assert list(find(catalog, "object-store", "internalURL", None)) == ["http://b"]
    assert list(find(catalog, "object-store", "publicURL", "two")) == ["http://c"]
    assert list(find(catalog, "object-store", "adminURL", None)) == []
    everything = ["http://a", "http://b", "http://c"]
    assert list(find(catalog, "object-store")) == everything


# -- configuration


def test_class_by_tenancy():
    assert type(make()) is swift.SingleTenantStore
    assert type(make(swift_store_multi_tenant=True)) is swift.MultiTenantStore


def test_r108_multi_tenant_without_accounts_of_the_service(tmp_path):
    with pytest.raises(exceptions.BadStoreConfiguration, match="exclude"):
        make(swift_store_multi_tenant=True, swift_store_config_file=str(tmp_path))
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("default_store", default="swift+config"), group="glance_store")
    store = swift.Store(conf)
    assert type(store) is swift.SingleTenantStore
    conf.set_override("swift_store_multi_tenant", True, group="glance_store")
    with pytest.raises(exceptions.BadStoreConfiguration, match="default_store"):
        swift.Store(conf)


@pytest.mark.parametrize(
    ("name", "value"), [("auth_address", None), ("user", None), ("key", None), ("user", "project")]
)
def test_missing_account(name, value, caplog):
    store = make(configure=False, **{f"swift_store_{name}": value})
    store.configure()
    assert "no account for new images" in caplog.text
    with pytest.raises(exceptions.BadStoreConfiguration):
        store.configure(re_raise_bsc=True)


@pytest.mark.parametrize("folder", [None, "/nowhere/at/all"])
def test_folder_for_buffers(folder):
    store = make(configure=False, swift_buffer_on_upload=True, swift_upload_buffer_dir=folder)
    with pytest.raises(exceptions.BadStoreConfiguration, match="swift_upload_buffer_dir"):
        store.configure()


def test_r113_without_the_client_library(monkeypatch):
    monkeypatch.setattr(swift, "swiftclient", None)
    store = make(configure=False)
    with pytest.raises(exceptions.BadStoreConfiguration, match="python-swiftclient"):
        store.configure()


def test_import_without_the_client_library():
    code = """
import sys
sys.modules["swiftclient"] = None
from glance_store._drivers import swift
assert swift.swiftclient is None
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


def test_prefixes_of_locations(tmp_path):
    assert make().url_prefix == "swift+http://project%3Auser:canary@127.0.0.1:1/v3/glance/"
    seeded = make(swift_store_multiple_containers_seed=2)
    assert seeded.url_prefix == "swift+http://project%3Auser:canary@127.0.0.1:1/v3/glance_"
    file = tmp_path / "references"
    file.write_text("[ref1]\nauth_address = keystone.example.org\nuser = p:u\nkey = canary\n")
    assert make(swift_store_config_file=str(file)).url_prefix == "swift+config://ref1/glance/"


def test_sizes_that_other_programs_read():
    store = make(swift_store_large_object_size=3, swift_store_large_object_chunk_size=2)
    assert (store.large_object_size, store.large_object_chunk_size) == (3 * SEGMENT, 2 * SEGMENT)
    assert store.container == "glance"


def test_storage_ids_tell_no_secret():
    (found,) = make().storage_ids()
    assert "container glance" in found
    assert "canary" not in found
    assert found != next(iter(make(swift_store_container="other").storage_ids()))


def test_connection_is_swiftclients(monkeypatch, tmp_path):
    authorities = str(tmp_path)
    made = []
    monkeypatch.setattr(
        swift, "swiftclient", types.SimpleNamespace(Connection=lambda **given: made.append(given))
    )
    make(swift_store_cacert=authorities).get_store_connection("token", "http://swift/v1/x")
    (given,) = made
    assert given["preauthtoken"] == "token"
    assert given["preauthurl"] == "http://swift/v1/x"
    assert given["cacert"] == authorities


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"cacert": "/ca"}, "/ca"), ({"insecure": True, "cacert": "/ca"}, False)],
)
def test_r100_r101_certificates_of_keystone(options, expected):
    session = auth.session_for(None, settings(**options))
    assert session.verify == expected
    # Seconds for connecting, and of silence.
    assert session.timeout == (10, 30)


def test_connections_belong_to_a_process(monkeypatch):
    held = client.Connections()
    account = Account("http://127.0.0.1:1/v1/x")
    first = held.to(account.url, account, settings())
    assert held.to(account.url, account, settings()) is first
    monkeypatch.setattr(client.os, "getpid", lambda: -1)
    assert held.to(account.url, account, settings()) is not first


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_authorities_that_are_not_there(kind, tmp_path):
    """They are a mistake of the operator, and no try would find them."""
    store = make(configure=False, swift_store_cacert=str(tmp_path / kind))
    with pytest.raises(exceptions.BadStoreConfiguration, match="swift_store_cacert"):
        store.configure()


def test_authorities_without_certificates(tmp_path):
    file = tmp_path / "authorities.pem"
    file.write_text("none")
    store = make(configure=False, swift_store_cacert=str(file))
    with pytest.raises(exceptions.BadStoreConfiguration, match="no certificates"):
        store.configure()


def test_authorities_that_are_not_asked(tmp_path):
    """Without verification, nothing reads them."""
    make(swift_store_cacert=str(tmp_path / "file"), swift_store_auth_insecure=True)


@pytest.mark.parametrize(
    "options",
    [
        {"swift_store_container": "glance?x"},
        {"swift_store_container": "glance#1"},
        {"swift_store_container": "glance/images"},
        {"swift_store_container": ".."},
        {"swift_store_auth_address": "http://127.0.0.1:port/v3"},
        {"swift_store_auth_address": "ftp://127.0.0.1/v3"},
        {"swift_store_auth_address": "http://"},
        {"swift_store_multi_tenant": True, "swift_store_endpoint": "ftp://user:canary@a/v1/AUTH_x"},
    ],
)
def test_names_that_no_location_can_hold(options):
    """The store would take images that nobody finds again; the image ids are not to blame."""
    with pytest.raises(exceptions.BadStoreConfiguration) as failed:
        make(**options)
    (name,) = (name for name in options if name != "swift_store_multi_tenant")
    assert name in str(failed.value)
    assert "canary" not in str(failed.value)


@pytest.mark.parametrize("reference", ["a/b", "a?", "a#1", "[a"])
def test_references_that_no_location_can_hold(reference, tmp_path):
    file = tmp_path / "accounts"
    file.write_text(f"[{reference}]\nuser = p:u\nkey = k\nauth_address = http://127.0.0.1:1\n")
    options = {"swift_store_config_file": str(file), "default_swift_reference": reference}
    with pytest.raises(exceptions.BadStoreConfiguration, match="default_swift_reference"):
        make(**options)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1/v1/A", "ftp://a/v1/A", "http://a:port/v1/A", "http:///v1/A", "http://[::1/v1/A"],
)
def test_addresses_of_swift_that_are_none(address):
    """They come from an option or from the catalogue."""
    sender = client.Client(client.Connections(), settings(), Account(address))
    patience = sender.patience()
    with pytest.raises(exceptions.BackendException, match="swift_store_endpoint"):
        sender.request("HEAD", "container", action="Looking", patience=patience)
