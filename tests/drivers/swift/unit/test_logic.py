# SPDX-License-Identifier: Apache-2.0
"""The Swift driver as far as it needs no server."""

from __future__ import annotations

import json
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
    bulk,
    catalogue,
    client,
    connections,
    containers,
    deletion,
    errors,
    listing,
    manifest,
    publish,
)
from glance_store._drivers.swift.sweep import Place

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


def name_of(image_id="image"):
    account = types.SimpleNamespace(url="http://swift/v1/AUTH_x")
    return publish.Name(types.SimpleNamespace(account=account), "container", image_id)


def test_segments_sort_in_order_and_belong_to_one_upload():
    one, other = name_of(), name_of()
    numbers = [1, 2, 9, 10, 99999, 100000, 100001, 999999, 1000000]
    names = [manifest.segment_name(one, number) for number in numbers]
    assert names == sorted(names)
    assert names[0] == f"image-{one.mark}-00001"
    assert not any(found.startswith(manifest.prefix(other)) for found in names)


def test_names_of_segments_need_no_encoding():
    name = name_of("a%2Fb c/d?e\u00e4")
    assert manifest.segment_name(name, 1) == f"a_2Fb_c_d_e_-{name.mark}-00001"


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
        (409, exceptions.BackendException),
    ],
)
def test_statuses(status, expected):
    found = errors.refusal(status, "Some\nReason", "Storing image x", "x")
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"{}", None),
        (b"nonsense", None),
        (b'{"slo": null}', None),
        (b'{"slo": {"max_manifest_segments": 7}}', manifest.Limits(7, 2 * MIB, 1)),
        (
            b'{"slo": {"max_manifest_segments": 7, "max_manifest_size": 8, "min_segment_size": 9}}',
            manifest.Limits(7, 8, 9),
        ),
    ],
)
def test_limits_of_a_cluster(text, expected):
    assert manifest._parse(text) == expected


class Answers:
    """Stands for a client that gets one answer to all requests."""

    def __init__(self, data: bytes, **headers: str) -> None:
        self.status = 200
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.data = data

    def request(self, *_place, **_given):
        return self


@pytest.mark.parametrize(
    ("text", "segments", "manifests"),
    [
        (b"[]", [], []),
        # As Swift and as radosgw return it; a segment may be named several times.
        (b'[{"name": "/c/a b"}, {"name": "/c/a b"}]', [("c", "a b")], []),
        (b'[{"path": "c/d/e%20"}]', [("c", "d/e%20")], []),
        (
            b'[{"name": "/c/a", "sub_slo": true}, {"data": "eA=="}, {"name": "/c/b"}]',
            [("c", "b")],
            [("c", "a")],
        ),
    ],
)
def test_what_a_manifest_names(text, segments, manifests):
    client = Answers(text, x_static_large_object="True")
    assert deletion._named(client, Place("c", "o")) == (segments, manifests)


@pytest.mark.parametrize(
    "text",
    [b"", b"<html>", b"{}1", b"[1]", b'[{"name": "/c"}]', b'[{"hash": "x"}]', b'[{"name": null}]'],
)
def test_manifest_that_is_not_understood(text):
    """What it names would be left for ever."""
    client = Answers(text, x_static_large_object="True")
    with pytest.raises(exceptions.BackendException, match="not understood"):
        deletion._named(client, Place("c", "o"))


def test_manifest_that_is_not_shown():
    """Its answer is what radosgw gives; nothing says that there are no segments."""
    assert deletion._named(Answers(b""), Place("c", "o")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'  \r\n{"Response Status": "200 OK", "Errors": []}', ("200 OK", [])),
        (
            b'{"Response Status": "400 Bad Request", "Errors": [["/c/x", "404 Not Found"]]}',
            ("200 OK", []),
        ),
        (
            b'{"Response Status": "400 Bad Request", "Errors": [["/c/x", "503 x"]]}',
            ("400 Bad Request", [["/c/x", "503 x"]]),
        ),
        (b"<html>", ("an answer that is not understood", [])),
    ],
)
def test_outcome_of_a_deletion_by_the_cluster(text, expected):
    assert bulk.outcome(text) == expected


class Cluster:
    """Stands for a client of a cluster that removes images by itself, by a plan.

    :param answers: to the requests for that: a status, and what could not be removed
    :param stubborn: objects that cannot be removed at all
    """

    settings = connections.Settings(False, None, 1, 1, 0, 1)

    def __init__(self, answers, stubborn=()):
        self.answers = [*answers]
        self.stubborn = stubborn
        self.removed: list[str] = []

    def request(self, method, _container, name, query=None, **_given):
        if method == "HEAD":
            return types.SimpleNamespace(status=200 if name in self.stubborn else 404)
        if query:
            status, failed = self.answers.pop(0)
            said = {"Response Status": "400 Bad Request" if failed else "200 OK", "Errors": failed}
            return types.SimpleNamespace(status=status, data=json.dumps(said).encode())
        self.removed.append(name)
        return types.SimpleNamespace(status=409 if name in self.stubborn else 204)


FAILED = (200, [["/c/a%20b", "503 x"], ["/c/d", "409 x"]])


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    ("answers", "removed"),
    [
        ([(200, [])], []),
        ([(409, []), (200, [])], []),
        # The manifest is gone with the first try: the second one knows of nothing.
        ([FAILED, (404, [])], ["a b", "d"]),
        ([FAILED, (200, [])], ["a b", "d"]),
        ([FAILED] * 4, ["a b", "d"]),
    ],
)
def test_what_a_cluster_leaves_is_removed(answers, removed):
    cluster = Cluster(answers)
    bulk.remove(cluster, Place("c", "image"))
    assert cluster.removed == removed
    assert cluster.answers == []


@pytest.mark.usefixtures("no_pauses")
def test_what_a_cluster_leaves_for_good_is_named():
    cluster = Cluster([FAILED, (404, [])], stubborn=("d",))
    with pytest.raises(exceptions.BackendException, match=r"1 objects in the container c, d\*"):
        bulk.remove(cluster, Place("c", "image"))


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([(409, [])] * 4, exceptions.BackendException),
        ([(200, [["/c/image", "409 x"]])] * 4, exceptions.BackendException),
        ([(200, [["/c/d", "403 x"]])], exceptions.Forbidden),
    ],
)
def test_image_that_a_cluster_does_not_remove(answers, error):
    with pytest.raises(error):
        bulk.remove(Cluster(answers, stubborn=("image",)), Place("c", "image"))


@pytest.mark.parametrize("text", [b"{}", b"nonsense", b'[{"name": "x"}]', b'["x"]'])
def test_listing_that_is_not_understood(text):
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="no listing"):
        list(listing.pages(Answers(text), "c"))


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


@pytest.mark.parametrize("missing", ["auth_address", "user", "key"])
def test_missing_account(missing, caplog):
    store = make(configure=False, **{f"swift_store_{missing}": None})
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


def test_connection_is_swiftclients(monkeypatch):
    made = []
    monkeypatch.setattr(
        swift, "swiftclient", types.SimpleNamespace(Connection=lambda **given: made.append(given))
    )
    make(swift_store_cacert="/ca.pem").get_store_connection("token", "http://swift/v1/x")
    (given,) = made
    assert given["preauthtoken"] == "token"
    assert given["preauthurl"] == "http://swift/v1/x"
    assert given["cacert"] == "/ca.pem"


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"cacert": "/ca"}, "/ca"), ({"insecure": True, "cacert": "/ca"}, False)],
)
def test_r100_r101_certificates_of_keystone(options, expected):
    values = {"insecure": False, "cacert": None, **options}
    settings = connections.Settings(
        **values, connect_timeout=1, read_timeout=1, retries=0, threads=1
    )
    assert auth.session_for(None, settings).verify == expected


def test_pools_belong_to_a_process(monkeypatch):
    held = connections.Connections()
    settings = connections.Settings(False, None, 1, 1, 0, 1)
    first = held.pool("http://127.0.0.1:1/", settings)
    assert held.pool("http://127.0.0.1:1/", settings) is first
    monkeypatch.setattr(connections.os, "getpid", lambda: -1)
    assert held.pool("http://127.0.0.1:1/", settings) is not first
