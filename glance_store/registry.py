# SPDX-License-Identifier: Apache-2.0
"""Loads drivers, configures stores, and finds the store of an identifier, a scheme or a location.

One registry serves both modes. What it has loaded stands in the maps of `glance_store.location`,
which callers rebind: they are looked up at each call. `active_conf` remembers which configuration
the stores were created from, for the functions that take none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import stevedore.driver
import stevedore.extension
from oslo_config import cfg

from glance_store import capabilities, driver, exceptions, location
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

NAMESPACE = "glance_store.drivers"

_T = TypeVar("_T")

STORE_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "stores",
        default=["file", "http"],
        deprecated_for_removal=True,
        deprecated_since="Rocky",
        deprecated_reason=_(
            "One service can use several stores of a kind: name them in ``enabled_backends``."
        ),
        help=_(
            "Drivers that this service loads: file, http, swift, rbd, cinder, vmware, s3. Used "
            "only when ``enabled_backends`` is not set. A driver that cannot be loaded is skipped "
            "with a line in the log, and images in its store cannot be read."
        ),
    ),
    cfg.StrOpt(
        "default_store",
        default="file",
        choices=(
            "file",
            "filesystem",
            "http",
            "https",
            "swift",
            "swift+http",
            "swift+https",
            "swift+config",
            "rbd",
            "cinder",
            "vsphere",
            "s3",
        ),
        deprecated_for_removal=True,
        deprecated_since="Rocky",
        deprecated_reason=_("Its successor is ``default_backend``, with ``enabled_backends``."),
        help=_(
            "Scheme of the store that takes new images. Its driver must be one of ``stores``, and "
            "one that can write. Used only when ``enabled_backends`` is not set."
        ),
    ),
]

MULTI_STORE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "default_backend",
        help=_(
            "Identifier of the store that takes an image whose upload names no store. Must be one "
            "of the identifiers in ``enabled_backends``; the service does not start without it."
        ),
    ),
]


class _State:
    """What outlives a call: the configuration in use, reserved stores, stores that failed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.conf: cfg.ConfigOpts | None = None
        self.reserved: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        # {what is written to: identifier of the store that alone may do so}
        self.owners: dict[str, str] = {}


_STATE = _State()


def active_conf() -> cfg.ConfigOpts:
    """Return the configuration that the stores were created from, else the process-wide one."""
    return cfg.CONF if _STATE.conf is None else _STATE.conf


def failures() -> dict[str, str]:
    """Return the stores that could not be loaded, with the reason, from the last creation."""
    return dict(_STATE.failures)


# -- drivers and their options


def drivers() -> list[tuple[str, Any]]:
    """Return the installed drivers.

    :returns: pairs (entry point name, what it names), sorted by name; a driver that cannot be
        imported is left out, with a warning in the log
    """

    def on_failure(_manager: Any, entry_point: Any, error: BaseException) -> None:
        LOG.warning(
            "Driver %s cannot be imported, its options are unknown: %s", entry_point.name, error
        )

    manager = stevedore.extension.ExtensionManager(NAMESPACE, on_load_failure_callback=on_failure)
    # A name that two distributions declare is listed once; it cannot be loaded.
    plugins = {extension.name: extension.plugin for extension in manager}
    return sorted(plugins.items())


def drivers_once() -> list[tuple[str, Any]]:
    """Return the installed drivers without the further names that some of them have."""
    seen: list[Any] = []
    result = []
    for name, plugin in drivers():
        if not any(plugin is other for other in seen):
            seen.append(plugin)
            result.append((name, plugin))
    return result


def options_of(plugin: Any) -> list[cfg.Opt]:
    """Return the options of a driver, be it a class or a function."""
    return list(getattr(plugin, "OPTIONS", None) or [])


def reserved_opts(identifier: str) -> list[cfg.Opt]:
    """Return the options of a reserved store: those of the file driver, with a place of its own.

    They are separate definitions on purpose: a reserved store takes nothing from
    ``[backend_defaults]``, which is meant for stores of images.

    :param identifier: name of the store, such as ``os_glance_staging_store``
    """
    from glance_store._drivers.filesystem import options

    return options.reserved(identifier)


def load_store(
    conf: cfg.ConfigOpts, store_entry: str, invoke_load: bool = True, backend: str | None = None
) -> Any:
    """Load a driver and make a store of it, not yet configured.

    :param conf: the configuration to hand to it
    :param store_entry: entry point name of the driver
    :param invoke_load: False to get the driver itself instead of a store
    :param backend: identifier of the store in multi-store mode
    :returns: the store; None when the driver cannot be loaded (there is a warning in the log)
    :raises BadStoreConfiguration: from the constructor of the driver
    """
    arguments = [conf] if backend is None else [conf, backend]
    try:
        plugin: Any = stevedore.driver.DriverManager(
            NAMESPACE, store_entry, invoke_on_load=False
        ).driver
        return plugin(*arguments) if invoke_load else plugin
    except exceptions.GlanceStoreException:
        raise
    except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way
        # when it is loaded; the other stores of the configuration must not go down with it.
        LOG.warning(
            "Store %s: driver %s cannot be loaded and is skipped: %s",
            backend or store_entry,
            store_entry,
            exc,
        )
        _STATE.failures[backend or store_entry] = f"driver {store_entry} cannot be loaded: {exc}"
        return None


# -- creation


def create_stores(conf: cfg.ConfigOpts) -> int:
    """Create the stores of single-store mode and put them into `location.SCHEME_TO_CLS_MAP`.

    :param conf: the configuration
    :returns: how many entries of ``[glance_store] stores`` were loaded
    :raises BackendException: a driver names no scheme
    """
    with _STATE.lock:
        _STATE.conf = conf
        _STATE.failures = {}
        count = 0
        useless: list[str] = []
        for entry in sorted(set(conf.glance_store.stores)):
            store = _create(conf, entry)
            if store is None:
                continue
            schemes = _schemes(store, entry, useless)
            location.register_scheme_map({scheme: _entry(store, entry) for scheme in schemes})
            count += bool(schemes)
        _refuse(useless)
        return count


def create_multi_stores(conf: cfg.ConfigOpts, reserved_stores: dict[str, str] | None = None) -> int:
    """Create the stores of multi-store mode and put them into `location.SCHEME_TO_CLS_BACKEND_MAP`.

    :param conf: the configuration; its ``enabled_backends`` maps identifiers to drivers
    :param reserved_stores: further stores, in the same form, that users do not see
    :returns: number of pairs of identifier and scheme, which is more than that of stores
    :raises BackendException: a driver names no scheme
    """
    with _STATE.lock:
        _STATE.conf = conf
        _STATE.failures = {}
        _STATE.owners = {}
        if reserved_stores:
            _STATE.reserved = dict(reserved_stores)
        count = 0
        useless: list[str] = []
        for identifier, entry in _configured(conf):
            if identifier in _STATE.reserved:
                # Those of the others are registered by the store itself.
                register_backend_opts(conf, identifier, entry, reserved=True)
            store = _create(conf, entry, identifier)
            if store is None:
                # One that worked with an earlier configuration must not stay in use.
                _forget(identifier)
                continue
            _claim(store, identifier)
            schemes = _schemes(store, identifier, useless)
            location.register_scheme_backend_map(
                {scheme: {identifier: _entry(store, entry)} for scheme in schemes}
            )
            count += len(schemes)
        _refuse(useless)
        return count


def _forget(identifier: str) -> None:
    for by_identifier in location.SCHEME_TO_CLS_BACKEND_MAP.values():
        by_identifier.pop(identifier, None)


def _configured(conf: cfg.ConfigOpts) -> list[tuple[str, str]]:
    """Return (identifier, driver) of the enabled and the reserved stores."""
    enabled = getattr(conf, "enabled_backends", None) or {}
    return [*enabled.items(), *_STATE.reserved.items()]


def register_backend_opts(
    conf: cfg.ConfigOpts, identifier: str, store_entry: str, reserved: bool
) -> None:
    """Register the options of one store of multi-store mode in its group.

    :param conf: where to
    :param identifier: name of the store and of the group
    :param store_entry: entry point name of the driver, matched exactly
    :param reserved: whether it is a reserved store
    """
    if reserved:
        driver.register_each(
            conf, [*reserved_opts(identifier), *driver.Store.MULTI_BACKEND_OPTIONS], identifier
        )
        return
    plugin = load_store(conf, store_entry, invoke_load=False, backend=identifier)
    driver.register_each(conf, options_of(plugin), identifier)


def _create(conf: cfg.ConfigOpts, entry: str, identifier: str | None = None) -> Any:
    """Load and configure one store; None when it cannot be used, which is logged and remembered."""
    name = identifier or entry
    try:
        store = load_store(conf, entry, backend=identifier)
        if store is None:
            return None
        store.get_schemes()
        store.configure()
    except exceptions.GlanceStoreException as exc:
        _STATE.failures[name] = str(exc.msg)
        LOG.error("Store %s is skipped, the others stay in use: %s", name, exc.msg)
        return None
    except NotImplementedError as exc:
        _STATE.failures[name] = f"driver {entry} is incomplete: {exc}"
        LOG.error("Store %s is skipped: its driver %s is incomplete: %s", name, entry, exc)
        return None
    return store


def _schemes(store: Any, name: str, useless: list[str]) -> tuple[str, ...]:
    """Return the schemes of a store; one that has none is noted, and refused after the others."""
    schemes = tuple(store.get_schemes())
    if not schemes:
        _STATE.failures[name] = "its driver names no URI scheme"
        useless.append(name)
    return schemes


def _refuse(useless: list[str]) -> None:
    if useless:
        raise exceptions.BackendException(
            f"Store {', '.join(useless)} cannot be registered: its driver names no URI scheme"
        )


def _entry(store: Any, store_entry: str) -> dict[str, Any]:
    return {
        "store": store,
        "location_class": store.get_store_location_class(),
        "store_entry": store_entry,
    }


def _claim(store: Any, identifier: str) -> None:
    """Make a store read-only that would write to what another store of the configuration owns."""
    storage_ids = getattr(store, "storage_ids", None)
    if storage_ids is None:
        return
    for storage_id in sorted(storage_ids()):
        owner = _STATE.owners.setdefault(storage_id, identifier)
        if owner != identifier:
            store.disable_writes(
                f"{storage_id} belongs to the store {owner} already; two stores on one place "
                "delete each other's images: give each store a place of its own"
            )
            return


# -- look-up


def _reusable(store: Any) -> bool:
    return bool(store.is_capable(capabilities.BitMasks.DRIVER_REUSABLE))


def _rebuilt(info: dict[str, Any], backend: str | None) -> Any:
    """Return a new, configured store in the place of one that cannot be used twice."""
    with _STATE.lock:
        old = info["store"]
        store = load_store(old.conf, info["store_entry"], backend=backend)
        if store is None:
            raise exceptions.DriverLoadFailure(driver_name=info["store_entry"])
        store.configure()
        if backend is not None:
            _claim(store, backend)
        return store


def store_of_scheme(scheme: str) -> Any:
    """Return the store of single-store mode that serves a scheme.

    :raises UnknownScheme: there is none
    """
    info = location.SCHEME_TO_CLS_MAP.get(scheme)
    if info is None:
        raise exceptions.UnknownScheme(scheme=scheme)
    if _reusable(info["store"]):
        return info["store"]
    store = _rebuilt(info, None)
    location.register_scheme_map(
        {name: _entry(store, info["store_entry"]) for name in store.get_schemes()}
    )
    return store


def _loaded(identifier: str) -> dict[str, Any] | None:
    by_scheme = location.SCHEME_TO_CLS_BACKEND_MAP.values()
    return next((stores[identifier] for stores in by_scheme if identifier in stores), None)


def _enabled(identifier: str) -> dict[str, Any] | None:
    """Return the map entry of a store; None for one that could not be loaded.

    :raises UnknownScheme: it is not enabled
    """
    enabled = getattr(active_conf(), "enabled_backends", None) or {}
    if identifier not in enabled and identifier not in _STATE.reserved:
        raise exceptions.UnknownScheme(
            _("The store '%(store)s' is not in enabled_backends"), store=identifier
        )
    return _loaded(identifier)


def store_of_identifier(identifier: str) -> Any:
    """Return the store of multi-store mode with an identifier.

    :raises UnknownScheme: it is not enabled, or could not be loaded
    """
    info = _enabled(identifier)
    if info is None:
        raise exceptions.UnknownScheme(
            _("The store '%(store)s' is not available: %(reason)s"),
            store=identifier,
            reason=_STATE.failures.get(identifier, "it has not been loaded"),
        )
    if _reusable(info["store"]):
        return info["store"]
    store = _rebuilt(info, identifier)
    entry = _entry(store, info["store_entry"])
    location.register_scheme_backend_map(
        {scheme: {identifier: entry} for scheme in store.get_schemes()}
    )
    return store


def weight_of(identifier: str) -> int:
    """Return the weight of a store, without building anything; 0 for one that is not loaded.

    :raises UnknownScheme: the store is not enabled
    """
    info = _enabled(identifier)
    return 0 if info is None else int(getattr(info["store"], "weight", 0))


def stores() -> Iterator[tuple[str, str, Any]]:
    """Yield (identifier, driver, store) of the enabled and reserved stores that are loaded."""
    for identifier, entry in _configured(active_conf()):
        info = _loaded(identifier)
        if info is not None:
            yield identifier, entry, info["store"]


def candidates(uri: str) -> list[str]:
    """Return the identifiers of the stores that may hold a location, the likeliest first."""
    uri = location.normalized(uri)
    scheme = uri.partition(":")[0]
    by_identifier = location.SCHEME_TO_CLS_BACKEND_MAP.get(scheme, {})
    found = [name for name, _entry_name in _configured(active_conf()) if name in by_identifier]

    def fit(identifier: str) -> int:
        prefix = getattr(by_identifier[identifier]["store"], "url_prefix", None) or ""
        # By whole components: /srv/fast holds nothing that is in /srv/fast2.
        rest = uri[len(prefix) :]
        whole = not rest or prefix.endswith("/") or rest[0] == "/" or "://" not in prefix
        return len(prefix) if uri.startswith(prefix) and whole else 0

    return sorted(found, key=fit, reverse=True)


def first_that_has(uri: str, operation: Callable[[str], _T]) -> _T:
    """Try an operation on each store that may hold a location.

    :param uri: the location
    :param operation: called with the identifier of a store
    :returns: the first result
    :raises NotFound: no store has it
    :raises BadStoreUri: no store can make sense of it
    """
    malformed: exceptions.BadStoreUri | None = None
    missing = False
    for identifier in candidates(uri):
        try:
            return operation(identifier)
        except (exceptions.NotFound, exceptions.UnknownScheme):
            missing = True
        except exceptions.BadStoreUri as exc:
            malformed = exc
    if malformed is not None and not missing:
        raise malformed
    raise exceptions.NotFound(
        _("Image not found in any configured store: %(uri)s"), uri=location.redact(uri)
    )
