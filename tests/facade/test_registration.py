# SPDX-License-Identifier: Apache-2.0
"""The drivers that are installed, the lists of their options, and where these are registered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from oslo_config import cfg

import glance_store
from glance_store import loading, sharing, store_options

FACTS = json.loads((Path(__file__).parents[1] / "data" / "options.json").read_text())
DRIVERS = ["cinder", "file", "http", "rbd", "s3", "swift", "vmware"]
# The file driver is the only one of a reserved store.
RESERVED = {"os_glance_staging_store": "file"}


def names(opts):
    return [opt.name for opt in opts]


def registered(conf, group):
    return set(conf._groups[group]._opts) if group in conf._groups else set()


def facts_of(driver):
    return {fact["name"] for fact in FACTS["drivers"][driver]}


# -- the drivers that are installed


def test_r1_drivers_are_sorted_by_name():
    found = [name for name, _plugin in loading.drivers()]
    assert found == sorted(name for name in FACTS["entry_points"] if name != "no_conf")


def test_drivers_once_leaves_the_further_names_out():
    found = [name for name, _plugin in loading.drivers_once()]
    assert found == [group for group, _names in FACTS["list_opts_multi"]["result"][1:]]


def test_drivers_of_other_distributions_are_found(outside):
    plugins = dict(loading.drivers())
    assert plugins["memory"] is outside.Store
    assert plugins["memory.by.function"] is outside.make_store


def test_driver_that_cannot_be_imported_is_left_out_with_a_warning(outside, caplog):
    assert "faulty.library" not in dict(loading.drivers())
    (record,) = [record for record in caplog.records if record.name == "glance_store.loading"]
    assert record.getMessage() == (
        "Driver faulty.library cannot be imported; its options are unknown: "
        "No module named 'a_client_library_that_is_not_installed'"
    )


def test_name_that_two_distributions_declare(outside, tmp_path, monkeypatch, conf, caplog):
    rival = tmp_path / "rival-1.dist-info"
    rival.mkdir()
    (rival / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1\n")
    (rival / "entry_points.txt").write_text(
        "[glance_store.drivers]\nmemory = faulty_drivers:CannotWrite\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [name for name, _plugin in loading.drivers()].count("memory") == 1
    # Which of them is meant cannot be known.
    assert loading.load_store(conf, "memory") is None
    assert "is skipped: driver memory cannot be loaded" in caplog.text


def test_r5_options_are_read_from_a_class_or_a_function(outside):
    assert names(loading.options_of(outside.Store)) == ["memory_shelf", "memory_chunk"]
    assert names(loading.options_of(outside.make_store)) == ["memory_shelf", "memory_chunk"]
    assert loading.options_of(glance_store.Store) == []
    assert loading.options_of(object()) == []


def test_options_of_returns_a_list_of_its_own(outside):
    loading.options_of(outside.Store).clear()
    assert outside.Store.OPTIONS


# -- the lists of options


def test_r1_list_of_single_store_mode_is_sorted_and_complete():
    (common_group, common), (driver_group, opts) = glance_store.backend._list_opts()
    assert (common_group, names(common)) == ("glance_store", ["stores", "default_store"])
    assert driver_group == "glance_store"
    promised = FACTS["list_opts_single"]["result"][1][1]
    listed = names(opts)
    assert [name for name in listed if name in promised] == promised
    assert len(listed) == len(set(listed))
    assert listed == [
        *(opt.name for _name, plugin in loading.drivers_once() for opt in plugin.OPTIONS),
        *names(sharing.OPTIONS),
    ]


def test_r1_r36_list_of_multi_store_mode():
    result = glance_store.multi_backend._list_config_opts()
    promised = FACTS["list_opts_multi"]["result"]
    assert [group for group, _opts in result] == [group for group, _names in promised]
    for (_group, opts), (group, promised_names) in zip(result, promised, strict=True):
        listed = names(opts)
        assert [name for name in listed if name in promised_names] == promised_names
        assert (listed[-2:] == ["store_description", "weight"]) is (group != "glance_store")


def test_r4_default_backend_is_in_the_list():
    assert names(dict(glance_store.multi_backend._list_config_opts())["glance_store"]) == [
        "default_backend"
    ]


def test_r36_group_of_each_driver_that_has_options(outside):
    groups = [group for group, _opts in glance_store.multi_backend._list_config_opts()]
    assert "memory" in groups
    assert "memory.by.function" in groups
    assert not [group for group in groups if group.startswith("faulty")]


def test_lists_are_the_callers_own():
    glance_store.backend._list_opts()[0][1].clear()
    glance_store.multi_backend._list_config_opts()[0][1].clear()
    assert names(glance_store.backend._list_opts()[0][1]) == ["stores", "default_store"]
    assert names(glance_store.multi_backend._list_config_opts()[0][1]) == ["default_backend"]


@pytest.mark.parametrize("fact", FACTS["single_store_common"] + FACTS["multi_store_common"])
def test_common_options(fact):
    opts = {opt.name: opt for opt in [*store_options.STORE_OPTS, *store_options.MULTI_STORE_OPTS]}
    opt = opts[fact["name"]]
    choices = getattr(opt.type, "choices", None)
    assert {
        "opt_class": type(opt).__name__,
        "type": type(opt.type).__name__,
        "dest": opt.dest,
        "default": opt.default,
        "choices": None if choices is None else list(choices),
        "secret": opt.secret,
        "required": opt.required,
        "advanced": opt.advanced,
        "mutable": opt.mutable,
        "deprecated_for_removal": opt.deprecated_for_removal,
        "deprecated_since": opt.deprecated_since,
        "has_deprecated_reason": bool(opt.deprecated_reason),
        "has_help": bool(opt.help),
    }.items() <= fact.items()


def test_options_generator_finds_both_namespaces(tmp_path):
    for namespace in ("glance.store", "glance.multi_store"):
        sample = tmp_path / namespace
        subprocess.run(
            [
                sys.executable,
                "-m",
                "oslo_config.generator",
                f"--namespace={namespace}",
                f"--output-file={sample}",
            ],
            check=True,
        )
        assert "filesystem_store_datadir" in sample.read_text()


# -- registration


def test_registration_of_single_store_mode(conf):
    glance_store.register_opts(conf)
    found = registered(conf, "glance_store")
    promised = {name for _group, listed in FACTS["list_opts_single"]["result"] for name in listed}
    assert (
        len(promised)
        == FACTS["registration_observed"]["single_after_register_opts"]["glance_store"]
    )
    assert promised <= found
    assert set(conf._groups) == {"glance_store"}


def test_registration_of_multi_store_mode(conf):
    observed = FACTS["registration_observed"]["multi_after_register_store_opts"]
    conf.set_override("enabled_backends", {f"b_{driver}": driver for driver in DRIVERS})
    glance_store.register_store_opts(conf, {"resv": "file"})
    for driver in DRIVERS:
        assert set(observed[f"b_{driver}"]) <= registered(conf, f"b_{driver}")
        opts = dict(loading.drivers())[driver].OPTIONS
        assert {*names(opts), *names(sharing.OPTIONS)} == registered(conf, f"b_{driver}")
    assert {fact["name"] for fact in FACTS["reserved_store_options"]} <= registered(conf, "resv")
    assert registered(conf, "glance_store") == {"default_backend"}


@pytest.mark.parametrize("driver", ["file", "http"])
def test_registration_by_the_constructor(conf, driver):
    opts = set(names(dict(loading.drivers())[driver].OPTIONS))
    store = loading.load_store(conf, driver, backend="one")
    assert registered(conf, "one") == opts | {"store_description", "weight"}
    assert registered(conf, "backend_defaults") == opts
    assert store.conf is conf
    assert facts_of(driver) <= opts


@pytest.mark.parametrize("fact", FACTS["reserved_store_options"])
def test_options_of_a_reserved_store(conf, fact):
    glance_store.register_store_opts(conf, {"resv": "file"})
    opt = conf._groups["resv"]._opts[fact["name"]]["opt"]
    assert (type(opt).__name__, opt.default, opt.deprecated_for_removal) == (
        fact["opt_class"],
        fact["default"],
        fact["deprecated_for_removal"],
    )
    assert getattr(opt.type, "min", None) == fact["min"]


def test_registration_twice_does_no_harm(conf):
    conf.set_override("enabled_backends", {"one": "file"})
    for _time in range(2):
        glance_store.register_opts(conf)
        glance_store.register_store_opts(conf, RESERVED)
    first = {name: registered(conf, name) for name in conf._groups}
    glance_store.register_opts(conf)
    glance_store.register_store_opts(conf, RESERVED)
    assert {name: registered(conf, name) for name in conf._groups} == first


def test_registration_without_enabled_backends_known():
    conf = cfg.ConfigOpts()
    glance_store.register_store_opts(conf)
    assert conf.glance_store.default_backend is None


def test_r37_an_option_that_is_there_already_does_not_stop_the_others(conf):
    other = cfg.StrOpt("filesystem_store_datadir", default="/elsewhere")
    for group in ("glance_store", "one"):
        conf.register_opt(other, group=group)
    conf.set_override("enabled_backends", {"one": "file"})
    glance_store.register_opts(conf)
    glance_store.register_store_opts(conf)
    for group in ("glance_store", "one"):
        assert facts_of("file") <= registered(conf, group)
        assert conf[group].filesystem_store_datadir == "/elsewhere"


def test_r35_drivers_are_matched_exactly(conf, outside):
    conf.set_override("enabled_backends", {"one": "fil", "two": "memory", "three": "store"})
    glance_store.register_store_opts(conf)
    assert registered(conf, "one") == set()
    own = registered(conf, "two") - set(names(sharing.OPTIONS))
    assert own == {"memory_shelf", "memory_chunk"}
    assert registered(conf, "three") == set()


@pytest.mark.parametrize("name", ["file", "glance.store.filesystem.Store"])
def test_both_names_of_a_driver_have_its_options(conf, name):
    conf.set_override("enabled_backends", {"one": name})
    glance_store.register_store_opts(conf)
    assert facts_of("file") <= registered(conf, "one")
