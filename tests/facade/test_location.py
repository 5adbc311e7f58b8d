# SPDX-License-Identifier: Apache-2.0
"""Locations, and the maps of what the running configuration knows."""

from __future__ import annotations

import pytest
from oslo_config import cfg

import glance_store
from glance_store import exceptions, location


class Place(location.StoreLocation):
    """place://<name>"""

    processed = 0

    def process_specs(self):
        self.processed += 1
        self.name = self.specs["name"]

    def get_uri(self):
        return f"place://{self.name}"

    def parse_uri(self, uri):
        self.validate_schemas(uri, ("place://",))
        self.name = uri[len("place://") :]


def entry(store="a store"):
    return {"store": store, "location_class": Place, "store_entry": "place"}


@pytest.fixture
def known():
    location.register_scheme_map({"place": entry()})
    location.register_scheme_backend_map({"place": {"one": entry()}})


def test_location_from_a_uri(known):
    conf = cfg.ConfigOpts()
    loc = location.get_location_from_uri("place://here", conf=conf)
    assert (loc.store_name, loc.conf, loc.backend_group) == ("place", conf, None)
    assert (loc.image_id, loc.store_specs) == (None, {})
    assert (loc.store_location.conf, loc.store_location.backend_group) == (conf, None)
    assert loc.store_location.specs == {}
    assert loc.store_location.processed == 0
    assert loc.get_store_uri() == "place://here"
    assert loc.get_uri() is None


def test_location_from_a_uri_and_a_backend(known):
    conf = cfg.ConfigOpts()
    loc = location.get_location_from_uri_and_backend("place://here", "one", conf=conf)
    assert (loc.store_name, loc.conf, loc.backend_group) == ("place", conf, "one")
    assert loc.store_location.backend_group == "one"
    assert loc.get_store_uri() == "place://here"


def test_default_conf(known):
    assert location.get_location_from_uri("place://here").conf is cfg.CONF
    assert location.get_location_from_uri_and_backend("place://here", "one").conf is cfg.CONF


def test_location_from_specs():
    loc = location.Location(
        "place", Place, None, image_id="id", store_specs={"name": "there"}, backend="one"
    )
    assert (loc.image_id, loc.store_specs) == ("id", {"name": "there"})
    assert loc.store_location.specs == {"name": "there"}
    assert loc.store_location.processed == 1
    assert loc.get_store_uri() == "place://there"


def test_specs_are_taken_before_the_uri():
    loc = location.Location("place", Place, None, uri="place://b", store_specs={"name": "a"})
    assert loc.store_location.processed == 1
    assert loc.get_store_uri() == "place://b"


@pytest.mark.parametrize("uri", ["nowhere://here", "/a/path", "", "place", "here"])
def test_unknown_scheme(known, uri):
    with pytest.raises(exceptions.UnknownScheme):
        location.get_location_from_uri(uri)
    with pytest.raises(exceptions.UnknownScheme):
        location.get_location_from_uri_and_backend(uri, "one")


def test_unknown_backend(known):
    with pytest.raises(exceptions.UnknownScheme, match="two"):
        location.get_location_from_uri_and_backend("place://here", "two")


def test_scheme_in_capitals_finds_the_store(known):
    # The location class is strict, as those of most drivers are, and never sees the capitals.
    found = location.get_location_from_uri("PLACE://Here")
    assert (found.store_name, found.get_store_uri()) == ("place", "place://Here")
    found = location.get_location_from_uri_and_backend("Place://Here", "one")
    assert (found.store_name, found.get_store_uri()) == ("place", "place://Here")


@pytest.mark.parametrize("uri", ["", "/A/b", "A", " FILE:///a", "A B://c", "\u00c4://a", None, 3])
def test_what_has_no_scheme_is_not_touched(uri):
    assert location.normalized(uri) is uri


@pytest.mark.parametrize("uri", [None, 3, b"place://here", ["place://here"]])
def test_uri_that_is_no_text(known, uri):
    for parse in (
        location.get_location_from_uri,
        lambda text: location.get_location_from_uri_and_backend(text, "one"),
        lambda text: glance_store.get(text, None),
    ):
        with pytest.raises(exceptions.BadStoreUri, match="not a string"):
            parse(uri)


@pytest.mark.parametrize("uri", ["place://[half", "place://user:secret@[half"])
def test_uri_that_cannot_be_split(known, uri):
    for parse in (
        location.get_location_from_uri,
        lambda text: location.get_location_from_uri_and_backend(text, "one"),
    ):
        with pytest.raises(exceptions.BadStoreUri) as caught:
            parse(uri)
        assert "secret" not in str(caught.value)


def test_registered_entries_are_overridden():
    location.register_scheme_map({"place": entry("old"), "other": entry()})
    location.register_scheme_map({"place": entry("new")})
    assert location.SCHEME_TO_CLS_MAP["place"]["store"] == "new"
    assert set(location.SCHEME_TO_CLS_MAP) == {"place", "other"}


def test_registered_entries_of_backends_are_overridden():
    location.register_scheme_backend_map({"place": {"one": entry("old"), "two": entry()}})
    location.register_scheme_backend_map({"place": {"one": entry("new")}})
    stores = location.SCHEME_TO_CLS_BACKEND_MAP["place"]
    assert stores["one"]["store"] == "new"
    assert set(stores) == {"one", "two"}


def test_registering_does_not_change_the_argument():
    given = {"place": {"one": entry()}}
    location.register_scheme_backend_map(given)
    location.register_scheme_backend_map({"place": {"two": entry()}})
    assert set(given["place"]) == {"one"}


def test_maps_may_be_rebound(known):
    location.SCHEME_TO_CLS_MAP = {}
    location.SCHEME_TO_CLS_BACKEND_MAP = {}
    with pytest.raises(exceptions.UnknownScheme):
        location.get_location_from_uri("place://here")
    location.register_scheme_map({"place": entry()})
    location.register_scheme_backend_map({"place": {"one": entry()}})
    assert location.get_location_from_uri("place://here").store_name == "place"
    assert set(location.SCHEME_TO_CLS_BACKEND_MAP) == {"place"}


def test_base_class():
    base = location.StoreLocation({}, None)
    assert (base.conf, base.specs, base.backend_group) == (None, {}, None)
    with pytest.raises(NotImplementedError):
        base.get_uri()
    with pytest.raises(NotImplementedError):
        base.parse_uri("place://here")


def test_base_class_has_no_specs_to_process():
    assert location.StoreLocation({"any": 1}, None).specs == {"any": 1}


@pytest.mark.parametrize("uri", ["place://x", "other://x", "place://"])
def test_schemas(uri):
    assert location.StoreLocation.validate_schemas(uri, ("place://", "other://")) is None
    assert Place.validate_schemas(uri, valid_schemas=["place://", "other://"]) is None


@pytest.mark.parametrize("uri", ["PLACE://x", " place://x", "place:/x", "", None, 3])
def test_other_schemas(uri):
    with pytest.raises(exceptions.BadStoreUri, match="place://"):
        location.StoreLocation.validate_schemas(uri, ("place://", "other://"))


def test_secrets_are_not_in_the_representation():
    place = Place({"name": "secret"}, None)
    assert "secret" not in repr(place)
    assert "Place" in repr(place)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("file:///a/b", "file:///a/b"),
        ("rbd://fsid/pool/image/snap", "rbd://fsid/pool/image/snap"),
        ("http://host:8080/a", "http://host:8080/a"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://user:secret@host/a", "http://***@host/a"),
        ("http://host/a?token=secret&x", "http://host/a?***"),
        ("http://host/a#secret", "http://host/a#***"),
    ],
)
def test_what_is_shown_of_a_location(uri, shown):
    assert location.redact(uri) == shown


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:secret@host/a",
        "http://secret@host/a",
        "swift+https://us:er:se/cr@et:secret@host/a",
        "swift+https://user%40project:secret%40host/a",
        "http://user:secret@host/a?b=c@d",
        "http://host/a?b=secret@c",
        "http://host/?secret",
        "http://user:secret/a",
        "user:secret@host",
        "http:user:secret@host",
        "://user:secret@host",
        b"http://user:secret@host",
    ],
)
def test_secrets_are_not_shown(uri):
    assert "secret" not in location.redact(uri)


@pytest.mark.parametrize("uri", ["", None, 3, "no location", "http://", "http://host/\n\x1b[0m"])
def test_anything_can_be_shown_in_one_line(uri):
    assert location.redact(uri).isprintable()


def test_long_locations_are_cut():
    assert len(location.redact("file:///" + "a" * 100_000)) < 1000
