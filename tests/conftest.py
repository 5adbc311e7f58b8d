# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests: every test begins with no store, and leaves none behind."""

from __future__ import annotations

import gc
import importlib
import signal
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import stevedore.extension
from oslo_config import cfg

import glance_store
from glance_store import location, registry
from glance_store.testing import Kit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = [
    "glance_store.testing.selection",
    "tests.services.fixtures",
    "tests.grouping",
    "tests.timings",
]

# A shell has jobs in the background ignore Ctrl-C, nohup has them ignore a hang-up, and processes
# that the tests start would inherit that: they send these signals.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

OUTSIDE = Path(__file__).parent / "outside_driver"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure coverage where it costs little: not in what runs on servers, but for the kit once.

    It would be a fifth of what these tests compute; they compete with the servers for the cores.
    """
    for item in items:
        once = isinstance(item, pytest.Function) and issubclass(item.cls or object, Kit)
        if item.get_closest_marker("services") and not (once and item.cls.variant is None):
            item.add_marker("no_cover")


def _spare_the_collector() -> None:
    """Have the garbage collector look at what comes from now on, not at modules and tests."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """Tests make little, and some collect at each of their steps."""
    _spare_the_collector()


@pytest.fixture(autouse=True, scope="module")
def spared_collector() -> None:
    """Leave out what the tests before have imported."""
    _spare_the_collector()


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store, no reserved store, no remembered configuration."""
    monkeypatch.setattr(location, "SCHEME_TO_CLS_MAP", {})
    monkeypatch.setattr(location, "SCHEME_TO_CLS_BACKEND_MAP", {})
    monkeypatch.setattr(registry, "_STATE", registry._State())


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    """A configuration of its own, never called, with what the image service registers."""
    private = cfg.ConfigOpts()
    private.register_opt(cfg.DictOpt("enabled_backends"))
    return private


@pytest.fixture
def process_conf() -> Iterator[cfg.ConfigOpts]:
    """The configuration of the process, with what the image service registers; left as it was."""
    groups = {name: set(group._opts) for name, group in cfg.CONF._groups.items()}
    opts = set(cfg.CONF._opts)
    cfg.CONF.register_opt(cfg.DictOpt("enabled_backends"))
    yield cfg.CONF
    cfg.CONF.clear()
    for name, group in list(cfg.CONF._groups.items()):
        if name not in groups:
            del cfg.CONF._groups[name]
            continue
        for opt in set(group._opts) - groups[name]:
            del group._opts[opt]
    for opt in set(cfg.CONF._opts) - opts:
        del cfg.CONF._opts[opt]


def build_wheel(source: Path, target: Path) -> Path:
    """Build a distribution of pure modules, without a build tool and without a network."""
    project = tomllib.loads((source / "pyproject.toml").read_text())
    about = project["project"]
    stem = f"{about['name'].replace('-', '_')}-{about['version']}"
    members = {
        f"{module}.py": (source / f"{module}.py").read_text()
        for module in project["tool"]["setuptools"]["py-modules"]
    }
    members[f"{stem}.dist-info/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    )
    members[f"{stem}.dist-info/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    members[f"{stem}.dist-info/entry_points.txt"] = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in about["entry-points"].items()
    )
    record = f"{stem}.dist-info/RECORD"
    members[record] = "".join(f"{name},,\n" for name in [*members, record])
    wheel = target / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture(scope="session")
def outside_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of installed distributions that holds nothing but the outside driver."""
    folder = tmp_path_factory.mktemp("outside")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--no-index", "--no-deps", "--target", site, build_wheel(OUTSIDE, folder)],
        check=True,
    )
    return site


@pytest.fixture
def outside(outside_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The module of the outside driver, installed for the time of one test."""
    monkeypatch.syspath_prepend(outside_site)
    # Entry points are looked up once in a process; here the installed distributions change.
    monkeypatch.setattr(stevedore.extension.ExtensionManager, "ENTRY_POINT_CACHE", {})
    yield importlib.import_module("outside_driver")
    for name in ("outside_driver", "faulty_drivers", "driver_without_library"):
        sys.modules.pop(name, None)


@pytest.fixture
def create_multi(conf: cfg.ConfigOpts, tmp_path: Path) -> Callable[..., int]:
    """Create stores of multi-store mode; those of files lie in a directory of their own each."""

    def create(
        enabled: dict[str, str],
        reserved: dict[str, str] | None = None,
        options: dict[tuple[str, str], object] | None = None,
        conf: cfg.ConfigOpts = conf,
    ) -> int:
        conf.set_override("enabled_backends", enabled)
        glance_store.register_store_opts(conf, reserved)
        for identifier, driver in {**enabled, **(reserved or {})}.items():
            if driver in ("file", "glance.store.filesystem.Store"):
                place = str(tmp_path / identifier)
                conf.set_override("filesystem_store_datadir", place, group=identifier)
        for (group, name), value in (options or {}).items():
            conf.set_override(name, value, group=group)
        return glance_store.create_multi_stores(conf, reserved)

    return create


@pytest.fixture
def create_single(conf: cfg.ConfigOpts, tmp_path: Path) -> Callable[..., int]:
    """Create stores of single-store mode; that of files lies in the directory of the test."""

    def create(
        stores: list[str],
        options: dict[str, object] | None = None,
        conf: cfg.ConfigOpts = conf,
    ) -> int:
        glance_store.register_opts(conf)
        conf.set_override("stores", stores, group="glance_store")
        conf.set_override("filesystem_store_datadir", str(tmp_path), group="glance_store")
        for name, value in (options or {}).items():
            conf.set_override(name, value, group="glance_store")
        return glance_store.create_stores(conf)

    return create
