# SPDX-License-Identifier: Apache-2.0
"""Locations of every driver: what is accepted, what it means, and what is refused."""

from __future__ import annotations

import importlib
import json
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oslo_config import cfg

from glance_store import exceptions
from glance_store.location import Location, redact

DATA = Path(__file__).parents[1] / "data"
VECTORS = json.loads((DATA / "uri_vectors.json").read_text())
PACKAGES = {"file": "filesystem", "vmware": "vmware_datastore"}
MADE_HERE = ["cinder", "rbd", "s3", "swift", "vmware"]

# Where the vectors show a fault of the release that they were taken from: what is right instead,
# by the number of the fault in the list of regressions.
#  62: ? and # of a path were lost        85: ;params were lost
# 126, 233: a malformed URI raised ValueError
REFUSED = {"error": "BadStoreUri"}
CORRECTED = {
    "file:///a?x=1": (62, {"attrs": {"path": "/a?x=1"}, "get_uri": "file:///a?x=1"}),
    "file:///a#f": (62, {"attrs": {"path": "/a#f"}, "get_uri": "file:///a#f"}),
    "http://h/p;params": (85, {"attrs": {"params": "params"}, "get_uri": "http://h/p;params"}),
    "swift://a@b:c@auth.com/c/o": (126, REFUSED),
    "vsphere://host/folder/id": (233, REFUSED),
    "vsphere://host": (233, REFUSED),
    "vsphere://": (233, REFUSED),
}

UUID = "3a1e5d16-8b2c-4b3e-9e62-0a1f4c0b7a11"


def expected_of(vector):
    if vector["uri"] not in CORRECTED:
        return vector
    _number, right = CORRECTED[vector["uri"]]
    if right is REFUSED:
        return right
    return {**vector, **right, "attrs": {**vector["attrs"], **right["attrs"]}}


CASES = [
    pytest.param(driver, vector["uri"], expected_of(vector), id=f"{driver}: {vector['uri']}")
    for driver, vectors in VECTORS.items()
    for vector in vectors
]


@pytest.fixture(scope="module")
def conf():
    conf = cfg.ConfigOpts()
    for driver in VECTORS:
        package = PACKAGES.get(driver, driver)
        options = importlib.import_module(f"glance_store._drivers.{package}.options").OPTIONS
        conf.register_opts(options, group="glance_store")
    conf.set_override(
        "swift_store_config_file", str(DATA / "swift_references.conf"), group="glance_store"
    )
    return conf


def location_class(driver):
    package = PACKAGES.get(driver, driver)
    return importlib.import_module(f"glance_store._drivers.{package}").StoreLocation


def parse(driver, uri, conf=None, backend_group=None):
    location = location_class(driver)({}, conf, backend_group)
    location.parse_uri(uri)
    return location


def make(driver, conf=None, backend_group=None, **specs):
    return location_class(driver)(specs, conf, backend_group)


def attributes(location):
    return {name: vars(location)[name] for name in vars(location) if name != "conf"}


@pytest.mark.parametrize(("driver", "uri", "expected"), CASES)
def test_vector(driver, uri, expected, conf):
    if "error" in expected:
        with pytest.raises(exceptions.BadStoreUri):
            parse(driver, uri, conf)
        return
    location = parse(driver, uri, conf)
    assert {name: getattr(location, name) for name in expected["attrs"]} == expected["attrs"]
    assert location.get_uri() == expected["get_uri"]
    for name in ("swift_url", "https_url"):
        if name in expected:
            assert getattr(location, name) == expected[name]


@pytest.mark.parametrize(
    ("driver", "uri"),
    [
        (driver, uri)
        for driver, uri, wanted in (case.values for case in CASES)
        if "error" not in wanted
    ],
)
def test_a_scheme_in_capitals_means_the_same(driver, uri, conf):
    scheme, colon, rest = uri.partition(":")
    found = Location(scheme, location_class(driver), conf, uri=scheme.upper() + colon + rest)
    plain = parse(driver, uri, conf)
    assert attributes(found.store_location) == attributes(plain)
    assert found.get_store_uri() == plain.get_uri()


@pytest.mark.parametrize(
    ("driver", "uri", "image_id"),
    [
        ("file", f"file:///srv/images/{UUID}", UUID),
        ("file", "file:///srv/images/", None),
        ("rbd", f"rbd://fsid/pool/{UUID}/snap", UUID),
        ("rbd", f"rbd://{UUID}", UUID),
        ("s3", f"s3+https://host/bucket/{UUID}", UUID),
        ("swift", f"swift+https://user:key@host/v3/container/{UUID}", UUID),
        ("vmware", f"vsphere://host/folder/images/{UUID}?dcPath=a&dsName=b", UUID),
        # A volume has an id of its own, and on the web everything has any name.
        ("cinder", f"cinder://{UUID}", None),
        ("http", f"http://host/{UUID}", None),
    ],
)
def test_the_id_of_an_image(driver, uri, image_id, conf):
    assert parse(driver, uri, conf).get_image_id() == image_id


def test_corrections_are_all_used():
    uris = {vector["uri"]: vector for vectors in VECTORS.values() for vector in vectors}
    assert sum(map(len, VECTORS.values())) == 111
    assert set(CORRECTED) <= set(uris)
    # Every vector that ends in a raw ValueError has a correction.
    raw = {
        uri for uri, vector in uris.items() if vector.get("error", "BadStoreUri") != "BadStoreUri"
    }
    assert raw == {uri for uri, (_number, right) in CORRECTED.items() if right is REFUSED}


HOSTILE = {
    "cinder": [
        "",
        "cinder",
        f"cinder:/{UUID}",
        f"cinder://{UUID}?x",
        f"cinder://u:S3CRET@h/{UUID}#",
        f"Cinder://{UUID}",
        f"cinder://a\n/{UUID}",
        f"cinder://{UUID}\n",
    ],
    "rbd": [
        "",
        "rbd",
        "rbd://a\x00",
        "rbd://a/b/c/d\n",
        "rbd://f/p/i%00/s",
        "rbd://f/p%ff/i/s",
        "rbd://u:S3CRET@h/p/i",
        "rbd://\ud800",
        "http://u:S3CRET@h/p/i",
    ],
    "s3": [
        "",
        "s3://",
        "s3://:/b/k",
        "s3://h:x/b/k",
        "s3://h:99999/b/k",
        "s3://[::1/b/k",
        "s3://@/b/k",
        "s3://h/../k",
        "s3://h/b/%2e%2E",
        "s3://h/b\t/k",
        "s3://AKID:S3CRET@h/b",
        "s3://AKID:S3CRET@/b/k",
        "s3://AKID:S3/S3CRET@h/b//",
        "s3://AKID:S3CRET@[h/b/k",
        "s3://AKID:S3CRET%40h/b",
        "s3://https://AKID:S3CRET@h/b/k",
        "s3+ftp://AKID:S3CRET@h/b/k",
        "AKID:S3CRET@h/b/k",
        "AKID:S3CRET@h://b/k",
    ],
    "swift": [
        "",
        "swift://",
        "swift://h//",
        "swift://h:x/c/o",
        "swift://h:99999/c/o",
        "swift://u:S3CRET@/c/o",
        "swift://u:S3CRET@:80/c/o",
        "swift://u:S3CRET/c/o",
        "swift://u:S3CRET@h/c",
        "swift://u:S3CRET@h:x/c/o",
        "swift://u:S3CRET@x@h/c/o",
        "swift://u:S3CRET@[h/c/o",
        "swift://u:S3CRET\u2100@h/c/o",
        "swift://u:S3CRET?@h/c/o",
        "swift://u:S3CRET%ff@h/c/o",
        "swift://u:S3CRET@h\n/c/o",
        "swift://u:S3CRET@h/../c/o",
        "swift://u:S3CRET@h/v1/%2e%2e/o",
        "swift://u:S3CRET@http://h/c/o",
        "ftp://u:S3CRET@h/c/o",
        "swift+config://u:S3CRET@ref1/c/o",
        # More path would be added to the address that the credentials are sent to.
        "swift+config://ref1/evil/c/o",
        "swift+config://ref1/c/o/",
        "swift+config:///c/o",
        "swift+config://ref1//o",
        "swift+config://../c/o",
    ],
    "vmware": [
        "",
        "vsphere://host/folder/id?dcPath=dc",
        "vsphere://host/folder/id?dsName=",
        "vsphere://host/folder/id?dsName=a&dsName=b",
        "vsphere://host/folder/id?dsName=%ff",
        "vsphere://host/folder/../id?dsName=a",
        "vsphere://host/folder/%2E%2e/id?dsName=a",
        "vsphere://host/folder/?dsName=a",
        "vsphere://host?dsName=a",
        "vsphere:///folder/id?dsName=a",
        "vsphere://host:x/folder/id?dsName=a",
        "vsphere://[x/folder/id?dsName=a",
        "vsphere://u:S3CRET@host/folder/id?dsName=a",
        "vsphere://u:S3CRET@[x/folder/id?dsName=a",
    ],
}


@pytest.mark.parametrize(
    ("driver", "uri"),
    [pytest.param(driver, uri, id=repr(uri)) for driver in HOSTILE for uri in HOSTILE[driver]],
)
def test_hostile_uri_is_refused_without_showing_secrets(driver, uri, conf):
    with pytest.raises(exceptions.BadStoreUri) as caught:
        parse(driver, uri, conf)
    report = "".join(traceback.format_exception(caught.value))
    # The lines of this file in the traceback do not contain the URI.
    assert "S3CRET" not in report
    assert "S3CRET" not in repr(caught.value) + str(caught.value.msg)
    assert caught.value.__context__ is None
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("driver", MADE_HERE)
@pytest.mark.parametrize("uri", [None, b"rbd://image", 7])
def test_what_is_no_text_is_refused(driver, uri, conf):
    with pytest.raises(exceptions.BadStoreUri):
        parse(driver, uri, conf)


@pytest.mark.parametrize("driver", MADE_HERE)
def test_a_refused_uri_changes_nothing(driver, conf):
    good = next(vector["uri"] for vector in VECTORS[driver] if "attrs" in vector)
    location = parse(driver, good, conf)
    before = attributes(location)
    for uri in HOSTILE[driver]:
        with pytest.raises(exceptions.BadStoreUri):
            location.parse_uri(uri)
    assert attributes(location) == before


def test_an_error_says_what_is_wrong_and_what_is_right():
    with pytest.raises(exceptions.BadStoreUri) as caught:
        parse("rbd", "rbd://a/b")
    assert str(caught.value) == (
        "The Store URI was malformed: rbd://a/b: it must have one or four components, or five with "
        "a namespace; the form is rbd://<fsid>/<pool>/<image>/<snapshot> or rbd://<image>"
    )


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://h/b", "s3://h/b"),
        ("s3://h:80/b", "s3://h:80/b"),
        ("s3://[::1]:80/b", "s3://[::1]:80/b"),
        ("s3://u:p@h/b", "s3://***@h/b"),
        ("s3://u:p/q@h/b", "s3://***@h/b"),
        ("s3://u:p/b", "s3://***/b"),
        ("s3://h/b?token=t#f", "s3://h/b?***"),
        ("s3://u:p?q@h/b", "s3://***"),
        ("s3://h/b\n", "s3://h/b?"),
        ("s3://", "***"),
        ("u:p@h", "***"),
        ("u:p@h://x", "***"),
        ("s3://h/" + "b" * 1000, "s3://h/" + "b" * 193 + "..."),
    ],
)
def test_what_is_shown_of_a_malformed_uri(uri, shown):
    assert redact(uri) == shown


@pytest.mark.parametrize(
    ("driver", "uri"),
    [
        ("s3", "s3://AKID:S3CRET@h/b/k"),
        ("swift", "swift://u:S3CRET@h/c/o"),
        ("swift", "swift+config://ref1/c/o"),
        ("swift", "swift+config://app/c/o"),
    ],
)
def test_repr_of_a_location_shows_no_secret(driver, uri, conf):
    text = repr(parse(driver, uri, conf))
    assert not any(secret in text for secret in ("S3CRET", "AKID", "key1", "csec"))


# Characters that the syntaxes give a meaning, and a few that they do not.
AFTER_THE_SCHEME = st.text(alphabet="ab:@/?#[]%2e.&=; \n\x00é", max_size=24) | st.text(max_size=24)


@settings(max_examples=300, deadline=None)
@given(
    scheme=st.sampled_from(
        ["rbd", "s3", "s3+http", "swift", "swift+http", "swift+config", "cinder", "vsphere"]
    ),
    head=st.sampled_from(["", "h/", "u:p@h/", "ref1/", "h/folder/", "[::1]:80/"]),
    middle=AFTER_THE_SCHEME,
    tail=st.sampled_from(["", "/c/o", f"/{UUID}", "?dsName=a"]),
)
def test_any_text_is_refused_or_understood_for_good(scheme, head, middle, tail):
    conf = cfg.ConfigOpts()
    swift = importlib.import_module("glance_store._drivers.swift.options").OPTIONS
    conf.register_opts(swift, group="glance_store")
    conf.set_override("swift_store_auth_address", "h", group="glance_store")
    conf.set_override("swift_store_user", "t:u", group="glance_store")
    conf.set_override("swift_store_key", "k", group="glance_store")
    driver = {"vsphere": "vmware"}.get(scheme, scheme.partition("+")[0])
    try:
        location = parse(driver, f"{scheme}://{head}{middle}{tail}", conf)
    except exceptions.BadStoreUri:
        return
    uri = location.get_uri()
    again = parse(driver, uri, conf)
    assert again.get_uri() == uri


NAME = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(values=st.tuples(NAME, NAME, NAME, NAME))
def test_rbd_names_survive(values):
    specs = dict(zip(("fsid", "pool", "image", "snapshot"), values, strict=True))
    again = parse("rbd", make("rbd", **specs).get_uri())
    assert (again.fsid, again.pool, again.image, again.snapshot) == values


@settings(max_examples=200, deadline=None)
@given(user=NAME, key=NAME)
def test_swift_credentials_survive(user, key):
    made = make(
        "swift",
        user=user,
        key=key,
        auth_or_store_url="https://auth.com:5000/v3/",
        container="c",
        obj="o",
    )
    again = parse("swift", made.get_uri())
    assert (again.user, again.key, again.swift_url) == (user, key, "https://auth.com:5000/v3")


@settings(max_examples=200, deadline=None)
@given(datacenter=NAME, datastore=NAME)
def test_r234_vmware_names_survive(datacenter, datastore):
    made = make(
        "vmware",
        server_host="1::2",
        image_dir="/openstack_glance",
        datacenter_path=datacenter,
        datastore_name=datastore,
        image_id="id",
    )
    assert (made.datacenter_path, made.datastore_name) == (datacenter, datastore)
    again = parse("vmware", made.get_uri())
    assert (again.datacenter_path, again.datastore_name) == (datacenter, datastore)
    assert again.https_url.startswith("https://[1::2]/folder/openstack_glance/id?dsName=")


def test_vmware_without_a_datacenter():
    made = make("vmware", server_host="h", image_dir="d/", datastore_name="d s", image_id="i")
    assert made.get_uri() == "vsphere://h/folder/d/i?dsName=d+s"


def test_rbd_fsid_of_older_bindings_is_text():
    made = make("rbd", fsid=b"f", pool="p", image="i", snapshot="s")
    assert made.get_uri() == "rbd://f/p/i/s"


def test_rbd_without_all_values_has_the_short_form():
    assert make("rbd", fsid="f", image="i").get_uri() == "rbd://i"


@pytest.mark.parametrize(
    ("specs", "uri"),
    [
        ({"s3serviceurl": "http://h"}, "s3://h/b/k"),
        ({"s3serviceurl": "https://h/"}, "s3+https://h/b/k"),
        ({"s3serviceurl": "HTTPS://h"}, "s3+https://h/b/k"),
        ({"s3serviceurl": "h:9000", "scheme": "s3+http"}, "s3+http://h:9000/b/k"),
        ({"s3serviceurl": "h", "accesskey": "a", "secretkey": "s"}, "s3://h/b/k"),
    ],
)
def test_s3_specs(specs, uri):
    assert make("s3", bucket="b", key="k", **specs).get_uri() == uri


@pytest.mark.parametrize(
    ("service", "endpoint"),
    [("h", "h"), ("h:80", "h:80"), ("AKID:S3CRET@h", "h"), ("AKID:S3/CR@ET@h:80/x", "h:80/x")],
)
def test_s3_endpoint_has_no_credentials(service, endpoint):
    location = parse("s3", f"s3://{service}/b/k")
    assert location.endpoint == endpoint
    assert location.get_uri() == f"s3://{service}/b/k"


def test_cinder_uri_names_the_store_of_several():
    assert make("cinder", volume_id=UUID).get_uri() == f"cinder://{UUID}"
    assert make("cinder", None, "fast", volume_id=UUID).get_uri() == f"cinder://fast/{UUID}"
    assert parse("cinder", f"cinder://x/{UUID}", None, "fast").volume_id == UUID


def test_swift_key_with_a_slash_written_by_earlier_releases():
    location = parse("swift", "swift+https://t%3Au:k/%40@h/v3/c/o")
    assert (location.user, location.key, location.auth_or_store_url) == ("t:u", "k/@", "h/v3")
    assert location.get_uri() == "swift+https://t%3Au:k%2F%40@h/v3/c/o"


def test_swift_container_and_object_may_contain_an_at_sign():
    location = parse("swift", "swift://h:80/v1/im@ges/o@x")
    assert (location.auth_or_store_url, location.container, location.obj) == (
        "h:80/v1",
        "im@ges",
        "o@x",
    )
    assert location.get_uri() == "swift://h:80/v1/im@ges/o@x"


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        # The account of a location is its own, not the default one.
        ("swift+config://ref2/c/o", "swift+config://ref2/c/o"),
        ("swift://u:p@h/c/o", "swift+config://ref1/c/o"),
    ],
)
def test_swift_uri_without_credentials(uri, public, conf):
    assert parse("swift", uri, conf).get_uri(credentials_included=False) == public


def test_swift_location_of_a_reference_made_from_specs():
    specs = {"scheme": "swift+config", "user": "t:u", "key": "k", "container": "c", "obj": "o"}
    made = make("swift", auth_or_store_url="http://h/v3/", **specs)
    assert made.get_uri() == "swift+http://t%3Au:k@h/v3/c/o"


def test_swift_location_without_an_address_has_no_uri():
    with pytest.raises(exceptions.BadStoreUri, match="no address"):
        make("swift", container="c", obj="o").get_uri()
