# SPDX-License-Identifier: Apache-2.0
"""The functions of multi-store mode, on real drivers."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import pytest
from oslo_config import cfg

import glance_store
from glance_store import exceptions, location, registry

DATA = b"the bytes of an image" * 1000
MD5 = hashlib.md5(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()


class Verifier:
    def __init__(self):
        self.data = b""

    def update(self, data):
        self.data += bytes(data)


@pytest.fixture
def stores(create_multi, conf):
    count = create_multi(
        {"one": "file", "two": "file", "web": "http"},
        options={("glance_store", "default_backend"): "one"},
    )
    assert count == 6


def add(conf, identifier, image_id="image", data=DATA):
    return glance_store.add(conf, image_id, io.BytesIO(data), len(data), identifier)[0]


# -- creation


@pytest.mark.parametrize(
    ("driver", "count"),
    [("file", 2), ("http", 2), ("s3", 3), ("swift", 4), ("rbd", 1), ("cinder", 1), ("vmware", 1)],
)
def test_r29_count_is_that_of_identifiers_and_schemes(create_multi, driver, count, monkeypatch):
    # Where Ceph's bindings are installed the store would look for its cluster.
    monkeypatch.setattr("glance_store._drivers.rbd.rados", None)
    assert create_multi({"one": driver}) == count
    assert create_multi({"one": driver, "two": driver}) == 2 * count
    assert len(list(registry.stores())) == 2


def test_known_schemes(stores):
    known = glance_store.get_known_schemes_for_multi_store()
    assert "file" in known
    assert set(known) == {"file", "filesystem", "http", "https"}
    assert set(location.SCHEME_TO_CLS_BACKEND_MAP["filesystem"]) == {"one", "two"}


def test_no_stores(create_multi):
    assert create_multi({}) == 0
    assert list(glance_store.get_known_schemes_for_multi_store()) == []


def test_creation_twice_in_a_row(create_multi):
    assert create_multi({"one": "file"}) == 2
    first = glance_store.get_store_from_store_identifier("one")
    assert create_multi({"one": "file"}) == 2
    assert glance_store.get_store_from_store_identifier("one") is not first


def test_stores_of_an_earlier_configuration_are_forgotten(create_multi):
    create_multi({"one": "file", "two": "file", "three": "file"})
    create_multi({"one": "http", "three": "nowhere", "four": "file"})
    assert {
        scheme: list(stores) for scheme, stores in location.SCHEME_TO_CLS_BACKEND_MAP.items()
    } == {"file": ["four"], "filesystem": ["four"], "http": ["one"], "https": ["one"]}
    assert glance_store.get_store_from_store_identifier("one").get_schemes() == ("http", "https")
    with pytest.raises(exceptions.UnknownScheme):
        glance_store.get("file:///one/image", "one")


def test_process_wide_configuration(process_conf, create_multi, tmp_path):
    assert create_multi({"one": "file"}, {"spare": "file"}, conf=process_conf) == 4
    assert glance_store.create_multi_stores() == 4
    assert registry.active_conf() is cfg.CONF
    assert add(process_conf, "one") == f"file://{tmp_path}/one/image"
    assert glance_store.get_store_from_store_identifier("spare")


def test_conf_without_enabled_backends():
    conf = cfg.ConfigOpts()
    glance_store.register_store_opts(conf)
    assert glance_store.create_multi_stores(conf) == 0


def test_both_modes_side_by_side(create_multi, create_single, conf, tmp_path):
    create_multi({"one": "file"})
    create_single(["file"])
    url = add(conf, "one")
    assert b"".join(glance_store.get(url, "one")[0]) == DATA
    assert b"".join(glance_store.get_from_backend(url)[0]) == DATA


# -- the store for new images


def test_default_backend_is_verified(stores):
    assert glance_store.verify_store() is None


@pytest.mark.parametrize("value", [None, ""])
def test_default_backend_is_not_set(stores, conf, value):
    conf.set_override("default_backend", value, group="glance_store")
    with pytest.raises(RuntimeError, match="default_backend"):
        glance_store.verify_store()


def test_default_backend_is_unknown(stores, conf):
    conf.set_override("default_backend", "nowhere", group="glance_store")
    with pytest.raises(RuntimeError, match=r"nowhere.*not in enabled_backends"):
        glance_store.verify_store()


def test_default_backend_could_not_be_loaded(outside, create_multi):
    create_multi({"one": "faulty.configure"}, options={("glance_store", "default_backend"): "one"})
    with pytest.raises(RuntimeError, match="no host is set"):
        glance_store.verify_store()


def test_r34_default_backend_is_that_of_the_configuration_in_use(stores, process_conf):
    glance_store.register_store_opts(process_conf)
    process_conf.set_override("default_backend", "nowhere", group="glance_store")
    glance_store.verify_store()


# -- images


def test_life_of_an_image(stores, conf, tmp_path):
    verifier = Verifier()
    result = glance_store.add_with_multihash(
        conf, "image", io.BytesIO(DATA), len(DATA), "two", "sha512", context=None, verifier=verifier
    )
    url = f"file://{tmp_path}/two/image"
    assert result == (url, len(DATA), MD5, SHA512, {"store": "two"})
    assert verifier.data == DATA
    data, size = glance_store.get(url, "two")
    assert (b"".join(data), size) == (DATA, len(DATA))
    data, size = glance_store.get(url, "two", 10, 20, None)
    assert (b"".join(data), size) == (DATA[10:30], 20)
    data, size = glance_store.get(url, "two", offset=5, chunk_size=None, context=None)
    assert b"".join(data) == DATA[5:]
    assert glance_store.get_size_from_uri_and_backend(url, "two", context=None) == len(DATA)
    assert glance_store.delete(url, "two", None) is None
    for function in (
        glance_store.get,
        glance_store.get_size_from_uri_and_backend,
        glance_store.delete,
    ):
        for identifier in ("two", None):
            with pytest.raises(exceptions.NotFound):
                function(url, identifier)


def test_r7_metadata_names_the_store(stores, conf):
    result = glance_store.add(conf, "image", io.BytesIO(DATA), len(DATA), "two")
    assert result[1:] == (len(DATA), MD5, {"store": "two"})


@pytest.mark.parametrize("identifier", [None, ""])
def test_default_backend_takes_the_image(stores, conf, tmp_path, identifier):
    assert add(conf, identifier) == f"file://{tmp_path}/one/image"
    result = glance_store.add_with_multihash(
        conf, "other", io.BytesIO(DATA), 0, identifier, "sha512"
    )
    assert result[4] == {"store": "one"}


@pytest.mark.parametrize("scheme", [None, "rbd", "http"])
def test_scheme_is_accepted_and_ignored(stores, conf, scheme):
    result = glance_store.add_with_multihash(
        conf, "image", io.BytesIO(DATA), 0, "two", "md5", scheme
    )
    assert result[2:] == (MD5, MD5, {"store": "two"})


def test_add_to_an_unknown_store(stores, conf):
    source = io.BytesIO(DATA)
    with pytest.raises(exceptions.UnknownScheme, match="nowhere"):
        glance_store.add(conf, "image", source, 0, "nowhere")
    with pytest.raises(exceptions.UnknownScheme, match="nowhere"):
        glance_store.add_with_multihash(conf, "image", source, 0, "nowhere", "sha512")
    assert source.tell() == 0


def test_unknown_hash(stores, conf, tmp_path):
    source = io.BytesIO(DATA)
    with pytest.raises(exceptions.UnknownHashingAlgo, match="nohash"):
        glance_store.add_with_multihash(conf, "image", source, 0, "one", "nohash")
    assert source.tell() == 0
    assert list((tmp_path / "one").iterdir()) == []


def test_image_of_another_store(stores, conf):
    url = add(conf, "one")
    with pytest.raises(exceptions.UnknownScheme, match="web"):
        glance_store.get(url, "web")
    with pytest.raises(exceptions.UnknownScheme):
        glance_store.delete("rbd://image", "one")


@pytest.mark.parametrize("uri", ["/a/path/image", "image", "", "rbd://image"])
@pytest.mark.parametrize("identifier", ["one", "nowhere"])
def test_unknown_scheme(stores, uri, identifier):
    for function in (
        glance_store.get,
        glance_store.get_size_from_uri_and_backend,
        glance_store.delete,
        glance_store.set_acls_for_multi_store,
        location.get_location_from_uri_and_backend,
    ):
        with pytest.raises(exceptions.UnknownScheme):
            function(uri, identifier)


def test_store_of_another_identifier_that_is_not_enabled_any_more(stores, conf):
    url = add(conf, "two")
    conf.set_override("enabled_backends", {"one": "file"})
    with pytest.raises(exceptions.UnknownScheme, match="two"):
        glance_store.get(url, "two")


def test_r24_verifier_sees_all_bytes_once_in_order(stores, conf):
    verifier = Verifier()
    pieces = [DATA[at : at + 777] for at in range(0, len(DATA), 777)]
    glance_store.add(conf, "image", iter(pieces), 0, "one", verifier=verifier)
    assert verifier.data == DATA


@pytest.mark.parametrize("said", [len(DATA) - 1, len(DATA) + 1])
def test_r23_other_size_than_announced(stores, conf, tmp_path, said):
    with pytest.raises(exceptions.Invalid):
        glance_store.add_with_multihash(conf, "image", io.BytesIO(DATA), said, "one", "sha512")
    assert list((tmp_path / "one").iterdir()) == []


def test_r45_image_of_unknown_size_takes_bounded_memory(stores, conf):
    chunk = bytes(range(256)) * 4096
    count = 160
    tracemalloc.start()
    try:
        url, size, *_rest = glance_store.add(
            conf, "image", (bytes(chunk) for _number in range(count)), 0, "one"
        )
        read = sum(len(piece) for piece in glance_store.get(url, "one")[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == read == count * len(chunk)
    assert peak < size // 3


# -- without an identifier


def test_search_finds_the_store(stores, conf, web):
    address, site = web
    (site / "image").write_bytes(DATA)
    url = add(conf, "two")
    for uri in (url, f"http://{address}/image"):
        for identifier in (None, ""):
            data, size = glance_store.get(uri, identifier)
            assert (b"".join(data), size) == (DATA, len(DATA))
            assert glance_store.get_size_from_uri_and_backend(uri, identifier) == len(DATA)
    data, size = glance_store.get(url, None, offset=3, chunk_size=4)
    assert (b"".join(data), size) == (DATA[3:7], 4)
    glance_store.delete(url, None)
    with pytest.raises(exceptions.NotFound):
        glance_store.delete(url, None)


@pytest.mark.parametrize("uri", ["rbd://image", "/a/path", "", "file", "swift+http://x/y"])
def test_search_without_a_store_of_the_scheme(stores, uri):
    for function in (
        glance_store.get,
        glance_store.get_size_from_uri_and_backend,
        glance_store.delete,
    ):
        with pytest.raises(exceptions.NotFound):
            function(uri, None)


def test_search_with_a_malformed_uri(stores):
    with pytest.raises(exceptions.BadStoreUri) as caught:
        glance_store.get("http://user:secret@host:port/image", None)
    assert "secret" not in str(caught.value)


def test_search_goes_on_after_a_store_that_does_not_understand(outside, create_multi, conf):
    create_multi({"one": "memory", "two": "memory.by.function"})
    with pytest.raises(exceptions.BadStoreUri):
        glance_store.delete("memory://shelf", None)
    conf.set_override("memory_shelf", "second", group="two")
    url = glance_store.add(conf, "image", io.BytesIO(b"x"), 1, "two")[0]
    assert url == "memory://second/image"
    assert b"".join(glance_store.get(url, None)[0]) == b"x"


def test_search_prefers_what_is_missing_over_what_is_malformed(outside, create_multi, monkeypatch):
    create_multi({"one": "memory", "two": "memory"})
    answers = iter([exceptions.BadStoreUri(uri="x"), exceptions.NotFound(image="x")])

    def operation(_identifier):
        raise next(answers)

    with pytest.raises(exceptions.NotFound):
        registry.first_that_has("memory://x", operation)


def test_search_does_not_hide_other_errors(outside, create_multi, conf):
    create_multi({"one": "memory"})
    url = glance_store.add(conf, "image", io.BytesIO(b"x"), 1, "one")[0]
    with pytest.raises(exceptions.StoreRandomGetNotSupported):
        glance_store.get(url, None, offset=1)


def test_search_does_not_show_secrets(stores, web):
    address, _site = web
    with pytest.raises(exceptions.NotFound) as caught:
        glance_store.get(f"http://user:secret@{address}/nothing?token=secret", None)
    assert "secret" not in str(caught.value)


def test_r32_stores_are_searched_by_scheme(outside, create_multi, conf):
    create_multi({"vm": "vmware", "one": "memory.by.function", "web": "http", "disk": "file"})
    url = add(conf, "one")
    # None of the drivers' names is the beginning of this location.
    assert b"".join(glance_store.get(url, None)[0]) == DATA
    glance_store.delete(url, None)
    uri = "vsphere://host/folder/images/id?dcPath=dc&dsName=ds"
    assert registry.candidates(uri) == ["vm"]
    # "http" and "file" are the beginning of names of other schemes.
    assert registry.candidates("httpx://host/image") == []
    with pytest.raises(exceptions.NotFound):
        glance_store.get("files:///image", None)


def test_r33_empty_image_is_found(outside, create_multi, conf):
    create_multi({"one": "memory", "disk": "file"})
    url = add(conf, "one", data=b"")
    data, size = glance_store.get(url, None)
    assert not data
    assert (list(data), size) == ([], 0)
    data, size = glance_store.get(add(conf, "disk", data=b""), None)
    assert (b"".join(data), size) == (b"", 0)


# -- the driver of another distribution


def test_outside_driver(outside, create_multi, conf):
    assert create_multi({"one": "memory", "two": "memory"}) == 2
    outside.BUILT.clear()
    result = glance_store.add(conf, "image", io.BytesIO(DATA), len(DATA), "one")
    assert result == (
        "memory://shelf/image",
        len(DATA),
        MD5,
        {"shelf": "shelf", "store": "one"},
    )
    result = glance_store.add_with_multihash(
        conf, "other", io.BytesIO(DATA), len(DATA), "two", "sha512", verifier=Verifier()
    )
    assert result[2:] == (MD5, SHA512, {"shelf": "shelf", "store": "two"})
    chunks, size = glance_store.get("memory://shelf/image", "one")
    assert isinstance(chunks, outside.Chunks)
    assert (chunks[0], len(chunks), size) == (DATA[:4], len(DATA), len(DATA))
    with pytest.raises(exceptions.StoreRandomGetNotSupported):
        glance_store.get("memory://shelf/image", "one", offset=1)
    assert glance_store.get_size_from_uri_and_backend("memory://shelf/image", "one") == len(DATA)
    glance_store.delete("memory://shelf/image", "one")
    with pytest.raises(exceptions.NotFound):
        glance_store.delete("memory://shelf/image", "one")
    assert set(outside.IMAGES) == {("shelf", "other")}
    # One for each call: the driver is not reusable.
    assert outside.BUILT == ["one", "two", "one", "one", "one", "one", "one"]


def test_r34_locations_have_the_configuration_in_use(outside, create_multi, conf):
    create_multi({"one": "memory"})
    url = add(conf, "one")
    glance_store.get(url, "one")
    glance_store.get_size_from_uri_and_backend(url, None)
    glance_store.set_acls_for_multi_store(url, "one")
    glance_store.delete(url, None)
    seen = outside.PARSED
    assert seen == [(conf, "one")] * 4


def test_outside_driver_has_a_prefix(outside, create_multi, conf):
    create_multi({"one": "memory"})
    store = location.SCHEME_TO_CLS_BACKEND_MAP["memory"]["one"]["store"]
    assert add(conf, "one").startswith(store.url_prefix)


def test_prefix_of_the_locations_of_files(stores, conf):
    for identifier in ("one", "two"):
        store = location.SCHEME_TO_CLS_BACKEND_MAP["file"][identifier]["store"]
        assert store.url_prefix
        assert add(conf, identifier).startswith(store.url_prefix)


# -- access control lists


def test_set_acls_is_silent_where_there_are_none(stores, conf):
    url = add(conf, "one")
    call = glance_store.set_acls_for_multi_store
    assert call(url, "one", public=True, read_tenants=["a"], context=None) is None


def test_r12_r41_set_acls_neither_shares_nor_changes_lists(outside, create_multi, conf):
    create_multi({"one": "memory"})
    url = add(conf, "one")
    readers, writers = ["one"], ["two"]
    glance_store.set_acls_for_multi_store(url, "one", True, readers, writers, "the context")
    assert (readers, writers) == (["one"], ["two"])
    glance_store.set_acls_for_multi_store(url, "one")
    glance_store.set_acls_for_multi_store(url, "one")
    added = "added by the driver"
    seen = outside.ACLS
    assert seen == [
        (True, ["one", added], ["two", added], "the context"),
        (False, [added], [added], None),
        (False, [added], [added], None),
    ]
