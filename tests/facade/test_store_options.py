# SPDX-License-Identifier: Apache-2.0
"""Where the options of stores come from, and the reserved stores."""

from __future__ import annotations

import hashlib
import io

import pytest
from oslo_config import cfg

import glance_store
from glance_store import capabilities, exceptions, location, registry
from glance_store._drivers.filesystem import options as file_options

DATA = b"the bytes of an image" * 1000
MD5 = hashlib.md5(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()
RESERVED = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}


@pytest.fixture
def stores(create_multi, conf):
    count = create_multi(
        {"one": "file", "two": "file", "web": "http"},
        options={("glance_store", "default_backend"): "one"},
    )
    assert count == 6


def add(conf, identifier, image_id="image", data=DATA):
    return glance_store.add(conf, image_id, io.BytesIO(data), len(data), identifier)[0]


# -- where options come from


def test_r10_fallback_of_options(tmp_path):
    path = tmp_path / "service.conf"
    path.write_text(
        f"""
[DEFAULT]
enabled_backends = one:file, two:file, three:file

[glance_store]
default_backend = one
filesystem_store_chunk_size = 1

[backend_defaults]
filesystem_store_chunk_size = 2222
filesystem_thin_provisioning = true

[one]
filesystem_store_datadir = {tmp_path}/one
filesystem_store_chunk_size = 1111

[two]
filesystem_store_datadir = {tmp_path}/two
filesystem_thin_provisioning = false
weight = 5

[three]
filesystem_store_datadir = {tmp_path}/three
store_description = the third
"""
    )
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    conf([], default_config_files=[str(path)], default_config_dirs=[])
    glance_store.register_store_opts(conf)
    assert glance_store.create_multi_stores(conf) == 6
    glance_store.verify_store()
    found = {
        identifier: (store.chunk_size, store.thin_provisioning, store.weight)
        for identifier, _driver, store in registry.stores()
    }
    assert found == {"one": (1111, True, 0), "two": (2222, False, 5), "three": (2222, True, 0)}
    assert conf.three.store_description == "the third"
    # The value of the group alone does not know the other places.
    assert conf.two.filesystem_store_chunk_size is None


def test_r11_reading_works_with_all_options_unset(stores, conf):
    url = add(conf, "one")
    assert conf.one.filesystem_store_chunk_size is None
    assert b"".join(glance_store.get(url, "one")[0]) == DATA
    assert b"".join(glance_store.get(url, "one", offset=1, chunk_size=2)[0]) == DATA[1:3]


def test_configuration_of_the_process_stays_clean(stores, conf):
    groups = {"one", "two", "web", "backend_defaults"}
    assert groups <= set(conf._groups)
    assert not groups & set(cfg.CONF._groups)
    assert "enabled_backends" not in cfg.CONF


# -- reserved stores


@pytest.fixture
def reserved(create_multi, conf):
    conf.register_opts(file_options.OPTIONS, group="backend_defaults")
    conf.set_override("filesystem_store_chunk_size", 1234, group="backend_defaults")
    conf.set_override("filesystem_thin_provisioning", True, group="backend_defaults")
    conf.set_override("filesystem_store_timeout", 99, group="backend_defaults")
    assert create_multi({"one": "file"}, RESERVED) == 6


@pytest.mark.parametrize("identifier", RESERVED)
def test_r27_reserved_stores_work_with_any_configuration(reserved, conf, identifier, tmp_path):
    url = add(conf, identifier)
    assert url == f"file://{tmp_path}/{identifier}/image"
    assert b"".join(glance_store.get(url, identifier)[0]) == DATA
    loc = location.get_location_from_uri_and_backend(url, identifier)
    store = glance_store.get_store_from_store_identifier(identifier)
    result = store.add("other", io.BytesIO(DATA), 0)
    assert result[1:] == (len(DATA), MD5, {"store": identifier})
    store.delete(loc)
    with pytest.raises(exceptions.NotFound):
        glance_store.get(url, identifier)


@pytest.mark.parametrize("identifier", RESERVED)
def test_r27_options_of_reserved_stores_are_readable_as_they_are(reserved, conf, identifier):
    conf.clear_override("filesystem_store_datadir", group=identifier)
    group = conf[identifier]
    # The image service reads this one by its full name.
    assert group.filesystem_store_datadir == f"/var/lib/glance/{identifier}"
    assert group.filesystem_store_chunk_size == 65536
    assert group.filesystem_thin_provisioning is False
    assert group.filesystem_store_file_perm == 0
    assert group.filesystem_store_timeout == 0
    assert group.filesystem_store_datadirs is None
    assert group.weight == 0
    for opt in file_options.OPTIONS:
        if opt.default is not None:
            assert getattr(group, opt.dest) is not None, opt.dest


@pytest.mark.parametrize("identifier", RESERVED)
def test_r27_reserved_stores_take_nothing_from_the_shared_group(reserved, conf, identifier):
    store = glance_store.get_store_from_store_identifier(identifier)
    assert (store.chunk_size, store.thin_provisioning) == (65536, False)
    assert store.store_conf.filesystem_store_timeout == 0
    other = glance_store.get_store_from_store_identifier("one")
    assert (other.chunk_size, other.thin_provisioning) == (1234, True)
    assert other.store_conf.filesystem_store_timeout == 99


def test_reserved_stores_are_remembered(reserved, conf):
    location.SCHEME_TO_CLS_BACKEND_MAP = {}
    glance_store.create_multi_stores(conf)
    assert glance_store.get_store_from_store_identifier("os_glance_tasks_store")
    assert glance_store.get_store_weight("os_glance_tasks_store") == 0


def test_reserved_stores_are_searched(reserved, conf):
    url = add(conf, "os_glance_staging_store")
    glance_store.delete(url, None)
    with pytest.raises(exceptions.NotFound):
        glance_store.get(url, "os_glance_staging_store")


def test_caller_keeps_its_dictionary(create_multi, conf):
    given = dict(RESERVED)
    create_multi({"one": "file"}, given)
    assert given == RESERVED
    given.clear()
    assert glance_store.get_store_from_store_identifier("os_glance_tasks_store")


def test_reserved_store_of_a_configuration_file(tmp_path):
    path = tmp_path / "service.conf"
    path.write_text(
        f"[DEFAULT]\nenabled_backends = one:file\n"
        f"[one]\nfilesystem_store_datadir = {tmp_path}/one\n"
        f"[os_glance_staging_store]\nfilesystem_store_datadir = {tmp_path}/staging\n"
    )
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    conf([], default_config_files=[str(path)], default_config_dirs=[])
    reserved = {"os_glance_staging_store": "file"}
    glance_store.register_store_opts(conf, reserved)
    assert glance_store.create_multi_stores(conf, reserved) == 4
    assert conf.os_glance_staging_store.filesystem_store_datadir == f"{tmp_path}/staging"
    assert add(conf, "os_glance_staging_store") == f"file://{tmp_path}/staging/image"


def test_store_is_writable_unless_something_is_wrong(reserved):
    writable = capabilities.BitMasks.WRITE_ACCESS
    assert all(store.is_capable(writable) for _name, _driver, store in registry.stores())
