# SPDX-License-Identifier: Apache-2.0
"""The configuration of the command: that of the image service, read into an object of its own."""

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

# The service's own stores. Loading them creates their directories: only where they are configured.
RESERVED_STORES = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}

# What the drivers of this package serve; to ask them would take their modules and clients.
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
    """Read the configuration.

    :param files: paths of configuration files, later ones win
    :param directories: paths of directories with ``*.conf`` files, read after the files
    :returns: a new configuration; the process-wide one is not touched
    :raises UsageError: no path is given, and the service's own file does not exist
    :raises oslo_config.cfg.Error: a file is missing or malformed
    """
    if not files and not directories:
        if not os.path.exists(DEFAULT_CONFIG_FILE):
            raise UsageError(
                f"there is no {DEFAULT_CONFIG_FILE}: name the image service's configuration with "
                "--config-file"
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
        raise UsageError(f"{_undecodable(files, directories)} is not text in UTF-8") from exc
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
    """What a command is about; the stores that have nothing to do with it are not loaded.

    :param uri: location of an image, None for a new image
    :param store: name of its store, None to search; for a new image: the default store
    :param writes: whether the store is written to
    """

    uri: str | None = None
    store: str | None = None
    writes: bool = False


def open_stores(conf: cfg.ConfigOpts, *needs: Needs) -> Stores:
    """Load stores of a configuration, in the mode that it asks for.

    :param conf: the result of `load`
    :param needs: what they are needed for, none to load all
    :returns: multi-store mode when ``enabled_backends`` is set, else single-store mode
    :raises UsageError: a store cannot be registered at all, or the location is none
    """
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
            # Each registers its own options: those of all drivers would take all their modules.
            conf.set_override("stores", list(drivers), "glance_store")
            backend.create_stores(conf)
    except exceptions.BackendException as exc:
        raise UsageError(str(exc)) from exc
    # A reserved store is remembered for the life of the process.
    return Stores(conf, {**RESERVED_STORES, **drivers}, multi)


def names(conf: cfg.ConfigOpts) -> list[str]:
    """Return the names of all stores of a configuration, without loading any.

    :param conf: the result of `load`
    """
    return list(_configured(conf, bool(conf.enabled_backends)))


def _configured(conf: cfg.ConfigOpts, multi: bool) -> dict[str, str]:
    """Return {name: driver} of all stores."""
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
    """Return those of the stores that a command needs."""
    wanted = needs.store or (None if needs.uri else default_store(conf, multi))
    schemes: frozenset[str] = frozenset()
    if needs.uri and not (multi and needs.store):
        wanted, schemes = None, frozenset({scheme_of(needs.uri)})
    elif wanted and not multi:
        schemes = frozenset({wanted})
    elif needs.writes and wanted in drivers:
        # A store is read-only where one of its kind before it owns what it would write to.
        schemes = _schemes_of(conf, wanted, drivers[wanted]) or schemes
        before = list(drivers).index(wanted)
        drivers = dict(list(drivers.items())[: before + 1])
    known = {name: _schemes_of(conf, name, drivers[name]) for name in drivers if schemes}
    chosen = [name for name in drivers if name == wanted or schemes & (known.get(name) or set())]
    if not chosen:
        # One whose driver cannot be loaded may be the one: the attempt says why.
        chosen = [name for name in known if known[name] is None]
    return {name: drivers[name] for name in chosen}


def _schemes_of(conf: cfg.ConfigOpts, name: str, entry: str) -> frozenset[str] | None:
    """Return the schemes that a driver serves, None when it cannot be loaded."""
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
