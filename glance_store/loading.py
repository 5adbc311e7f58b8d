# SPDX-License-Identifier: Apache-2.0
"""Finds the drivers that are installed, and loads them."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable
from typing import Any

import stevedore.driver
import stevedore.exception
import stevedore.extension
from oslo_config import cfg

from glance_store import exceptions, observers, sharing, store_options
from glance_store.driver import Store
from glance_store.location import one_line

LOG = logging.getLogger(__name__)

NAMESPACE = "glance_store.drivers"
OBSERVERS = "glance_store.observers"

# Observers that a configuration has named, by name; each is created once.
_OBSERVERS: dict[str, Any] = {}


def drivers() -> list[tuple[str, Any]]:
    """Return (entry point name, driver) pairs, sorted; skip drivers that cannot be imported."""

    def on_failure(_manager: Any, entry_point: Any, error: BaseException) -> None:
        LOG.warning(
            "Driver %s cannot be imported; its options are unknown: %s",
            entry_point.name,
            one_line(error),
        )

    manager = stevedore.extension.ExtensionManager(NAMESPACE, on_load_failure_callback=on_failure)
    # A name declared by two distributions is listed once here, but cannot be loaded.
    plugins = {extension.name: extension.plugin for extension in manager}
    return sorted(plugins.items())


def drivers_once() -> list[tuple[str, Any]]:
    """Return the installed drivers, each under its first name only."""
    seen: list[Any] = []
    result = []
    for name, plugin in drivers():
        if not any(plugin is other for other in seen):
            seen.append(plugin)
            result.append((name, plugin))
    return result


def options_of(plugin: Any) -> list[cfg.Opt]:
    """Return the options of a driver, which may be a class or a function."""
    options = getattr(plugin, "OPTIONS", None)
    if not isinstance(options, Iterable):
        return []
    return [opt for opt in options if isinstance(opt, cfg.Opt)]


def reserved_opts(identifier: str) -> list[cfg.Opt]:
    """Return the options of a reserved store such as ``os_glance_staging_store``.

    They are the file driver's, with a directory of its own. They are defined separately because a
    reserved store takes nothing from ``[backend_defaults]``, which is meant for stores of images.
    """
    from glance_store._drivers.filesystem import options

    return options.reserved(identifier)


def load_store(
    conf: cfg.ConfigOpts, store_entry: str, invoke_load: bool = True, backend: str | None = None
) -> Any:
    """Load a driver and create a store, not yet configured; None if the driver cannot be loaded.

    With `invoke_load` False, return the driver instead of a store.
    """
    try:
        plugin = load_driver(store_entry, backend)
        return make_store(plugin, conf, store_entry, backend) if invoke_load else plugin
    except exceptions.DriverLoadFailure as exc:
        name = backend or store_entry
        LOG.warning(
            "Store %s is skipped: driver %s cannot be loaded: %s", name, store_entry, exc.msg
        )
        return None


def load_driver(store_entry: str, identifier: str | None) -> Any:
    """Return a driver, or raise DriverLoadFailure."""
    try:
        return stevedore.driver.DriverManager(NAMESPACE, store_entry, invoke_on_load=False).driver
    except stevedore.exception.NoMatches as exc:
        reason = _unknown_driver(store_entry, identifier) or one_line(exc)
    except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way
        # It must not take the other stores down with it.
        reason = one_line(exc)
    raise exceptions.DriverLoadFailure(f"driver {store_entry} cannot be loaded: {reason}")


def make_store(plugin: Any, conf: cfg.ConfigOpts, store_entry: str, identifier: str | None) -> Any:
    """Create a store, not yet configured; DriverLoadFailure if its constructor fails."""
    try:
        store = plugin(conf) if identifier is None else plugin(conf, identifier)
    except exceptions.GlanceStoreException:
        raise
    except Exception as exc:
        raise exceptions.DriverLoadFailure(
            f"driver {store_entry} cannot be loaded: {one_line(exc)}"
        ) from exc
    if isinstance(store, Store):
        store.driver_entry = store_entry
    return store


def _unknown_driver(store_entry: str, identifier: str | None) -> str | None:
    """Say which option names a driver that is not installed; None if it is installed."""
    names = {point.name for point in importlib.metadata.entry_points(group=NAMESPACE)}
    if store_entry in names:
        return None
    option, value = "[glance_store] stores", store_entry
    if identifier is not None:
        option, value = "[DEFAULT] enabled_backends", f"{identifier}:{store_entry}"
    known = ", ".join(sorted(name for name in names if not name.startswith("glance.store.")))
    return f"{option} names {value}, but there is no such driver; installed drivers: {known}"


def register_backend_opts(
    conf: cfg.ConfigOpts, identifier: str, store_entry: str, reserved: bool
) -> None:
    """Register the options of one store of multi-store mode in the group named after it."""
    if reserved:
        opts = reserved_opts(identifier)
        store_options.register_each(conf, [*opts, *store_options.MULTI_BACKEND_OPTIONS], identifier)
        return
    try:
        plugin = load_driver(store_entry, identifier)
    except exceptions.DriverLoadFailure as exc:
        # Creating the store logs it as a warning.
        LOG.debug("Store %s: no options registered: %s", identifier, exc.msg)
        return
    store_options.register_each(conf, [*options_of(plugin), *sharing.OPTIONS], identifier)


def enable_observers(names: Iterable[str]) -> None:
    """Enable the installed observers with these entry point names, and disable all others.

    One that cannot be loaded is skipped, with an error in the log.
    """
    wanted = set(names)
    for name in sorted(wanted - _OBSERVERS.keys()):
        try:
            found: Any = stevedore.driver.DriverManager(OBSERVERS, name, invoke_on_load=True)
            _OBSERVERS[name] = found.driver
        except Exception as exc:  # noqa: BLE001 - it may fail in any way
            # The stores work without it.
            LOG.error(
                "[glance_store] store_observers: %s cannot be loaded: %s", name, one_line(exc)
            )
    for name, observer in _OBSERVERS.items():
        (observers.register if name in wanted else observers.unregister)(observer)
