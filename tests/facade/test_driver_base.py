# SPDX-License-Identifier: Apache-2.0
"""The base class of drivers: options, configuration, and calls in the form of earlier years."""

from __future__ import annotations

import functools

import pytest
from oslo_config import cfg

from glance_store import capabilities, driver, exceptions, location

WRITE = capabilities.BitMasks.WRITE_ACCESS
OPTS = [cfg.StrOpt("some_text", default="text"), cfg.IntOpt("some_number")]


class StoreLocation(location.StoreLocation):
    """The class that a driver's module is asked for."""


class Store(driver.Store):
    OPTIONS = OPTS
    _CAPABILITIES = capabilities.BitMasks.RW_ACCESS
    problem: exceptions.GlanceStoreException | None = None
    updates = 0

    def configure_add(self):
        if self.problem is not None:
            raise self.problem

    def update_capabilities(self):
        self.updates += 1


def registered(conf, group):
    return set(conf._groups[group]._opts) if group in conf._groups else None


@pytest.fixture
def private():
    return cfg.ConfigOpts()


# -- registration


def test_registration_in_single_store_mode(private):
    store = Store(private)
    assert (store.conf, store.backend_group) == (private, None)
    assert registered(private, "glance_store") == {"some_text", "some_number"}
    assert registered(private, "backend_defaults") == {"some_text", "some_number"}
    assert store.store_conf.some_text == "text"


def test_registration_in_multi_store_mode(private):
    store = Store(private, "one")
    assert store.backend_group == "one"
    assert registered(private, "one") == {
        "some_text",
        "some_number",
        "store_description",
        "weight",
    }
    assert registered(private, "backend_defaults") == {"some_text", "some_number"}
    assert registered(private, "glance_store") is None


def test_registration_without_options(private):
    driver.Store(private)
    assert private._groups == {}
    driver.Store(private, "one")
    assert registered(private, "one") == {"store_description", "weight"}


def test_registration_twice_does_no_harm(private):
    for _time in range(2):
        Store(private, "one")
        Store(private)
    assert private.one.weight == 0


def test_r37_each_option_is_registered_on_its_own(private):
    private.register_opt(cfg.IntOpt("some_text", default=3), group="one")
    Store(private, "one")
    assert private.one.some_text == 3
    assert private.one.some_number is None


def test_r28_nothing_is_registered_elsewhere(private):
    before = set(cfg.CONF._groups)
    store = Store(private, "only_here")
    assert store.store_conf.some_text == "text"
    driver.BackendGroupConfiguration(OPTS, "only_here_too", private)
    assert set(cfg.CONF._groups) == before


# -- BackendGroupConfiguration


def test_r10_values_fall_back(private):
    options = driver.BackendGroupConfiguration(OPTS, "one", private)
    assert options.some_text == options.get("some_text") == "text"
    private.set_override("some_text", "shared", group="backend_defaults")
    assert options.some_text == options.get("some_text") == "shared"
    private.set_override("some_text", "own", group="one")
    assert options.some_text == options.get("some_text") == "own"
    assert options.some_number is None


@pytest.mark.parametrize("value", [0, "", False])
def test_values_that_are_set_do_not_fall_back(private, value):
    kind = {int: cfg.IntOpt, str: cfg.StrOpt, bool: cfg.BoolOpt}[type(value)]
    options = driver.BackendGroupConfiguration(
        [kind("opt", default=type(value)(1))], "one", private
    )
    private.set_override("opt", value, group="one")
    assert options.opt == value
    assert options.get("opt", "another") == value


def test_raw_value_of_the_group_is_none(private):
    options = driver.BackendGroupConfiguration(OPTS, "one", private)
    assert private.one.some_text is None
    assert private.backend_defaults.some_text == "text"
    assert options.backend_conf.some_text is None
    assert options.shared_backend_conf.some_text == "text"
    assert (options.config_group, options.conf) == ("one", private)


def test_further_options(private):
    options = driver.BackendGroupConfiguration(OPTS, "one", private)
    options.append_config_values([cfg.StrOpt("further", default="more"), OPTS[0]])
    assert options.further == "more"
    assert private.one.further is None


def test_set_default(private):
    options = driver.BackendGroupConfiguration(OPTS, "one", private)
    options.set_default("some_text", "another")
    assert options.some_text == "another"
    assert private.one.some_text is None
    assert private.backend_defaults.some_text == "another"
    private.set_override("some_text", "own", group="one")
    assert options.some_text == "own"


def test_unknown_option(private):
    options = driver.BackendGroupConfiguration(OPTS, "one", private)
    assert options.get("unknown") is None
    assert options.get("unknown", 5) == 5
    with pytest.raises(AttributeError):
        _ = options.unknown


def test_shared_group_alone(private):
    options = driver.BackendGroupConfiguration(OPTS, None, private)
    assert options.some_text == "text"
    assert options.some_number is None
    assert set(private._groups) == {"backend_defaults"}


def test_default_configuration_is_that_of_the_process(process_conf):
    options = driver.BackendGroupConfiguration(OPTS, "one")
    assert options.conf is cfg.CONF
    assert cfg.CONF.one.some_text is None
    assert options.some_text == "text"


def test_definition_that_is_there_already_holds(private):
    # This is how the reserved stores have defaults of their own.
    private.register_opt(cfg.StrOpt("some_text", default="reserved"), group="one")
    options = driver.BackendGroupConfiguration(OPTS, "one", private)
    assert options.some_text == private.one.some_text == "reserved"
    assert options.some_number is None


def test_option_of_the_group_alone(private):
    store = Store(private, "one")
    assert store.store_conf.weight == 0
    assert store.store_conf.store_description is None


@pytest.mark.parametrize("name", ["backend_conf", "shared_backend_conf"])
def test_half_made_object_does_not_recurse(name):
    options = driver.BackendGroupConfiguration.__new__(driver.BackendGroupConfiguration)
    with pytest.raises(AttributeError):
        getattr(options, name)


# -- properties


def test_weight(private):
    assert Store(private).weight == 0
    store = Store(private, "one")
    assert store.weight == 0
    private.set_override("weight", -7, group="one")
    assert store.weight == -7


def test_url_prefix_is_unknown_at_first(private):
    assert Store(private).url_prefix is None


@pytest.mark.parametrize("name", ["store_conf", "name", "read_size"])
def test_drivers_of_earlier_years_assign_these(private, name):
    class Earlier(Store):
        def __init__(self, conf, backend=None):
            setattr(self, name, "before")
            super().__init__(conf, backend)

    other = Store(private, "one")
    before = getattr(other, name)
    store = Earlier(private, "one")
    assert getattr(store, name) == "before"
    setattr(store, name, "after")
    assert getattr(store, name) == "after"
    assert getattr(other, name) is before
    assert getattr(Store, name) is not None


def test_translations_of_log_lines():
    from glance_store.i18n import _LC, _LE, _LI, _LW

    assert [mark("a %s line") for mark in (_LI, _LW, _LE, _LC)] == ["a %s line"] * 4


@pytest.mark.parametrize("name", ["url_prefix", "weight", "capabilities"])
def test_properties_are_read_only(private, name):
    with pytest.raises(AttributeError):
        setattr(Store(private), name, 1)


def test_location_class_of_the_module(private):
    store = Store(private)
    assert store.store_location_class is None
    assert store.get_store_location_class() is StoreLocation
    assert store.store_location_class is StoreLocation


def test_location_class_of_the_store(private):
    class Other(location.StoreLocation):
        pass

    store = Store(private)
    store.store_location_class = Other
    assert store.get_store_location_class() is Other


def test_r26_chunk_sizes():
    assert driver.Store.READ_CHUNKSIZE == driver.Store.WRITE_CHUNKSIZE == 4 * 1024 * 1024


def test_base_implements_nothing(private):
    store = driver.Store(private)
    with pytest.raises(NotImplementedError):
        store.get_schemes()
    with pytest.raises(NotImplementedError):
        store.set_acls(None)
    assert store.configure_add() is None


def test_base_is_checked(private):
    store = driver.Store(private)
    with pytest.raises(exceptions.StoreGetNotSupported):
        store.get(None)
    with pytest.raises(exceptions.StoreAddDisabled):
        store.add("id", None, 0, "md5")
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        store.delete(None)


# -- configuration


def test_configure(private):
    store = Store(private)
    store.configure()
    assert store.is_capable(WRITE)
    assert store.configuration_error is None
    assert store.updates == 1


def test_r2_configuration_that_does_not_allow_writing(private, caplog):
    store = Store(private, "one")
    store.problem = exceptions.BadStoreConfiguration(store_name="one", reason="no space")
    store.configure()
    assert not store.is_capable(WRITE)
    assert store.is_capable(capabilities.BitMasks.READ_ACCESS)
    assert store.updates == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "one" in record.getMessage()
    assert "no space" in record.getMessage()
    assert "no space" in store.configuration_error


def test_r2_error_is_raised_again_when_asked_for(private):
    store = Store(private)
    store.problem = exceptions.BadStoreConfiguration(store_name="one", reason="no space")
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        store.configure(re_raise_bsc=True)
    assert caught.value is store.problem
    assert not store.is_capable(WRITE)
    assert store.updates == 1


def test_other_errors_are_not_hidden(private):
    store = Store(private)
    store.problem = exceptions.RemoteServiceUnavailable("gone")
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        store.configure()
    assert store.updates == 1


# -- add as before the multihash


class Adder:
    @driver.back_compat_add
    def add(self, image_id, image_file, image_size, hashing_algo, context=None, verifier=None):
        """Tell what arrived."""
        arrived = (image_id, image_file, image_size, context, verifier)
        return "url", arrived, "checksum", hashing_algo, {}


NAMED = {"image_id": 1, "image_file": 2, "image_size": 3}
NO_TEXT = object()


@pytest.mark.parametrize(
    ("args", "kwargs", "context", "verifier"),
    [
        ((1, 2, 3), {}, None, None),
        ((1, 2, 3), {"context": "c"}, "c", None),
        ((1, 2, 3), {"verifier": "v"}, None, "v"),
        ((1, 2, 3), {"context": "c", "verifier": "v"}, "c", "v"),
        ((1, 2, 3, None), {}, None, None),
        ((1, 2, 3, NO_TEXT), {}, NO_TEXT, None),
        ((1, 2, 3, None, "v"), {}, None, "v"),
        ((1, 2, 3, NO_TEXT), {"verifier": "v"}, NO_TEXT, "v"),
        ((), NAMED, None, None),
        ((), {**NAMED, "context": "c", "verifier": "v"}, "c", "v"),
        ((1,), {"image_file": 2, "image_size": 3}, None, None),
        ((1, 2), {"image_size": 3, "context": "c"}, "c", None),
    ],
)
def test_add_without_an_algorithm(args, kwargs, context, verifier):
    arrived = (1, 2, 3, context, verifier)
    assert Adder().add(*args, **kwargs) == ("url", arrived, "checksum", {})


@pytest.mark.parametrize("args", [(1, 2, 3), (1,), ()])
def test_algorithm_without_a_name_is_md5(args):
    seen = []

    class Recorder:
        @driver.back_compat_add
        def add(self, image_id, image_file, image_size, hashing_algo, context=None):
            seen.append(hashing_algo)
            return 1, 2, 3, 4, 5

    names = list(NAMED)
    Recorder().add(*args, **{name: NAMED[name] for name in names[len(args) :]})
    assert seen == ["md5"]


@pytest.mark.parametrize(
    ("args", "kwargs", "algorithm", "context", "verifier"),
    [
        ((1, 2, 3, "sha256"), {}, "sha256", None, None),
        ((1, 2, 3, "sha256"), {"context": "c", "verifier": "v"}, "sha256", "c", "v"),
        ((1, 2, 3), {"hashing_algo": "sha1"}, "sha1", None, None),
        ((1, 2, 3), {"hashing_algo": None}, None, None, None),
        ((), {**NAMED, "hashing_algo": "sha1"}, "sha1", None, None),
        ((1, 2, 3, "sha256", "c", "v"), {}, "sha256", "c", "v"),
        ((1, 2, 3, None, "c", "v"), {}, None, "c", "v"),
        ((1, 2, 3, None, "c"), {"verifier": "v"}, None, "c", "v"),
    ],
)
def test_add_with_an_algorithm(args, kwargs, algorithm, context, verifier):
    arrived = (1, 2, 3, context, verifier)
    assert Adder().add(*args, **kwargs) == ("url", arrived, "checksum", algorithm, {})


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, 2), {}),
        ((1, 2, 3), {"unknown": 1}),
        ((), {**NAMED, "unknown": 1}),
        ((), {"image_id": 1}),
        ((1, 2, 3, "sha256", "c", "v", "more"), {}),
    ],
)
def test_wrong_arguments_of_add(args, kwargs):
    with pytest.raises(TypeError):
        Adder().add(*args, **kwargs)


def test_decorated_add_keeps_its_name():
    assert Adder.add.__name__ == "add"
    assert Adder.add.__doc__ == "Tell what arrived."


def test_errors_of_add_are_not_changed():
    class Full:
        @driver.back_compat_add
        def add(self, image_id, image_file, image_size, hashing_algo, context=None):
            raise exceptions.StorageFull

    for call in (Full().add, functools.partial(Full().add, hashing_algo="md5")):
        with pytest.raises(exceptions.StorageFull):
            call(1, 2, 3)
