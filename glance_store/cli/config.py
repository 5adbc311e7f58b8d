# SPDX-License-Identifier: Apache-2.0
"""Reads the configuration of the image service, for the command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import stevedore.driver
from oslo_config import cfg

from glance_store import backend, exceptions, loading, multi_backend, store_options
from glance_store.cli.errors import UsageError
from glance_store.cli.stores import Stores, default_store, scheme_of

DEFAULT_CONFIG_FILE = "/etc/glance/glance-api.conf"
DEFAULT_CONFIG_DIR = "/etc/glance/glance-api.conf.d"

# The service's own stores. Loading them creates their directories, so only configured ones are
# loaded.
RESERVED_STORES = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}

# The schemes of the built-in drivers: asking the drivers would import them and their clients.
_HTTP = frozenset({"http", "https"})
_FILE = frozenset({"file", "filesystem"})
_VMWARE = frozenset({"vsphere"})
_SCHEMES = {
    "cinder": frozenset({"cinder"}),
    "file": _FILE,
    "filesystem": _FILE,
    "http": _HTTP,
    "rbd": frozenset({"rbd"}),
    "s3": frozenset({"s3", "s3+http", "s3+https"}),
    "swift": frozenset({"swift", "swift+http", "swift+https", "swift+config"}),
    "vmware": _VMWARE,
    "vmware_datastore": _VMWARE,
}

_ENABLED_BACKENDS = cfg.DictOpt(
    "enabled_backends", help="Stores of multi-store mode, as identifier:driver pairs."
)


def load(files: Sequence[str], directories: Sequence[str]) -> cfg.ConfigOpts:
    """Read the configuration into a new object, and leave the process-wide one alone."""
    if not files and not directories:
        if not os.path.exists(DEFAULT_CONFIG_FILE):
            raise UsageError(
                f"{DEFAULT_CONFIG_FILE} does not exist: name the image service's configuration "
                "with --config-file"
            )
        files = [DEFAULT_CONFIG_FILE]
        directories = [DEFAULT_CONFIG_DIR] if os.path.isdir(DEFAULT_CONFIG_DIR) else []
    for path in files:
        if os.path.isdir(path):
            raise UsageError(f"{path} is a directory: use --config-dir for it")
    arguments = [f"--config-file={os.path.abspath(path)}" for path in files]
    arguments += [f"--config-dir={os.path.abspath(path)}" for path in directories]
    conf = cfg.ConfigOpts()
    conf.register_opt(_ENABLED_BACKENDS)
    try:
        conf(arguments, project="glance", default_config_files=[], default_config_dirs=[])
    except UnicodeDecodeError as exc:
        raise UsageError(f"{_undecodable(files, directories)} is not UTF-8 text") from exc
    return conf


def _undecodable(files: Sequence[str], directories: Sequence[str]) -> str:
    """Return the configuration file that is not UTF-8."""
    found = [Path(path) for path in files]
    for directory in directories:
        found += sorted(Path(directory).glob("*.conf"))
    for path in found:
        try:
            path.read_text("utf-8")
        except UnicodeDecodeError:
            return str(path)
    return "a configuration file"


class Needs(NamedTuple):
    """An image or a store that a command works on; stores that no command needs are not loaded."""

    uri: str | None = None  # location of the image, None for a new one
    store: str | None = None  # its store; None: search, or the default store for a new image
    writes: bool = False


def open_stores(conf: cfg.ConfigOpts, *needs: Needs) -> Stores:
    """Load the stores that `needs` call for, or all if there are none."""
    multi = bool(conf.enabled_backends)
    drivers = _configured(conf, multi)
    if needs:
        names = {name for need in needs for name in _needed(conf, drivers, multi, need)}
        drivers = {name: entry for name, entry in drivers.items() if name in names}
    try:
        if multi:
            reserved = {name: drivers[name] for name in RESERVED_STORES if name in drivers}
            enabled = {name: drivers[name] for name in drivers if name not in reserved}
            conf.set_override("enabled_backends", enabled)
            multi_backend.register_store_opts(conf, reserved)
            multi_backend.create_multi_stores(conf, reserved)
        else:
            # Each store registers its own options: registering all would import every driver.
            conf.set_override("stores", list(drivers), "glance_store")
            backend.create_stores(conf)
    except exceptions.BackendException as exc:
        raise UsageError(str(exc)) from exc
    # Reserved stores are remembered for the life of the process.
    return Stores(conf, {**RESERVED_STORES, **drivers}, multi)


def names(conf: cfg.ConfigOpts) -> list[str]:
    """Return the names of all configured stores without loading any."""
    return list(_configured(conf, bool(conf.enabled_backends)))


def _configured(conf: cfg.ConfigOpts, multi: bool) -> dict[str, str]:
    """Return {name: driver} of all configured stores."""
    opts = store_options.MULTI_STORE_OPTS if multi else store_options.STORE_OPTS
    store_options.register_each(conf, opts, store_options.DEFAULT_GROUP)
    if not multi:
        return {entry: entry for entry in conf.glance_store.stores}
    sections = set(conf.list_all_sections())
    reserved = {name: entry for name, entry in RESERVED_STORES.items() if name in sections}
    return {**conf.enabled_backends, **reserved}


def _needed(
    conf: cfg.ConfigOpts, drivers: dict[str, str], multi: bool, needs: Needs
) -> dict[str, str]:
    """Return {name: driver} of the stores that a command needs."""
    wanted = needs.store or (None if needs.uri else default_store(conf, multi))
    schemes: frozenset[str] = frozenset()
    if needs.uri and not (multi and needs.store):
        wanted, schemes = None, frozenset({scheme_of(needs.uri)})
    elif wanted and not multi:
        schemes = frozenset({wanted})
    elif needs.writes and wanted in drivers:
        # A store is read-only if an earlier one of its kind owns the same storage.
        schemes = _schemes_of(conf, wanted, drivers[wanted]) or schemes
        before = list(drivers).index(wanted)
        drivers = dict(list(drivers.items())[: before + 1])
    known = {name: _schemes_of(conf, name, drivers[name]) for name in drivers if schemes}
    chosen = [name for name in drivers if name == wanted or schemes & (known.get(name) or set())]
    if not chosen:
        # It may be a store whose driver cannot be loaded: the attempt shows why.
        chosen = [name for name in known if known[name] is None]
    return {name: drivers[name] for name in chosen}


def _schemes_of(conf: cfg.ConfigOpts, name: str, entry: str) -> frozenset[str] | None:
    """Return the schemes that a driver serves, None if it cannot be loaded."""
    schemes = _SCHEMES.get(entry.removeprefix("glance.store.").removesuffix(".Store"))
    if schemes is not None:
        return schemes
    try:
        plugin: Any = stevedore.driver.DriverManager(
            loading.NAMESPACE, entry, invoke_on_load=False
        ).driver
        return frozenset(
            (plugin(conf, name) if conf.enabled_backends else plugin(conf)).get_schemes()
        )
    except Exception:  # noqa: BLE001 - a driver from outside may fail in any way; the registry
        # says so if its store is needed.
        return None
