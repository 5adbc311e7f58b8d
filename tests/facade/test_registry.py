# SPDX-License-Identifier: Apache-2.0
"""Loading drivers, creating stores, and finding them again."""

from __future__ import annotations

import io
import logging
import threading

import pytest
import stevedore.extension
from oslo_config import cfg

import glance_store
from glance_store import capabilities, exceptions, loading, location, registry

# The file driver is the only one of a reserved store.
RESERVED = {"os_glance_staging_store": "file"}


# -- creation


def test_unknown_driver_is_skipped_with_a_warning(conf, caplog):
    assert loading.load_store(conf, "no_such_driver", backend="one") is None
    assert "Store one is skipped: driver no_such_driver cannot be loaded" in caplog.text


def test_driver_itself_can_be_loaded(conf, outside):
    assert loading.load_store(conf, "memory", invoke_load=False) is outside.Store
    assert glance_store.backend._load_store(conf, "memory", invoke_load=False) is outside.Store
    assert outside.BUILT == []


def test_arguments_of_the_constructor(conf, outside):
    single = loading.load_store(conf, "memory")
    multi = loading.load_store(conf, "memory.by.function", backend="one")
    assert (single.conf, single.backend_group) == (conf, None)
    assert (multi.conf, multi.backend_group) == (conf, "one")
    assert outside.CONFIGURED == []


FAULTS = {
    "faulty.constructor": "not today",
    "faulty.crash": "driver faulty.crash cannot be loaded",
    "faulty.configure": "no host is set",
    "faulty.schemes": "driver faulty.schemes is incomplete",
    "faulty.library": "driver faulty.library cannot be loaded",
    "no_such_driver": "driver no_such_driver cannot be loaded",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_r3_r43_faulty_store_leaves_the_others_in_use(fault, outside, create_multi, conf, caplog):
    enabled = {"first": "memory", "wrong": fault, "last": "file"}
    # The two schemes of files, and one.
    assert create_multi(enabled, options={("glance_store", "default_backend"): "first"}) == 3
    glance_store.verify_store()
    url, size, _checksum, _multihash, metadata = glance_store.add_with_multihash(
        conf, "image", io.BytesIO(b"abc"), 3, "last", "sha256"
    )
    assert (size, metadata["store"]) == (3, "last")
    assert b"".join(glance_store.get(url, "last")[0]) == b"abc"
    assert FAULTS[fault] in registry.failures()["wrong"]
    assert set(registry.failures()) == {"wrong"}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(exceptions.UnknownScheme, match="wrong"):
        glance_store.get_store_from_store_identifier("wrong")
    assert glance_store.get_store_weight("wrong") == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_r3_r43_faulty_store_leaves_the_others_in_use_in_single_store_mode(
    fault, outside, create_single
):
    assert create_single([fault, "memory", "file"]) == 2
    assert set(glance_store.get_known_schemes()) == {"file", "filesystem", "memory"}
    assert FAULTS[fault] in registry.failures()[fault]
    with pytest.raises(exceptions.UnknownScheme):
        glance_store.get_store_from_scheme("faulty")


def test_driver_without_a_scheme_is_an_error(outside, create_multi):
    enabled = {"first": "memory", "wrong": "faulty.noscheme", "last": "memory"}
    with pytest.raises(exceptions.BackendException, match="wrong"):
        create_multi(enabled)
    assert set(location.SCHEME_TO_CLS_BACKEND_MAP["memory"]) == {"first", "last"}
    assert registry.failures() == {"wrong": "its driver has no URI scheme"}


def test_driver_without_a_scheme_is_an_error_in_single_store_mode(outside, create_single):
    with pytest.raises(exceptions.BackendException, match=r"faulty\.noscheme"):
        create_single(["faulty.noscheme", "memory"])
    assert list(glance_store.get_known_schemes()) == ["memory"]


def test_r2_store_that_cannot_write_stays_readable(outside, create_multi, conf, caplog):
    assert create_multi({"one": "faulty.readonly"}) == 1
    store = glance_store.get_store_from_store_identifier("one")
    assert store.is_capable(capabilities.BitMasks.READ_ACCESS)
    assert not store.is_capable(capabilities.BitMasks.WRITE_ACCESS)
    assert "the disk is gone" in store.configuration_error
    assert "the disk is gone" in caplog.text
    with pytest.raises(exceptions.StoreAddDisabled):
        glance_store.add(conf, "image", io.BytesIO(b"abc"), 3, "one")
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        glance_store.delete("faulty:x", "one")
    assert registry.failures() == {}


def test_failures_are_those_of_the_last_creation(outside, create_multi, conf):
    create_multi({"one": "faulty.constructor"})
    registry.failures().clear()
    assert set(registry.failures()) == {"one"}
    create_multi({"one": "memory"})
    assert registry.failures() == {}


def test_two_stores_on_one_place(create_multi, tmp_path, conf, caplog):
    place = str(tmp_path / "both")
    (tmp_path / "link").symlink_to("both")
    create_multi(
        {"one": "file", "two": "file", "three": "file"},
        options={
            ("one", "filesystem_store_datadir"): place,
            ("two", "filesystem_store_datadir"): str(tmp_path / "link"),
        },
    )
    writable = capabilities.BitMasks.WRITE_ACCESS
    assert [
        glance_store.get_store_from_store_identifier(name).is_capable(writable)
        for name in ("one", "two", "three")
    ] == [True, False, True]
    assert "already belongs to the store one" in caplog.text


def test_rebuilt_store_does_not_get_back_what_another_owns(outside, create_multi, monkeypatch):
    monkeypatch.setattr(
        outside.Store, "storage_ids", lambda store: {f"shelf {store.shelf}"}, raising=False
    )
    create_multi({"one": "memory", "two": "memory"})
    writable = capabilities.BitMasks.WRITE_ACCESS
    for _time in range(2):
        assert glance_store.get_store_from_store_identifier("one").is_capable(writable)
        assert not glance_store.get_store_from_store_identifier("two").is_capable(writable)


def test_store_without_storage_ids_is_left_alone(outside, create_multi, monkeypatch):
    # A driver that does not derive from the present base class.
    monkeypatch.setattr(outside.Store, "storage_ids", None, raising=False)
    assert create_multi({"one": "memory", "two": "memory"}) == 2


# -- look-up


def test_r40_store_that_is_not_reusable_is_rebuilt_at_each_look_up(outside, create_multi):
    create_multi({"one": "memory"})
    outside.BUILT.clear()
    outside.CONFIGURED.clear()
    first = glance_store.get_store_from_store_identifier("one")
    second = glance_store.get_store_from_store_identifier("one")
    assert first is not second
    assert location.SCHEME_TO_CLS_BACKEND_MAP["memory"]["one"]["store"] is second
    assert outside.BUILT == outside.CONFIGURED == ["one", "one"]
    assert second.shelf == "shelf"


def test_r40_store_that_is_not_reusable_is_rebuilt_in_single_store_mode(outside, create_single):
    create_single(["memory"])
    first = glance_store.get_store_from_scheme("memory")
    second = glance_store.get_store_from_scheme("memory")
    assert first is not second
    assert location.SCHEME_TO_CLS_MAP["memory"]["store"] is second
    assert outside.BUILT == outside.CONFIGURED == [None, None, None]


def test_r40_rebuilding_is_safe_in_threads(outside, create_multi):
    create_multi({"one": "memory"})
    outside.BUILT.clear()
    found = []

    def look_up():
        found.extend(glance_store.get_store_from_store_identifier("one") for _time in range(20))

    threads = [threading.Thread(target=look_up) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(store) for store in found}) == len(outside.BUILT) == 80
    assert all(store.shelf == "shelf" for store in found)


def test_reusable_store_is_the_same_at_each_look_up(create_multi, create_single):
    create_multi({"one": "file"})
    first = glance_store.get_store_from_store_identifier("one")
    assert glance_store.get_store_from_store_identifier("one") is first
    create_single(["file"])
    assert glance_store.get_store_from_scheme("file") is glance_store.get_store_from_scheme("file")


def test_driver_that_vanished_since_the_creation(outside, create_multi, monkeypatch):
    create_multi({"one": "memory"})
    monkeypatch.setattr(
        stevedore.extension.ExtensionManager, "ENTRY_POINT_CACHE", {loading.NAMESPACE: []}
    )
    with pytest.raises(exceptions.DriverLoadFailure, match="memory"):
        glance_store.get_store_from_store_identifier("one")


def test_r9_reading_a_weight_builds_nothing(outside, create_multi, conf):
    create_multi({"one": "memory"})
    conf.set_override("weight", 7, group="one")
    outside.BUILT.clear()
    outside.CONFIGURED.clear()
    assert glance_store.get_store_weight("one") == 7
    assert outside.BUILT == outside.CONFIGURED == []


def test_r44_equal_weights(create_multi, conf):
    create_multi({"one": "file", "two": "file"})
    for identifier in ("one", "two"):
        conf.set_override("weight", -3, group=identifier)
    assert glance_store.get_store_weight("one") == glance_store.get_store_weight("two") == -3


@pytest.mark.parametrize("identifier", ["nowhere", "", None])
def test_unknown_identifier(create_multi, identifier):
    create_multi({"one": "file"})
    for look_up in (glance_store.get_store_from_store_identifier, glance_store.get_store_weight):
        with pytest.raises(exceptions.UnknownScheme) as caught:
            look_up(identifier)
        assert "enabled_backends" in caught.value.msg


@pytest.mark.parametrize(
    "driver", ["vmware", "glance.store.filesystem.Store", "glance.store.vmware_datastore.Store"]
)
def test_r30_store_is_found_whatever_its_driver_is_called(create_multi, driver):
    create_multi({"one": driver, "two": "http"})
    store = glance_store.get_store_from_store_identifier("one")
    assert store.backend_group == "one"
    assert loading.load_store(store.conf, driver, invoke_load=False) is type(store)


def test_r31_store_that_failed_next_to_one_of_its_kind(outside, create_multi):
    create_multi({"one": "faulty.readonly", "two": "faulty.constructor"})
    assert glance_store.get_store_from_store_identifier("one")
    with pytest.raises(exceptions.UnknownScheme, match=r"two.*not today"):
        glance_store.get_store_from_store_identifier("two")


def test_store_that_is_enabled_but_was_not_created(create_multi, conf):
    create_multi({"one": "file"})
    conf.set_override("enabled_backends", {"one": "file", "two": "file"})
    with pytest.raises(exceptions.UnknownScheme, match=r"two.*is not loaded"):
        glance_store.get_store_from_store_identifier("two")


def test_stores_lists_those_that_are_loaded(outside, create_multi):
    create_multi({"one": "file", "wrong": "faulty.constructor"}, RESERVED)
    assert [(identifier, driver) for identifier, driver, _store in registry.stores()] == [
        ("one", "file"),
        ("os_glance_staging_store", "file"),
    ]
    assert [store.backend_group for _identifier, _driver, store in registry.stores()] == [
        "one",
        "os_glance_staging_store",
    ]


def test_candidates_begin_with_the_store_whose_prefix_fits(create_multi, tmp_path):
    create_multi({"one": "file", "two": "file", "web": "http"})
    assert registry.candidates(f"file://{tmp_path}/two/image") == ["two", "one"]
    assert registry.candidates(f"FILE://{tmp_path}/one/image") == ["one", "two"]
    assert registry.candidates(f"FILE://{tmp_path}/two/image") == ["two", "one"]
    assert registry.candidates("https://127.0.0.1/image") == ["web"]
    assert registry.candidates("rbd://image") == []


def test_active_conf(conf, create_multi):
    assert registry.active_conf() is cfg.CONF
    create_multi({"one": "file"})
    assert registry.active_conf() is conf


# -- the maps


@pytest.mark.parametrize("creation", ["before", "after"])
def test_maps_may_be_rebound(create_multi, create_single, creation):
    if creation == "after":
        create_multi({"one": "file"})
        create_single(["file"])
    location.SCHEME_TO_CLS_MAP = {}
    location.SCHEME_TO_CLS_BACKEND_MAP = {}
    assert list(glance_store.get_known_schemes()) == []
    assert list(glance_store.get_known_schemes_for_multi_store()) == []
    create_multi({"one": "file"})
    create_single(["file"])
    for known in (
        glance_store.get_known_schemes(),
        glance_store.get_known_schemes_for_multi_store(),
    ):
        assert set(known) == {"file", "filesystem"}
    assert type(location.SCHEME_TO_CLS_BACKEND_MAP) is dict
    entry = location.SCHEME_TO_CLS_BACKEND_MAP["file"]["one"]
    assert set(entry) == {"store", "location_class", "store_entry"}
    assert entry["store_entry"] == "file"
    assert entry["location_class"] is entry["store"].get_store_location_class()
    assert set(location.SCHEME_TO_CLS_MAP["file"]) == set(entry)
