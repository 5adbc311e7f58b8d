# SPDX-License-Identifier: Apache-2.0
"""Calls of `add` as they were before the multihash, and the options of one of several stores."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from oslo_config import cfg

from glance_store.driver import BackendGroupConfiguration, back_compat_add

FILE, CONTEXT, VERIFIER = object(), object(), object()
GIVEN = "sha256"


class Recorder:
    """Its `add` tells in the metadata what it was called with."""

    @back_compat_add
    def add(
        self,
        image_id: Any,
        image_file: Any,
        image_size: Any,
        hashing_algo: Any,
        context: Any = None,
        verifier: Any = None,
    ) -> Any:
        """Documented."""
        call = (image_id, image_file, image_size, hashing_algo, context, verifier)
        return "url", 3, "checksum", "multihash", call


def named(**arguments: Any) -> dict[str, Any]:
    return arguments


# Positional arguments, keywords, and what `add` gets for algorithm, context and verifier.
WITH_ALGORITHM: list[tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = [
    (("id", FILE, 3, GIVEN), {}, (GIVEN, None, None)),
    (("id", FILE, 3, GIVEN, CONTEXT), {}, (GIVEN, CONTEXT, None)),
    (("id", FILE, 3, GIVEN, CONTEXT, VERIFIER), {}, (GIVEN, CONTEXT, VERIFIER)),
    (("id", FILE, 3, GIVEN), named(context=CONTEXT), (GIVEN, CONTEXT, None)),
    (("id", FILE, 3, GIVEN), named(verifier=VERIFIER), (GIVEN, None, VERIFIER)),
    (("id", FILE, 3), named(hashing_algo=GIVEN), (GIVEN, None, None)),
    (("id", FILE), named(image_size=3, hashing_algo=GIVEN), (GIVEN, None, None)),
    (("id", FILE, 3), named(context=CONTEXT, hashing_algo=GIVEN), (GIVEN, CONTEXT, None)),
    (
        (),
        named(image_id="id", image_file=FILE, image_size=3, hashing_algo=GIVEN),
        (GIVEN, None, None),
    ),
    (
        ("id", FILE, 3),
        named(hashing_algo=GIVEN, context=CONTEXT, verifier=VERIFIER),
        (GIVEN, CONTEXT, VERIFIER),
    ),
    # Neither a str nor by keyword, but then all seven are there.
    (("id", FILE, 3, None, CONTEXT, VERIFIER), {}, (None, CONTEXT, VERIFIER)),
    (("id", FILE, 3, None, CONTEXT), named(verifier=VERIFIER), (None, CONTEXT, VERIFIER)),
]

WITHOUT_ALGORITHM: list[tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = [
    (("id", FILE, 3), {}, (None, None)),
    (("id", FILE, 3, CONTEXT), {}, (CONTEXT, None)),
    (("id", FILE, 3, CONTEXT, VERIFIER), {}, (CONTEXT, VERIFIER)),
    (("id", FILE, 3, None), {}, (None, None)),
    (("id", FILE, 3), named(context=CONTEXT), (CONTEXT, None)),
    (("id", FILE, 3), named(context=CONTEXT, verifier=VERIFIER), (CONTEXT, VERIFIER)),
    (("id", FILE, 3, CONTEXT), named(verifier=VERIFIER), (CONTEXT, VERIFIER)),
    ((), named(image_id="id", image_file=FILE, image_size=3), (None, None)),
    (("id",), named(image_file=FILE, image_size=3), (None, None)),
    (("id", FILE), named(image_size=3), (None, None)),
    (("id", FILE), named(image_size=3, context=CONTEXT), (CONTEXT, None)),
    (
        (),
        named(image_id="id", image_file=FILE, image_size=3, context=CONTEXT, verifier=VERIFIER),
        (CONTEXT, VERIFIER),
    ),
]

WRONG: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    (("id",), {}),
    (("id", FILE), {}),
    (("id", FILE), named(context=CONTEXT)),
    (("id", FILE), named(hashing_algo=GIVEN)),
    (("id",), named(image_file=FILE)),
    (("id", FILE, 3), named(color="red")),
    (("id", FILE, 3, GIVEN), named(color="red")),
    (("id", FILE, 3, GIVEN, CONTEXT, VERIFIER, 7), {}),
    (("id", FILE, 3), named(image_size=3)),
]


@pytest.mark.parametrize(("args", "kwargs", "rest"), WITH_ALGORITHM)
def test_with_an_algorithm(
    args: tuple[Any, ...], kwargs: dict[str, Any], rest: tuple[Any, ...]
) -> None:
    result = Recorder().add(*args, **kwargs)
    assert result == ("url", 3, "checksum", "multihash", ("id", FILE, 3, *rest))


@pytest.mark.parametrize(("args", "kwargs", "rest"), WITHOUT_ALGORITHM)
def test_without_an_algorithm(
    args: tuple[Any, ...], kwargs: dict[str, Any], rest: tuple[Any, ...]
) -> None:
    result = Recorder().add(*args, **kwargs)
    assert result == ("url", 3, "checksum", ("id", FILE, 3, "md5", *rest))


@pytest.mark.parametrize(("args", "kwargs"), WRONG)
def test_arguments_that_add_does_not_have(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="argument"):
        Recorder().add(*args, **kwargs)


def test_the_decorated_method_keeps_its_name() -> None:
    assert Recorder.add.__name__ == "add"
    assert Recorder.add.__doc__ == "Documented."


COLOR = cfg.StrOpt("color", default="red")
LIMIT = cfg.IntOpt("limit")
EAGER = cfg.BoolOpt("eager", default=True)


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    options = cfg.ConfigOpts()
    options([])
    return options


def test_a_value_is_looked_up_in_three_places(conf: cfg.ConfigOpts) -> None:
    group = BackendGroupConfiguration([COLOR, LIMIT, EAGER], "cellar", conf)
    assert (group.color, group.limit, group.eager) == ("red", None, True)
    assert conf.cellar.color is None
    assert conf.cellar.eager is None
    assert conf.backend_defaults.color == "red"
    conf.set_override("color", "green", group="backend_defaults")
    assert group.color == "green"
    conf.set_override("color", "blue", group="cellar")
    assert group.color == "blue"
    assert conf.backend_defaults.color == "green"


def test_values_that_are_falsy_are_values(conf: cfg.ConfigOpts) -> None:
    group = BackendGroupConfiguration([COLOR, LIMIT, EAGER], "cellar", conf)
    for name, value in (("color", ""), ("limit", 0), ("eager", False)):
        conf.set_override(name, value, group="cellar")
        assert getattr(group, name) == value
        assert group.get(name, "default") == value


def test_each_store_has_its_own_values(conf: cfg.ConfigOpts) -> None:
    cellar = BackendGroupConfiguration([COLOR], "cellar", conf)
    attic = BackendGroupConfiguration([COLOR], "attic", conf)
    conf.set_override("color", "blue", group="cellar")
    assert (cellar.color, attic.color) == ("blue", "red")


def test_get_with_a_default(conf: cfg.ConfigOpts) -> None:
    group = BackendGroupConfiguration([COLOR, LIMIT], "cellar", conf)
    assert group.get("color") == "red"
    assert group.get("color", "default") == "red"
    assert group.get("limit") is None
    assert group.get("nonesuch") is None
    assert group.get("nonesuch", 7) == 7


def test_an_unknown_option(conf: cfg.ConfigOpts) -> None:
    group = BackendGroupConfiguration([COLOR], "cellar", conf)
    with pytest.raises(AttributeError, match="nonesuch"):
        group.nonesuch  # noqa: B018


def test_an_option_of_the_store_alone(conf: cfg.ConfigOpts) -> None:
    """As its description, which no other store can share."""
    conf.register_opt(LIMIT, group="cellar")
    group = BackendGroupConfiguration([COLOR], "cellar", conf)
    assert group.limit is None
    conf.set_override("limit", 7, group="cellar")
    assert group.limit == 7


def test_a_copy(conf: cfg.ConfigOpts) -> None:
    """Copying looks for methods on an object without attributes."""
    group = copy.copy(BackendGroupConfiguration([COLOR], "cellar", conf))
    assert (group.color, group.config_group) == ("red", "cellar")


def test_attributes(conf: cfg.ConfigOpts) -> None:
    group = BackendGroupConfiguration([COLOR], "cellar", conf)
    assert group.config_group == "cellar"
    assert group.conf is conf
    assert group.backend_conf.color is None
    assert group.shared_backend_conf.color == "red"


@pytest.mark.parametrize("name", [None, "backend_defaults"])
def test_the_shared_group_alone(conf: cfg.ConfigOpts, name: str | None) -> None:
    group = BackendGroupConfiguration([COLOR, LIMIT], name, conf)
    assert (group.config_group, group.color, group.limit) == ("backend_defaults", "red", None)
    assert conf.backend_defaults.color == "red"


def test_the_configuration_of_the_process_is_the_default(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cfg, "CONF", conf)
    assert BackendGroupConfiguration([COLOR], "cellar").conf is conf


def test_further_options(conf: cfg.ConfigOpts) -> None:
    group = BackendGroupConfiguration([COLOR], "cellar", conf)
    group.append_config_values([EAGER])
    assert group.eager is True
    assert conf.cellar.eager is None
    group.append_config_values([EAGER])
    assert group.eager is True


def test_another_default(conf: cfg.ConfigOpts) -> None:
    group = BackendGroupConfiguration([COLOR], "cellar", conf)
    group.set_default("color", "black")
    assert group.color == "black"
    assert conf.cellar.color is None
    conf.set_override("color", "blue", group="cellar")
    assert group.color == "blue"


def test_options_that_are_there_with_another_default_stay(conf: cfg.ConfigOpts) -> None:
    conf.register_opt(cfg.StrOpt("color", default="grey"), group="reserved")
    group = BackendGroupConfiguration([COLOR, LIMIT], "reserved", conf)
    assert (group.color, group.limit) == ("grey", None)
