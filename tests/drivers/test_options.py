# SPDX-License-Identifier: Apache-2.0
"""Every option of every driver is what configuration files in the field expect."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from oslo_config import cfg, types

FACTS = json.loads((Path(__file__).parents[1] / "data" / "options.json").read_text())["drivers"]
PACKAGES = {"file": "filesystem", "vmware": "vmware_datastore"}

# What this release has beyond the facts, after them, in this order: (name, default, min).
NEW = {
    "file": [
        ("filesystem_store_fsync", True, None),
        ("filesystem_store_require_mount", False, None),
    ],
    "http": [
        ("http_store_connect_timeout", 10, 1),
        ("http_store_read_timeout", 60, 1),
        ("http_store_retry_timeout", 30.0, 0),
        ("http_store_allowed_hosts", [], None),
        ("http_store_disallowed_hosts", [], None),
        ("http_store_allowed_ports", [], None),
        ("http_store_disallowed_ports", [], None),
    ],
    "rbd": [
        ("rbd_store_io_depth", 8, 1),
        ("rbd_store_data_pool", None, None),
        ("rbd_store_namespace", None, None),
    ],
    "s3": [
        ("s3_store_verify_parts", True, None),
        ("s3_store_read_concurrency", 10, 1),
        ("s3_store_memory", 256, 16),
        ("s3_store_equal_parts", False, None),
        ("s3_store_retry_timeout", 30.0, 0),
        ("s3_store_max_attempts", None, 1),
        ("s3_store_request_payer", "", None),
        ("s3_store_connect_timeout", 10, 1),
        ("s3_store_read_timeout", 60, 1),
        ("s3_store_proxies", {}, None),
    ],
    "swift": [
        ("swift_store_thread_pool_size", 4, 1),
        ("swift_store_memory", 256, 16),
        ("swift_store_verify_segments", True, None),
        ("swift_store_read_concurrency", 4, 1),
        ("swift_store_connect_timeout", 10, 1),
        ("swift_store_read_timeout", 120, 1),
        ("swift_store_retry_timeout", 30.0, 0),
        ("swift_store_retries", None, 0),
    ],
    "cinder": [
        ("cinder_request_timeout", 180, 1),
    ],
    "vmware": [
        ("vmware_store_connect_timeout", 10, 1),
        ("vmware_store_read_timeout", 60, 1),
        ("vmware_store_retry_timeout", 30.0, 0),
        ("vmware_store_task_timeout", 600, 1),
        ("vmware_store_memory", 256, 16),
    ],
}

# Their values may hold passwords, and the log of a service that lists its options hides them now.
MADE_SECRET = {"http_proxy_information"}


def options_of(driver):
    package = PACKAGES.get(driver, driver)
    return importlib.import_module(f"glance_store._drivers.{package}.options").OPTIONS


def option_of(driver, name):
    (found,) = [opt for opt in options_of(driver) if opt.name == name]
    return found


@pytest.mark.parametrize("driver", FACTS)
def test_names_and_order(driver):
    expected = [fact["name"] for fact in FACTS[driver]]
    expected += [name for name, _default, _minimum in NEW.get(driver, [])]
    assert [opt.name for opt in options_of(driver)] == expected


def test_all_facts_are_there():
    assert {driver: len(facts) for driver, facts in FACTS.items()} == {
        "cinder": 22,
        "file": 9,
        "http": 3,
        "rbd": 6,
        "s3": 14,
        "swift": 29,
        "vmware": 9,
    }


@pytest.mark.parametrize(
    ("driver", "fact"),
    [
        pytest.param(driver, fact, id=fact["name"])
        for driver, facts in FACTS.items()
        for fact in facts
    ],
)
def test_option_is_as_the_facts_say(driver, fact):
    opt = option_of(driver, fact["name"])
    choices = getattr(opt.type, "choices", None)
    assert {
        "opt_class": type(opt).__name__,
        "type": type(opt.type).__name__,
        "dest": opt.dest,
        "default": opt.default,
        "sample_default": opt.sample_default,
        "min": getattr(opt.type, "min", None),
        "max": getattr(opt.type, "max", None),
        "choices": None if choices is None else list(choices),
        "secret": opt.secret and opt.name not in MADE_SECRET,
        "required": opt.required,
        "positional": opt.positional,
        "multi": opt.multi,
        "advanced": opt.advanced,
        "mutable": opt.mutable,
        "metavar": opt.metavar,
        "deprecated_names": [{"name": old.name, "group": old.group} for old in opt.deprecated_opts],
        "deprecated_for_removal": opt.deprecated_for_removal,
        "deprecated_since": opt.deprecated_since,
        "has_deprecated_reason": bool(opt.deprecated_reason),
    } == {
        key: value
        for key, value in fact.items()
        if key not in ("name", "driver", "has_help", "string_constraints")
    }
    assert opt.secret is (fact["secret"] or opt.name in MADE_SECRET)
    assert fact["has_help"]
    assert opt.help
    assert not fact["string_constraints"]


@pytest.mark.parametrize(
    ("driver", "name", "default", "minimum"),
    [(driver, *new) for driver, news in NEW.items() for new in news],
)
def test_new_option(driver, name, default, minimum):
    opt = option_of(driver, name)
    assert (opt.default, getattr(opt.type, "min", None)) == (default, minimum)
    kinds = {
        bool: types.Boolean,
        int: types.Integer,
        float: types.Float,
        dict: types.Dict,
        list: types.List,
    }
    # A number that may be missing has a minimum all the same.
    usual = types.String if minimum is None else types.Integer
    assert isinstance(opt.type, kinds.get(type(default), usual))


@pytest.mark.parametrize(
    ("driver", "opt"),
    [pytest.param(driver, opt, id=opt.name) for driver in FACTS for opt in options_of(driver)],
)
def test_help_is_usable(driver, opt):
    lines = opt.help.strip().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[0]
    known = {other.name for names in FACTS for other in options_of(names)}
    related = opt.help.partition("Related options:")[2]
    assert {word.strip("`,.\n") for word in related.split()} <= known


@pytest.mark.parametrize("driver", FACTS)
def test_defaults_are_valid_values(driver):
    conf = cfg.ConfigOpts()
    conf.register_opts(options_of(driver), group="glance_store")
    conf([], default_config_files=[], default_config_dirs=[])
    for opt in options_of(driver):
        assert getattr(conf.glance_store, opt.dest) == opt.default


@pytest.mark.parametrize("driver", ["cinder", "rbd", "s3", "swift", "vmware"])
def test_entry_point_carries_the_options(driver):
    package = PACKAGES.get(driver, driver)
    store = importlib.import_module(f"glance_store._drivers.{package}").Store
    assert store.OPTIONS is options_of(driver)
