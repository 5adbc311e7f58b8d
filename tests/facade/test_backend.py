# SPDX-License-Identifier: Apache-2.0
"""The functions of single-store mode, on real drivers."""

from __future__ import annotations

import hashlib
import io
import warnings

import pytest
from oslo_config import cfg

import glance_store
from glance_store import backend, exceptions, location, registry

DATA = b"the bytes of an image" * 1000
MD5 = hashlib.md5(DATA).hexdigest()
SHA256 = hashlib.sha256(DATA).hexdigest()


class Recorder:
    """Stands for a store where only the form of the call matters."""

    def __init__(self, result):
        self.result = result
        self.calls = []

    def add(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return self.result


class Verifier:
    def __init__(self):
        self.data = b""

    def update(self, data):
        self.data += bytes(data)


@pytest.fixture
def stores(create_single):
    assert create_single(["file", "http"]) == 2


# -- creation


def test_count_is_that_of_the_entries(create_single):
    assert create_single(["file", "http", "file"]) == 2
    assert set(glance_store.get_known_schemes()) == {"file", "filesystem", "http", "https"}


def test_creation_twice_in_a_row(create_single):
    assert create_single(["file"]) == 1
    first = glance_store.get_store_from_scheme("file")
    assert create_single(["file"]) == 1
    assert glance_store.get_store_from_scheme("file") is not first


def test_stores_of_an_earlier_configuration_are_forgotten(create_single):
    create_single(["file", "http"])
    create_single(["file", "nowhere"])
    assert list(glance_store.get_known_schemes()) == ["file", "filesystem"]
    with pytest.raises(exceptions.UnknownScheme):
        glance_store.get_size_from_backend("http://127.0.0.1:1/image")


def test_no_stores(create_single):
    assert create_single([]) == 0
    assert list(glance_store.get_known_schemes()) == []


def test_both_names_of_a_driver(create_single):
    assert create_single(["file", "glance.store.filesystem.Store"]) == 2


def test_process_wide_configuration(process_conf, create_single, tmp_path):
    assert create_single(["file"], conf=process_conf) == 1
    assert glance_store.create_stores() == 1
    assert registry.active_conf() is cfg.CONF
    glance_store.verify_default_store()
    url, *_rest = glance_store.add_to_backend(cfg.CONF, "image", io.BytesIO(DATA), len(DATA))
    assert url == f"file://{tmp_path}/image"


def test_option_of_stores_is_kept_by_driver_that_is_not_loaded(create_single, conf):
    create_single(["http"])
    assert conf.glance_store.swift_store_container == "glance"


def test_default_store_is_verified(stores, conf):
    glance_store.verify_default_store()
    conf.set_override("default_store", "rbd", group="glance_store")
    with pytest.raises(RuntimeError, match="rbd"):
        glance_store.verify_default_store()


def test_r34_default_store_is_that_of_the_configuration_in_use(create_single, process_conf):
    glance_store.register_opts(process_conf)
    process_conf.set_override("default_store", "rbd", group="glance_store")
    create_single(["file"], {"default_store": "filesystem"})
    glance_store.verify_default_store()


# -- look-up


def test_store_from_uri(stores):
    store = glance_store.get_store_from_scheme("file")
    assert glance_store.get_store_from_uri("file:///a/b") is store
    assert glance_store.get_store_from_uri("file:/a/b") is store
    assert glance_store.get_store_from_uri("filesystem:///a") is store
    assert glance_store.get_store_from_uri("FILE:///a") is store
    assert glance_store.get_store_from_location("filesystem:///a/b") == "filesystem"
    assert glance_store.get_store_from_location("https://host/b") == "https"


@pytest.mark.parametrize("uri", ["rbd://image", "/a/b", "", "rbd", "FILE ://x"])
def test_unknown_scheme(stores, uri):
    for function in (
        glance_store.get_store_from_uri,
        glance_store.get_from_backend,
        glance_store.get_size_from_backend,
        glance_store.delete_from_backend,
        glance_store.get_store_from_location,
        glance_store.set_acls,
    ):
        with pytest.raises(exceptions.UnknownScheme):
            function(uri)


@pytest.mark.parametrize("uri", ["file://[half", "http://user:secret@host:port/x"])
def test_malformed_uri(stores, uri):
    for function in (
        glance_store.get_from_backend,
        glance_store.get_size_from_backend,
        glance_store.delete_from_backend,
        glance_store.get_store_from_location,
        glance_store.set_acls,
    ):
        with pytest.raises(exceptions.BadStoreUri) as caught:
            function(uri)
        assert "secret" not in str(caught.value)


# -- images


def test_life_of_an_image(stores, conf, tmp_path):
    verifier = Verifier()
    result = glance_store.add_to_backend_with_multihash(
        conf, "image", io.BytesIO(DATA), len(DATA), "sha256", context=None, verifier=verifier
    )
    url = f"file://{tmp_path}/image"
    # No key "store": there are no identifiers in this mode.
    assert result == (url, len(DATA), MD5, SHA256, {})
    assert verifier.data == DATA
    data, size = glance_store.get_from_backend(url)
    assert (b"".join(data), size) == (DATA, len(DATA))
    data, size = glance_store.get_from_backend(url, 10, 20, None)
    assert (b"".join(data), size) == (DATA[10:30], 20)
    data, size = glance_store.get_from_backend(url, offset=5)
    assert b"".join(data) == DATA[5:]
    assert glance_store.get_size_from_backend(url) == len(DATA)
    assert glance_store.get_size_from_backend(url, context=None) == len(DATA)
    assert glance_store.delete_from_backend(url, None) is None
    for function in (
        glance_store.get_from_backend,
        glance_store.get_size_from_backend,
        glance_store.delete_from_backend,
    ):
        with pytest.raises(exceptions.NotFound):
            function(url)


def test_r8_single_store_mode_has_no_store_in_the_metadata(stores, conf, tmp_path):
    result = glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), len(DATA))
    assert result == (f"file://{tmp_path}/image", len(DATA), MD5, {})


def test_size_may_be_unknown(stores, conf):
    result = glance_store.add_to_backend(conf, "image", iter([DATA[:7], DATA[7:]]), 0, "file")
    assert result[1:3] == (len(DATA), MD5)


@pytest.mark.parametrize("scheme", ["rbd", "swift"])
def test_add_to_an_unknown_scheme(stores, conf, scheme):
    with pytest.raises(exceptions.UnknownScheme, match=scheme):
        glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), 0, scheme=scheme)


def test_add_to_a_store_that_only_reads(stores, conf):
    source = io.BytesIO(DATA)
    for call in (
        lambda: glance_store.add_to_backend(conf, "image", source, len(DATA), "http"),
        lambda: glance_store.add_to_backend_with_multihash(
            conf, "image", source, len(DATA), "sha256", "http"
        ),
    ):
        with pytest.raises(exceptions.StoreAddDisabled):
            call()
    assert source.tell() == 0
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        glance_store.delete_from_backend("http://127.0.0.1/image")


@pytest.mark.parametrize("said", [len(DATA) - 1, len(DATA) + 1])
def test_r23_other_size_than_announced(stores, conf, tmp_path, said):
    with pytest.raises(exceptions.Invalid):
        glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["1; rm -rf /", "text", -1, [1]])
def test_r18_size_that_is_no_size(stores, conf, tmp_path, size):
    source = io.BytesIO(DATA)
    with pytest.raises(exceptions.Invalid):
        glance_store.add_to_backend(conf, "image", source, size)
    assert source.tell() == 0
    assert list(tmp_path.iterdir()) == []


def test_r13_metadata_file_is_validated_at_configuration(create_single, conf, tmp_path):
    metadata = tmp_path / "metadata.json"
    metadata.write_text('{"id": "share", "mountpoint": 5}')
    create_single(["file"], {"filesystem_store_metadata_file": str(metadata)})
    with pytest.raises(exceptions.StoreAddDisabled):
        glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), len(DATA))


def test_r17_use_leaves_the_filters_of_warnings_alone(create_single, conf):
    before = list(warnings.filters)
    create_single(["file", "http"])
    url = glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), len(DATA))[0]
    b"".join(glance_store.get_from_backend(url)[0])
    glance_store.delete_from_backend(url)
    assert warnings.filters == before


# -- the driver of another distribution


def test_outside_driver(outside, create_single, conf):
    assert create_single(["memory"]) == 1
    result = glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), len(DATA), "memory")
    assert result == ("memory://shelf/image", len(DATA), MD5, {"shelf": "shelf"})
    result = glance_store.add_to_backend_with_multihash(
        conf, "other", io.BytesIO(DATA), 0, "sha256", "memory"
    )
    assert result == ("memory://shelf/other", len(DATA), MD5, SHA256, {"shelf": "shelf"})
    chunks, size = glance_store.get_from_backend("memory://shelf/image")
    assert isinstance(chunks, outside.Chunks)
    assert isinstance(chunks, glance_store.Indexable)
    assert (b"".join(chunks), size) == (DATA, len(DATA))
    assert glance_store.get_size_from_backend("memory://shelf/image") == len(DATA)
    with pytest.raises(exceptions.StoreRandomGetNotSupported):
        glance_store.get_from_backend("memory://shelf/image", offset=1)
    with pytest.raises(exceptions.StoreRandomGetNotSupported):
        glance_store.get_from_backend("memory://shelf/image", chunk_size=1)
    with pytest.raises(exceptions.Duplicate):
        glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), 0, "memory")
    glance_store.delete_from_backend("memory://shelf/image")
    with pytest.raises(exceptions.NotFound):
        glance_store.get_from_backend("memory://shelf/image")
    assert set(outside.IMAGES) == {("shelf", "other")}


def test_r34_locations_have_the_configuration_in_use(outside, create_single, conf):
    create_single(["memory"])
    url = glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), 0, "memory")[0]
    glance_store.get_from_backend(url)
    glance_store.get_size_from_backend(url)
    glance_store.get_store_from_location(url)
    glance_store.set_acls(url)
    glance_store.delete_from_backend(url)
    seen = outside.PARSED
    assert seen == [(conf, None)] * 5


def test_outside_driver_reads_its_options_from_the_common_group(outside, create_single, conf):
    create_single(["memory"], {"memory_shelf": "top"})
    url = glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), 0, "memory")[0]
    assert url == "memory://top/image"


# -- access control lists


def test_set_acls_is_silent_where_there_are_none(stores, conf):
    url = glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), len(DATA))[0]
    assert glance_store.set_acls(url, public=True, read_tenants=["one"], context=None) is None


def test_r12_r41_set_acls_neither_shares_nor_changes_lists(outside, create_single, conf):
    create_single(["memory"])
    url = glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), 0, "memory")[0]
    readers, writers = ["one"], ["two"]
    glance_store.set_acls(url, True, readers, writers, "the context")
    assert (readers, writers) == (["one"], ["two"])
    glance_store.set_acls(url)
    glance_store.set_acls(url, read_tenants=None)
    added = "added by the driver"
    seen = outside.ACLS
    assert seen == [
        (True, ["one", added], ["two", added], "the context"),
        (False, [added], [added], None),
        (False, [added], [added], None),
    ]


def test_set_acls_of_a_missing_image(outside, create_single):
    create_single(["memory"])
    with pytest.raises(exceptions.NotFound):
        glance_store.set_acls("memory://shelf/nothing")


# -- what the image service does with a store of its own making


def test_store_without_the_registry(conf, tmp_path):
    backend.register_opts(conf)
    conf.set_override("filesystem_store_datadir", str(tmp_path), group="glance_store")
    store = backend._load_store(conf, "file")
    store.configure()
    url, size, checksum, metadata = store.add("image", io.BytesIO(DATA), 0)
    assert (size, checksum, metadata) == (len(DATA), MD5, {})
    assert store.add("other", io.BytesIO(DATA), len(DATA), context=None)[0].endswith("/other")
    loc = location.Location(
        "file", store.get_store_location_class(), conf, uri=f"file://{tmp_path}/image"
    )
    store.delete(loc)
    assert url == loc.get_store_uri()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    # Nothing of it is known to the registry.
    assert location.SCHEME_TO_CLS_MAP == {}
    assert registry.active_conf() is cfg.CONF


def test_load_store_of_an_unknown_driver(conf):
    assert backend._load_store(conf, "no_such_driver") is None


# -- calling a given store


def test_form_of_the_call_of_add():
    store = Recorder(("url", 1, "md5", {}))
    assert backend.store_add_to_backend("id", "data", 1, store, "context", "verifier") == (
        "url",
        1,
        "md5",
        {},
    )
    backend.store_add_to_backend("id", "data", 1, store)
    assert store.calls == [
        (("id", "data", 1), {"context": "context", "verifier": "verifier"}),
        (("id", "data", 1), {"context": None, "verifier": None}),
    ]


def test_r6_form_of_the_call_of_add_with_multihash():
    store = Recorder(("url", 1, "md5", "multihash", None))
    result = backend.store_add_to_backend_with_multihash(
        "id", "data", 1, "sha256", store, context="context", verifier="verifier"
    )
    assert result == ("url", 1, "md5", "multihash", None)
    assert store.calls == [
        (("id", "data", 1, "sha256"), {"context": "context", "verifier": "verifier"})
    ]


@pytest.mark.parametrize("algorithm", ["nohash", "", None, 5, ["sha512"]])
def test_unknown_hash_is_refused_before_anything_is_read(algorithm):
    store = Recorder(None)
    with pytest.raises(exceptions.UnknownHashingAlgo):
        backend.store_add_to_backend_with_multihash("id", "data", 1, algorithm, store)
    assert store.calls == []


def test_hash_without_a_length_is_refused_before_anything_is_read(stores, conf):
    source = io.BytesIO(DATA)
    with pytest.raises(exceptions.UnknownHashingAlgo, match="shake_128"):
        glance_store.add_to_backend_with_multihash(conf, "image", source, 0, "shake_128")
    assert source.tell() == 0


GOOD = [None, {}, {"a": "b"}, {"a": {"b": ["c", {"d": "e"}]}}, {"a": []}]
BAD = [
    [],
    ["a"],
    "text",
    1,
    {"a": 1},
    {"a": None},
    {"a": b"bytes"},
    {"a": True},
    {"a": ["b", 1]},
    {"a": {"b": [{"c": None}]}},
    {"a": ("b",)},
]


@pytest.mark.parametrize("metadata", GOOD)
def test_metadata_that_can_be_kept(metadata):
    assert backend.store_add_to_backend("id", None, 0, Recorder(("url", 0, "m", metadata)))
    assert backend.store_add_to_backend_with_multihash(
        "id", None, 0, "md5", Recorder(("url", 0, "m", "h", metadata))
    )


@pytest.mark.parametrize("metadata", BAD)
def test_metadata_that_cannot_be_kept(metadata):
    with pytest.raises(exceptions.BackendException):
        backend.store_add_to_backend("id", None, 0, Recorder(("url", 0, "m", metadata)))
    with pytest.raises(exceptions.BackendException):
        backend.store_add_to_backend_with_multihash(
            "id", None, 0, "md5", Recorder(("url", 0, "m", "h", metadata))
        )


def test_metadata_of_a_driver_is_checked(outside, create_single, conf):
    create_single(["faulty.metadata"])
    with pytest.raises(exceptions.BackendException, match="NoneType at a"):
        glance_store.add_to_backend(conf, "id", {"a": None}, 0, "faulty")
    assert glance_store.add_to_backend(conf, "id", {"a": "b"}, 0, "faulty")[3] == {"a": "b"}


@pytest.mark.parametrize("value", ["text", "", {}, [], ["a", ["b"]], {"a": {"b": "c"}}])
def test_location_metadata(value):
    assert glance_store.check_location_metadata(value) is None


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (None, "its top"),
        (1, "its top"),
        (b"a", "its top"),
        ({"a": 1}, "at a"),
        ({"a": {"b": [None]}}, r"at a\.b\[0\]"),
        ({1: {2: 3}}, r"at 1\.2"),
        (["a", 1.5], r"at \[1\]"),
    ],
)
def test_location_metadata_of_other_types(value, where):
    with pytest.raises(exceptions.BackendException, match=where):
        glance_store.check_location_metadata(value)
    with pytest.raises(exceptions.BackendException, match="at key"):
        glance_store.check_location_metadata(value, key="key")


# -- Indexable


class Chunks(glance_store.Indexable):
    def another(self):
        return next(self.wrapped, b"")


class WithLength(io.BytesIO):
    len = 7


def test_indexable():
    chunks = Chunks(iter([b"abc", b"defg", b"h"]), "8")
    assert (chunks.size, chunks.cursor, chunks.chunk, len(chunks)) == (8, 0, None, 8)
    assert chunks[0] == b"abc"
    assert (chunks.cursor, chunks.chunk) == (3, b"abc")
    assert chunks[1] == b"bc"
    assert chunks[1:] == b"bc"
    assert chunks[3:] == b"defg"
    assert chunks[5:] == b"fg"
    assert chunks[7:] == b"h"
    assert chunks[8:] == b""
    assert chunks[8:] == b""
    assert chunks.cursor == 8


def test_indexable_slice_without_a_start():
    chunks = Chunks(iter([b"abc"]), 3)
    assert chunks[:] == b"abc"
    assert chunks[:] == b"abc"


def test_indexable_slice_with_an_end():
    with pytest.raises(IndexError):
        Chunks(iter([b"abc"]), 3)[0:2]


def test_r16_indexable_is_iterated_once_to_its_clean_end():
    chunks = Chunks(iter([b"abc", b"d"]), 4)
    assert list(chunks) == [b"abc", b"d"]
    assert list(chunks) == []


def test_indexable_size():
    assert len(glance_store.Indexable(WithLength(), 0)) == 7
    assert len(glance_store.Indexable(WithLength(), None)) == 7
    assert len(glance_store.Indexable(WithLength(), 3)) == 3
    assert len(glance_store.Indexable(io.BytesIO(), 0)) == 0
    assert not glance_store.Indexable(io.BytesIO(), 0)


def test_indexable_delegates_getvalue():
    assert glance_store.Indexable(io.BytesIO(b"abc"), 3).getvalue() == b"abc"


def test_indexable_base_has_no_chunks():
    with pytest.raises(NotImplementedError):
        glance_store.Indexable(iter([]), 3)[0]
