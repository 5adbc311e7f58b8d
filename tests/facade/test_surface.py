# SPDX-License-Identifier: Apache-2.0
"""The outside surface is, name by name, what consumers and driver authors were promised."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import re
from pathlib import Path

import pytest
from oslo_config import cfg

import glance_store
from glance_store import capabilities, exceptions

ROOT = Path(__file__).parents[2]
FACTS = json.loads((ROOT / "tests" / "data" / "api.json").read_text())
CONF_FACTS = json.loads((ROOT / "tests" / "data" / "options.json").read_text())
# A reader whose backend ends early needs a name of its own.
# With their first bases.
NEW_EXCEPTIONS = {
    "TruncatedImage": "GlanceStoreException",
    "BackendUnavailable": "RemoteServiceUnavailable",
}
DRIVERS = ("file", "http", "swift", "rbd", "cinder", "s3", "vmware")


def module_of(name):
    return importlib.import_module(f"glance_store.{name}")


def resolve(path):
    for module in sorted({*FACTS["public_names"], "exceptions"}, key=len, reverse=True):
        if path.startswith(f"{module}."):
            found = module_of(module)
            for part in path.removeprefix(f"{module}.").split("."):
                found = inspect.getattr_static(found, part)
            return found.__func__ if isinstance(found, staticmethod) else found
    raise LookupError(path)


def parameters(function):
    return [
        (parameter.name, parameter.kind.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


def distribution():
    return importlib.metadata.distribution("glance_store")


def test_facts_are_complete():
    names = {
        (module, name)
        for module, kinds in FACTS["public_names"].items()
        for listed in kinds.values()
        for name in listed
    }
    assert (
        len(names)
        + sum(map(len, FACTS["constants"].values()))
        + sum(map(len, FACTS["maps"].values()))
        == 16 + 1 + 15 + 4 + 2 + 2 + 1 + 2 + 1 + 1 + 2 + 4 + 1
    )
    assert len(FACTS["exceptions"]) == 34
    assert len(FACTS["bit_masks"]) == 15


@pytest.mark.parametrize("module", FACTS["public_names"])
def test_public_names(module):
    namespace = module_of(module)
    for name in FACTS["public_names"][module]["functions"]:
        assert inspect.isfunction(getattr(namespace, name)), name
    for name in FACTS["public_names"][module]["classes"]:
        assert inspect.isclass(getattr(namespace, name)), name
    for name, value in FACTS["constants"].get(module, {}).items():
        assert getattr(namespace, name) == value
    for name in FACTS["maps"].get(module, []):
        assert type(getattr(namespace, name)) is dict


@pytest.mark.parametrize("path", FACTS["signatures"])
def test_signature(path):
    promised = eval(f"lambda {FACTS['signatures'][path]}: None", {"CONF": cfg.CONF})
    assert parameters(resolve(path)) == parameters(promised)


def test_default_conf_is_the_one_of_the_process():
    assert inspect.signature(glance_store.create_stores).parameters["conf"].default is cfg.CONF
    assert (
        inspect.signature(glance_store.create_multi_stores).parameters["conf"].default is cfg.CONF
    )


@pytest.mark.parametrize("path", FACTS["class_variables"])
def test_class_variables(path):
    for name, value in FACTS["class_variables"][path].items():
        assert getattr(resolve(path), name) == value


@pytest.mark.parametrize("path", FACTS["properties"])
def test_properties(path):
    for name in FACTS["properties"][path]:
        assert isinstance(getattr(resolve(path), name), property), name


def test_multi_backend_options_of_the_base():
    description, weight = glance_store.Store.MULTI_BACKEND_OPTIONS
    assert (description.name, description.default) == ("store_description", None)
    assert isinstance(description, cfg.StrOpt)
    assert (weight.name, weight.default) == ("weight", 0)
    assert isinstance(weight, cfg.IntOpt)


def test_base_has_no_example_url():
    assert not hasattr(glance_store.Store, "EXAMPLE_URL")


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("backend.Indexable", ([], 0)),
        ("driver.Store", (cfg.ConfigOpts(),)),
        (
            "driver.BackendGroupConfiguration",
            ([cfg.StrOpt("opt")], "one", cfg.ConfigOpts()),
        ),
        ("location.Location", ("x", glance_store.location.StoreLocation, None)),
        ("location.StoreLocation", ({}, None)),
    ],
)
def test_instance_attributes(path, arguments):
    instance = resolve(path)(*arguments)
    assert set(FACTS["instance_attributes"][path]) <= set(vars(instance))


# -- the package


@pytest.mark.parametrize("name", FACTS["package"]["submodules"])
def test_submodule_is_an_attribute_of_the_package(name):
    assert getattr(glance_store, name) is module_of(name)


@pytest.mark.parametrize("module", FACTS["package"]["names_from"])
def test_package_names_come_from(module):
    for name in FACTS["package"]["names_from"][module]:
        assert getattr(glance_store, name) is getattr(module_of(module), name), name


@pytest.mark.parametrize("name", FACTS["exceptions"])
def test_exceptions_of_the_package_are_the_same_objects(name):
    assert getattr(glance_store, name) is getattr(exceptions, name)


def test_star_import_gives_the_same_names():
    namespace = {}
    exec("from glance_store import *", namespace)
    for module, names in FACTS["package"]["names_from"].items():
        for name in names:
            assert namespace[name] is getattr(module_of(module), name)
    for name in FACTS["exceptions"]:
        assert namespace[name] is getattr(exceptions, name)
    assert namespace["TimeoutError"] is not TimeoutError
    assert namespace["Store"] is glance_store.driver.Store
    assert not [name for name in glance_store.__all__ if name.startswith("_")]


@pytest.mark.parametrize("module", FACTS["public_names"])
def test_star_import_of_a_module(module):
    namespace = {}
    exec(f"from glance_store.{module} import *", namespace)
    for listed in FACTS["public_names"][module].values():
        assert set(listed) <= set(namespace)


@pytest.mark.parametrize("module", FACTS["package"]["not_part_of"])
def test_r25_removed_names_stay_removed(module):
    for name in FACTS["package"]["not_part_of"][module]:
        assert not hasattr(module_of(module), name)
        assert not hasattr(glance_store, name)


# -- exceptions


def test_exception_classes():
    classes = {
        name: value.__bases__[0].__name__
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    expected = {name: fact["base"] for name, fact in FACTS["exceptions"].items()}
    expected.update(NEW_EXCEPTIONS)
    assert classes == expected


@pytest.mark.parametrize(
    ("name", "keywords"),
    [(name, fact["keywords"]) for name, fact in FACTS["exceptions"].items() if "keywords" in fact],
)
def test_exception_keywords(name, keywords):
    text = str(getattr(exceptions, name).message)
    assert set(re.findall(r"%\((\w+)\)", text)) == set(keywords)
    # Numbers, as the callers give them.
    raised = getattr(exceptions, name)(**dict.fromkeys(keywords, 4711))
    assert raised.msg == str(raised)
    assert str(raised).count("4711") >= len(keywords)
    assert "%(" not in str(raised)


# -- capabilities


def test_bit_masks():
    assert {mask: int(value) for mask, value in capabilities.BitMasks.__members__.items()} == (
        FACTS["bit_masks"]
    )


def loaded(driver, backend=None):
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    glance_store.register_opts(conf)
    return glance_store.backend._load_store(conf, driver)


@pytest.mark.parametrize("driver", DRIVERS)
def test_schemes_of_the_drivers(driver):
    assert sorted(loaded(driver).get_schemes()) == sorted(FACTS["schemes"][driver])


@pytest.mark.parametrize("driver", ["file", "http"])
def test_capabilities_of_the_drivers(driver):
    masks = [capabilities.BitMasks[name] for name in FACTS["capabilities"][driver]]
    # A driver may do more than was promised, as reading ranges.
    assert loaded(driver).is_capable(*masks)


def test_http_does_not_write():
    assert not loaded("http").is_capable(capabilities.BitMasks.WRITE_ACCESS)


# -- the distribution


@pytest.mark.parametrize("group", FACTS["entry_points"])
def test_entry_points(group):
    declared = {
        point.name: point.value for point in distribution().entry_points.select(group=group)
    }
    promised = FACTS["entry_points"][group]
    assert promised.items() <= declared.items()
    if group != "console_scripts":
        assert set(declared) == set(promised)


def test_entry_points_of_the_facts_of_options():
    declared = {
        point.name: point.value
        for point in distribution().entry_points.select(group="glance_store.drivers")
    }
    # no_conf belongs to the tests of earlier releases.
    expected = {
        name: value for name, value in CONF_FACTS["entry_points"].items() if name != "no_conf"
    }
    assert declared == expected


@pytest.mark.parametrize("name", FACTS["entry_points"]["glance_store.drivers"])
def test_r42_driver_can_be_imported_without_its_client_library(name):
    (point,) = distribution().entry_points.select(group="glance_store.drivers", name=name)
    driver = point.load()
    assert callable(driver)
    assert driver.OPTIONS


def test_swift_entry_point_is_a_function():
    assert inspect.isfunction(module_of("_drivers.swift").Store)


@pytest.mark.parametrize("extra", FACTS["extras"])
def test_extras(extra):
    requirements = [
        line.split(";")[0].lower()
        for line in distribution().requires or []
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", line)
    ]
    for name in FACTS["extras"][extra]:
        assert any(re.match(rf"{re.escape(name)}(?![\w.-])", line) for line in requirements), name


def test_python_versions():
    assert distribution().metadata["Requires-Python"] == ">=3.10"
    assert distribution().version.startswith("6.")


@pytest.mark.parametrize("path", FACTS["data_files"])
def test_r22_rootwrap_files_are_shipped(path):
    assert (ROOT / path).read_text().strip()
    assert path in (ROOT / "setup.cfg").read_text()
