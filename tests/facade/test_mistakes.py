# SPDX-License-Identifier: Apache-2.0
"""One store's mistake stops that store alone, and says its group, the option and the value."""

from __future__ import annotations

import io
import logging

import pytest
from oslo_config import cfg

import glance_store
from glance_store import exceptions, registry

DATA = b"the bytes of an image"


@pytest.fixture
def service(tmp_path, caplog):
    """Return a function that sets up the stores of a configuration file, as a service does."""

    def start(enabled, text, register=glance_store.register_store_opts):
        path = tmp_path / "service.conf"
        path.write_text(
            f"[DEFAULT]\nenabled_backends = {enabled}\n"
            "[glance_store]\ndefault_backend = good\n"
            f"[good]\nfilesystem_store_datadir = {tmp_path}/good\n{text}"
        )
        conf = cfg.ConfigOpts()
        conf.register_opt(cfg.DictOpt("enabled_backends"))
        conf([], default_config_files=[str(path)], default_config_dirs=[])
        register(conf)
        caplog.clear()
        glance_store.create_multi_stores(conf)
        return conf

    return start


def errors(caplog):
    ours = [record for record in caplog.records if record.name.startswith("glance_store")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


MISTAKES = {
    "web:http": (
        "[bad]\nhttps_insecure = maybe\n",
        "[bad] https_insecure = maybe is not valid: Unexpected boolean value 'maybe'",
    ),
    "a number:file": (
        "[bad]\nfilesystem_store_datadir = {tmp_path}/bad\nfilesystem_store_chunk_size = 64k\n",
        (
            "[bad] filesystem_store_chunk_size = 64k is not valid: "
            "invalid literal for int() with base 10: '64k'"
        ),
    ),
    "too small:http": (
        "[bad]\nhttp_store_read_timeout = 0\n",
        "[bad] http_store_read_timeout = 0 is not valid: Should be greater than or equal to 1",
    ),
    "weight:file": (
        "[bad]\nfilesystem_store_datadir = {tmp_path}/bad\nweight = high\n",
        "[bad] weight = high is not valid: invalid literal for int() with base 10: 'high'",
    ),
    "several:http": (
        "[bad]\nhttps_insecure = maybe\nweight = high\n",
        (
            "[bad] https_insecure = maybe is not valid: Unexpected boolean value 'maybe'; "
            "[bad] weight = high is not valid: invalid literal for int() with base 10: 'high'"
        ),
    ),
    "shared:http": (
        "[backend_defaults]\nhttps_insecure = maybe\n",
        "[backend_defaults] https_insecure = maybe is not valid: Unexpected boolean value 'maybe'",
    ),
    "choice:swift": (
        "[bad]\nswift_store_multi_tenant = sometimes\n",
        (
            "[bad] swift_store_multi_tenant = sometimes is not valid: "
            "Unexpected boolean value 'sometimes'"
        ),
    ),
    "secret:http": (
        "[bad]\nhttp_proxy_information = user-and-hunter2\n",
        "[bad] http_proxy_information = *** is not valid: its value cannot be understood",
    ),
    "a dollar sign:file": (
        "[bad]\nfilesystem_store_datadir = /images/big$fast\n",
        (
            "[bad] filesystem_store_datadir = /images/big$fast is not valid: no such option fast "
            "in group [DEFAULT]; a $ that is not a reference is written $$"
        ),
    ),
    "a dollar sign in a secret:s3": (
        "[bad]\ns3_store_secret_key = hunter2$hunter2\n",
        "[bad] s3_store_secret_key = *** is not valid: a $ that is not a reference is written $$",
    ),
    "a reference to itself:file": (
        "[bad]\nfilesystem_store_datadir = $filesystem_store_datadir/bad\n",
        (
            "[bad] filesystem_store_datadir = $filesystem_store_datadir/bad is not valid: it "
            "refers to itself; a $ that is not a reference is written $$"
        ),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_value_stops_its_store_alone(mistake, service, caplog, tmp_path):
    driver = mistake.partition(":")[2]
    text, expected = MISTAKES[mistake]
    conf = service(f"bad:{driver}, good:file", text.format(tmp_path=tmp_path))
    assert errors(caplog) == [
        f"Store bad is skipped; the others stay in use: {expected}",
    ]
    assert registry.failures() == {"bad": expected}
    glance_store.verify_store()
    url = glance_store.add(conf, "image", io.BytesIO(DATA), len(DATA), "good")[0]
    assert b"".join(glance_store.get(url, None)[0]) == DATA
    with pytest.raises(exceptions.UnknownScheme, match="bad"):
        glance_store.add(conf, "image", io.BytesIO(DATA), len(DATA), "bad")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_image_service_can_read_all_options_of_a_store_that_failed(
    mistake, service, tmp_path, caplog
):
    driver = mistake.partition(":")[2]
    text = MISTAKES[mistake][0].format(tmp_path=tmp_path)
    conf = service(
        f"bad:{driver}, good:file", text.replace("[bad]", "[bad]\nstore_description = a web")
    )
    assert conf.bad.store_description == ("a web" if "[bad]" in text else None)
    assert conf.bad.weight == glance_store.get_store_weight("bad") == 0
    # As a service does that logs its options.
    conf.log_opt_values(logging.getLogger(), logging.DEBUG)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("driver", "saved"), [("file", True), ("http", True), ("swift", False), ("nowhere", False)]
)
def test_image_of_a_store_that_failed_can_be_saved(service, driver, saved):
    """Image services set access control lists whenever they save an image."""
    service(f"bad:{driver}, good:file", "[bad]\nweight = high\n")
    for uri in ("file:///images/x", "swift+http://a:b@c/d/x"):
        if saved:
            glance_store.set_acls_for_multi_store(uri, "bad", public=True)
        else:
            # Lists that are not set would let somebody in, or keep somebody out.
            with pytest.raises(exceptions.UnknownScheme):
                glance_store.set_acls_for_multi_store(uri, "bad", public=True)
    with pytest.raises(exceptions.UnknownScheme):
        glance_store.set_acls_for_multi_store("file:///images/x", "another", public=True)


def test_value_of_the_store_hides_a_bad_one_that_is_shared(service):
    service(
        "web:http, other:http, good:file",
        "[web]\nhttps_insecure = false\n[backend_defaults]\nhttps_insecure = maybe\n",
    )
    assert set(registry.failures()) == {"other"}


def test_driver_that_is_not_installed(service, caplog):
    conf = service("bad:fille, good:file", "[bad]\nstore_description = typo\nweight = high\n")
    (line,) = errors(caplog)
    assert "[DEFAULT] enabled_backends names bad:fille, but there is no such driver" in line
    assert "installed drivers: cinder, file, http, rbd, s3, swift, vmware" in line
    assert "[bad] weight = high is not valid" in line
    assert conf.bad.store_description == "typo"
    assert (conf.bad.weight, glance_store.get_store_weight("bad")) == (0, 0)


def test_driver_that_is_not_installed_in_single_store_mode(create_single):
    assert create_single(["fille", "file"]) == 1
    assert "[glance_store] stores names fille, but there is no such" in registry.failures()["fille"]


def test_bad_value_in_single_store_mode(tmp_path, caplog):
    path = tmp_path / "service.conf"
    path.write_text(
        f"[glance_store]\nstores = file, http\nfilesystem_store_datadir = {tmp_path}/images\n"
        "https_insecure = maybe\n"
    )
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[str(path)], default_config_dirs=[])
    glance_store.register_opts(conf)
    assert glance_store.create_stores(conf) == 1
    expected = (
        "[glance_store] https_insecure = maybe is not valid: Unexpected boolean value 'maybe'"
    )
    assert registry.failures() == {"http": expected}
    assert errors(caplog) == [f"Store http is skipped; the others stay in use: {expected}"]


def test_value_from_the_environment(service, monkeypatch):
    monkeypatch.setenv("OS_BAD__HTTPS_INSECURE", "maybe")
    service("bad:http, good:file", "")
    assert "Unexpected boolean value 'maybe'" in registry.failures()["bad"]


def test_option_that_was_set_aside_is_read_again(service, tmp_path):
    conf = service("bad:http, good:file", "[bad]\nweight = high\n")
    assert set(registry.failures()) == {"bad"}
    path = tmp_path / "service.conf"
    path.write_text(path.read_text().replace("weight = high", "weight = 5"))
    conf.reload_config_files()
    glance_store.create_multi_stores(conf)
    assert registry.failures() == {}
    assert glance_store.get_store_weight("bad") == conf.bad.weight == 5


WORDS = ["project", "items", "keys", "get", "values", "config_file", "prog", "import_opt", "conf"]


@pytest.mark.parametrize("identifier", WORDS)
@pytest.mark.parametrize("driver", ["file", "http", "s3", "swift", "rbd", "cinder"])
def test_identifier_may_be_any_word(identifier, driver, service, tmp_path, monkeypatch):
    service(
        f"{identifier}:{driver}, good:file",
        f"[{identifier}]\nweight = 3\nfilesystem_store_datadir = {tmp_path}/images\n"
        "swift_store_auth_address = http://127.0.0.1:9/v3\n"
        f"rados_connect_timeout = 1\nrbd_store_ceph_conf = {tmp_path}/none.conf\n",
    )
    assert registry.failures() == {}
    assert glance_store.get_store_weight(identifier) == 3
    store = glance_store.get_store_from_store_identifier(identifier)
    assert store.store_conf.weight == 3


def test_outside_driver_whose_configuration_fails_in_its_own_way(outside, create_multi, caplog):
    import outside_driver

    def crash(self):
        raise ZeroDivisionError("divided\nby zero")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outside_driver.Store, "configure_add", crash)
        assert create_multi({"bad": "memory", "good": "file"}) == 2
    assert registry.failures() == {
        "bad": "driver memory failed: ZeroDivisionError: divided by zero"
    }


FAULTS = {
    "no location class": ("store_location_class", None),
    "no schemes": ("get_schemes", lambda self: None),
    "no option": ("OPTIONS", ["memory_shelf"]),
    "no options": ("OPTIONS", property(lambda self: ["memory_shelf"])),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_outside_driver_that_is_not_made_as_drivers_are(fault, outside, create_multi, monkeypatch):
    import outside_driver

    name, value = FAULTS[fault]
    monkeypatch.setattr(outside_driver.Store, name, value, raising=False)
    if value is None:
        monkeypatch.delattr(outside_driver, "StoreLocation")
    assert create_multi({"bad": "memory", "good": "file"}) == 2
    assert list(registry.failures()) == ["bad"]
    glance_store.register_opts(cfg.ConfigOpts())


EMPTY = "filesystem_store_chunk_size =\nfilesystem_store_timeout =\n"


def test_empty_value_is_that_of_an_option_that_is_not_set(service, caplog, tmp_path):
    text = f"weight =\n{EMPTY}[backend_defaults]\nhttp_store_read_timeout =\n{EMPTY}"
    conf = service("good:file, web:http", text)
    assert [line for line in errors(caplog) if "certificates" not in line] == []
    assert glance_store.get_store_weight("good") == conf.good.weight == 0
    good, web = map(glance_store.get_store_from_store_identifier, ("good", "web"))
    assert (good.chunk_size, good.store_conf.filesystem_store_timeout) == (65536, 0)
    assert web.store_conf.http_store_read_timeout == 60
    url = glance_store.add(conf, "image", io.BytesIO(DATA), len(DATA), "good")[0]
    assert b"".join(glance_store.get(url, "good")[0]) == DATA


def test_empty_value_in_a_reserved_store(tmp_path):
    path = tmp_path / "service.conf"
    path.write_text(
        "[DEFAULT]\nenabled_backends = good:file\n"
        f"[good]\nfilesystem_store_datadir = {tmp_path}/good\n"
        "[backend_defaults]\nfilesystem_store_chunk_size = 1048576\n"
        f"[own]\nfilesystem_store_datadir = {tmp_path}/own\nweight =\n{EMPTY}"
    )
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    conf([], default_config_files=[str(path)], default_config_dirs=[])
    glance_store.register_store_opts(conf, {"own": "file"})
    glance_store.create_multi_stores(conf, {"own": "file"})
    chunks = {name: store.chunk_size for name, _driver, store in registry.stores()}
    assert chunks == {"good": 1048576, "own": 65536}
    assert glance_store.get_store_weight("own") == 0


def test_empty_value_in_single_store_mode(caplog, tmp_path):
    path = tmp_path / "service.conf"
    empty = f"{EMPTY}filesystem_store_file_perm =\nhttp_store_read_timeout =\n"
    path.write_text(f"[glance_store]\nfilesystem_store_datadir = {tmp_path}/images\n{empty}")
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[str(path)], default_config_dirs=[])
    glance_store.register_opts(conf)
    assert glance_store.create_stores(conf) == 2
    assert registry.failures() == {}
    assert conf.glance_store.http_store_read_timeout == 60
    url = glance_store.add_to_backend(conf, "image", io.BytesIO(DATA), len(DATA), "file")[0]
    assert b"".join(glance_store.get_from_backend(url)[0]) == DATA
