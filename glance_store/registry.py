# SPDX-License-Identifier: Apache-2.0
"""Creates and configures stores, and finds a store by identifier, scheme or location.

One registry serves both modes. Loaded stores are in the maps of `glance_store.location`; callers
rebind these, so they are looked up on each call. Functions that take no configuration use
`active_conf`, the one the stores were created from.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from oslo_config import cfg

from glance_store import capabilities, exceptions, loading, location, sharing, store_options
from glance_store.driver import Store
from glance_store.i18n import _
from glance_store.location import one_line
from glance_store.outages import OUTAGES, Outages

LOG = logging.getLogger(__name__)

_T = TypeVar("_T")


class _State:
    """State between calls: the configuration in use, reserved stores, stores that failed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.conf: cfg.ConfigOpts | None = None
        self.multi = False
        self.reserved: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.outages = Outages()
        # {storage id: identifier of the only store that may write there}
        self.owners: dict[str, str] = {}
        # Options whose values are overridden, as (group, option).
        self.set_aside: list[tuple[str, str]] = []

    def begin(self, conf: cfg.ConfigOpts, multi: bool) -> None:
        """Forget the stores created before."""
        if self.conf is not None:
            for group, option in self.set_aside:
                self.conf.clear_override(option, group=group)
        self.conf, self.multi = conf, multi
        self.failures, self.owners, self.set_aside = {}, {}, []

    def after_fork(self) -> None:
        """Replace locks: the threads that held them do not exist in this process."""
        self.lock = threading.RLock()
        self.outages.after_fork()


_STATE = _State()


def _after_fork() -> None:
    _STATE.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def active_conf() -> cfg.ConfigOpts:
    """Return the configuration the stores were created from, or the process-wide one."""
    return cfg.CONF if _STATE.conf is None else _STATE.conf


def failures() -> dict[str, str]:
    """Return {name: reason} of the stores that could not be loaded."""
    return dict(_STATE.failures)


# -- creation


def create_stores(conf: cfg.ConfigOpts) -> int:
    """Create the stores of single-store mode; see `glance_store.backend.create_stores`."""
    with _STATE.lock:
        made = _create_all(conf, multi=False)
        current = {scheme: _entry(one.store, one.entry) for one in made for scheme in one.schemes}
        location.register_scheme_map(current)
        # A store from an earlier configuration must not stay in use.
        for scheme in location.SCHEME_TO_CLS_MAP.keys() - current.keys():
            del location.SCHEME_TO_CLS_MAP[scheme]
        _refuse(made)
        return len(made)


def create_multi_stores(conf: cfg.ConfigOpts, reserved_stores: dict[str, str] | None = None) -> int:
    """Create the stores of multi-store mode; see `multi_backend.create_multi_stores`."""
    with _STATE.lock:
        if reserved_stores:
            _STATE.reserved = dict(reserved_stores)
        made = _create_all(conf, multi=True)
        current = {(scheme, one.name): one for one in made for scheme in one.schemes}
        for (scheme, identifier), one in current.items():
            entry = _entry(one.store, one.entry)
            location.register_scheme_backend_map({scheme: {identifier: entry}})
        _forget_others(current)
        _refuse(made)
        return len(current)


class _Made(NamedTuple):
    """A store that was created: its identifier, or driver in single-store mode."""

    name: str
    entry: str
    store: Any
    schemes: tuple[str, ...]


def _create_all(conf: cfg.ConfigOpts, multi: bool) -> list[_Made]:
    """Load and configure the stores of a configuration, in place of those created before."""
    _STATE.begin(conf, multi)
    opt = store_options.OBSERVERS_OPT
    store_options.register_each(conf, [opt], store_options.DEFAULT_GROUP)
    loading.enable_observers(conf.glance_store[opt.name])
    bad_values: list[store_options.Mistake] = []
    made = []
    # Without identifiers, drivers name the stores.
    names = _configured(conf) if multi else sorted({(one, one) for one in conf.glance_store.stores})
    for name, entry in names:
        store = _create(conf, entry, name if multi else None, bad_values)
        if store is not None:
            made.append(_Made(name, entry, store, tuple(store.get_schemes())))
    # Their stores are skipped, but the image service reads the description and weight of every
    # store, and logs all options: a bad value would make it fail as a whole.
    _set_aside(conf, [(bad.group, bad.opt) for bad in bad_values])
    return made


def _forget_others(current: Container[tuple[str, str]]) -> None:
    """Forget stores of an earlier configuration: the image service, too, looks into the map."""
    for scheme, by_identifier in location.SCHEME_TO_CLS_BACKEND_MAP.items():
        for identifier in list(by_identifier):
            if (scheme, identifier) not in current:
                del by_identifier[identifier]


def _set_aside(conf: cfg.ConfigOpts, values: Iterable[tuple[str, cfg.Opt]]) -> None:
    """Override the values of options, each with its group, with their defaults."""
    for group, opt in values:
        conf.set_override(opt.dest, opt.default, group=group)
        _STATE.set_aside.append((group, opt.dest))


def _configured(conf: cfg.ConfigOpts) -> list[tuple[str, str]]:
    """Return (identifier, driver) pairs of the enabled and reserved stores."""
    enabled = getattr(conf, "enabled_backends", None) or {}
    return [*enabled.items(), *_STATE.reserved.items()]


def _create(
    conf: cfg.ConfigOpts,
    entry: str,
    identifier: str | None,
    bad_values: list[store_options.Mistake],
) -> Any:
    """Load and configure one store; None if that fails. Bad option values go to `bad_values`."""
    name = identifier or entry
    plugin, problems = None, []
    try:
        plugin = loading.load_driver(entry, identifier)
    except exceptions.DriverLoadFailure as exc:
        problems.append(str(exc.msg))
    found = _mistakes(conf, plugin, identifier)
    bad_values += found
    problems += map(str, found)
    if problems:
        # A driver that is not installed has always been a warning only.
        level = logging.WARNING if plugin is None else logging.ERROR
        return _skip(name, "; ".join(problems), level)
    try:
        store = loading.make_store(plugin, conf, entry, identifier)
        tuple(store.get_schemes())
        _STATE.outages.configure(store, name, lambda: _configure(store, identifier))
        store.get_store_location_class()
    except exceptions.GlanceStoreException as exc:
        return _skip(name, one_line(exc))
    except NotImplementedError as exc:
        return _skip(name, f"driver {entry} is incomplete: {one_line(exc)}")
    except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way
        return _skip(name, f"driver {entry} failed: {type(exc).__name__}: {one_line(exc)}")
    return store


def _skip(name: str, reason: str, level: int = logging.ERROR) -> None:
    _STATE.failures[name] = reason
    LOG.log(level, "Store %s is skipped; the others stay in use: %s", name, reason)


def _mistakes(
    conf: cfg.ConfigOpts, plugin: Any, identifier: str | None
) -> list[store_options.Mistake]:
    """Register the options of a store, and return its bad values."""
    reserved = identifier in _STATE.reserved
    opts = (
        loading.reserved_opts(str(identifier))
        if reserved
        else [*loading.options_of(plugin), *sharing.OPTIONS]
    )
    own = [] if identifier is None else store_options.MULTI_BACKEND_OPTIONS
    groups = [identifier or store_options.DEFAULT_GROUP]
    if identifier is not None and not reserved:
        groups.append(store_options.SHARED_CONF_GROUP)
        store_options.register_each(conf, opts, store_options.SHARED_CONF_GROUP)
    store_options.register_each(conf, [*opts, *own], groups[0])
    # Only in the last group: an empty value before it means "look in the next group".
    _fill_gaps(conf, opts, groups[-1])
    _fill_gaps(conf, own, groups[0])
    return store_options.mistakes(conf, [*opts, *own], groups)


def _fill_gaps(conf: cfg.ConfigOpts, opts: Sequence[cfg.Opt], group: str) -> None:
    """Treat options with an empty value, such as ``weight =``, as not set."""
    _set_aside(conf, [(group, opt) for opt in store_options.gaps(conf, opts, group)])


def _configure(store: Any, identifier: str | None) -> None:
    store.configure()
    if identifier is not None:
        _claim(store, identifier)


def _refuse(made: Sequence[_Made]) -> None:
    """Raise if the driver of a store has no scheme."""
    names = [one.name for one in made if not one.schemes]
    _STATE.failures.update(dict.fromkeys(names, "its driver has no URI scheme"))
    if names:
        raise exceptions.BackendException(
            f"Store {', '.join(names)} cannot be registered: its driver has no URI scheme"
        )


def _entry(store: Any, store_entry: str) -> dict[str, Any]:
    return {
        "store": store,
        "location_class": store.get_store_location_class(),
        "store_entry": store_entry,
    }


def _claim(store: Any, identifier: str) -> None:
    """Make a store read-only if it would write where another configured store writes."""
    storage_ids = getattr(store, "storage_ids", None)
    if storage_ids is None:
        return
    for storage_id in sorted(storage_ids()):
        owner = _STATE.owners.setdefault(storage_id, identifier)
        if owner != identifier:
            store.disable_writes(
                f"{storage_id} already belongs to the store {owner}; two stores in one place "
                "delete each other's images: give each store a place of its own"
            )
            return


# -- look-up


def _reusable(store: Any) -> bool:
    return bool(store.is_capable(capabilities.BitMasks.DRIVER_REUSABLE))


def _rebuild(info: dict[str, Any], backend: str | None) -> Any:
    """Create and configure a store to replace one whose driver is not reusable."""
    with _STATE.lock:
        old = info["store"]
        entry = info["store_entry"]
        store = loading.make_store(loading.load_driver(entry, backend), old.conf, entry, backend)
        try:
            _configure(store, backend)
        except OUTAGES as exc:
            raise _unavailable(backend or entry, one_line(exc)) from exc
        return store


def _unavailable(name: str, reason: str) -> exceptions.BackendUnavailable:
    return exceptions.BackendUnavailable(
        _("The store '%(store)s' cannot reach its backend: %(reason)s"), store=name, reason=reason
    )


def _ready(store: Any, name: str, identifier: str | None, must_be: bool) -> Any:
    """Return a store, configured now if an outage prevented that before.

    :raises BackendUnavailable: the store `must_be` ready, but its backend still cannot be reached
    """
    reason = _STATE.outages.configure_again(store, name, lambda: _configure(store, identifier))
    if reason is not None and must_be:
        raise _unavailable(name, reason)
    return store


def store_of_scheme(scheme: str, ready: bool = False) -> Any:
    """Return the store that serves a scheme in single-store mode.

    :raises UnknownScheme: there is none
    :raises BackendUnavailable: it must be `ready`, but could not be configured so far
    """
    info = location.SCHEME_TO_CLS_MAP.get(scheme)
    if info is None:
        raise exceptions.UnknownScheme(scheme=scheme)
    if _reusable(info["store"]):
        return _ready(info["store"], info["store_entry"], None, ready)
    store = _rebuild(info, None)
    location.register_scheme_map(
        {name: _entry(store, info["store_entry"]) for name in store.get_schemes()}
    )
    return store


def _loaded(identifier: str) -> dict[str, Any] | None:
    by_scheme = location.SCHEME_TO_CLS_BACKEND_MAP.values()
    return next((stores[identifier] for stores in by_scheme if identifier in stores), None)


def _enabled(identifier: str) -> dict[str, Any] | None:
    """Return the map entry of an enabled store; None if it could not be loaded."""
    enabled = getattr(active_conf(), "enabled_backends", None) or {}
    if identifier not in enabled and identifier not in _STATE.reserved:
        raise exceptions.UnknownScheme(
            _("The store '%(store)s' is not in enabled_backends"), store=identifier
        )
    return _loaded(identifier)


def store_of_identifier(identifier: str, ready: bool = False) -> Any:
    """Return a store of multi-store mode.

    :raises UnknownScheme: it is not enabled, or could not be loaded
    :raises BackendUnavailable: it must be `ready`, but could not be configured so far
    """
    info = _enabled(identifier)
    if info is None:
        raise exceptions.UnknownScheme(
            _("The store '%(store)s' is not available: %(reason)s"),
            store=identifier,
            reason=_STATE.failures.get(identifier, "it is not loaded"),
        )
    if _reusable(info["store"]):
        return _ready(info["store"], identifier, identifier, ready)
    store = _rebuild(info, identifier)
    entry = _entry(store, info["store_entry"])
    location.register_scheme_backend_map(
        {scheme: {identifier: entry} for scheme in store.get_schemes()}
    )
    return store


def located(uri: str, identifier: str | None = None) -> tuple[Any, location.Location]:
    """Return the store of a location, ready for use, and the parsed location.

    :raises UnknownScheme: no loaded store serves the scheme, or this one does not
    :raises BadStoreUri: the location is malformed
    :raises BackendUnavailable: the store could not be configured so far
    """
    loc = parsed(uri, identifier)
    return store_for(loc), loc


def parsed(uri: str, identifier: str | None = None) -> location.Location:
    """Return a location of a loaded store; raise as `located` if it is not one."""
    conf = active_conf()
    if identifier is None:
        return location.get_location_from_uri(uri, conf=conf)
    return location.get_location_from_uri_and_backend(uri, identifier, conf=conf)


def store_for(loc: location.Location) -> Any:
    """Return the store of a parsed location, ready for use; raise as `located` if it is not."""
    if loc.backend_group is None:
        return store_of_scheme(loc.store_name, ready=True)
    return store_of_identifier(loc.backend_group, ready=True)


def has_acls(loc: location.Location) -> bool:
    """Tell whether the store of a parsed location has access control lists, ready or not."""
    if loc.backend_group is None:
        info = location.SCHEME_TO_CLS_MAP[loc.store_name]
    else:
        info = location.SCHEME_TO_CLS_BACKEND_MAP[loc.store_name][loc.backend_group]
    return getattr(type(info["store"]), "set_acls", None) is not Store.set_acls


def failed_without_acls(identifier: str | None) -> bool:
    """Tell whether a store could not be loaded, and its driver has no access control lists."""
    entry = dict(_configured(active_conf())).get(identifier or "")
    if entry is None or identifier not in _STATE.failures:
        return False
    try:
        plugin = loading.load_driver(entry, identifier)
    except exceptions.DriverLoadFailure:
        return False
    return getattr(plugin, "set_acls", None) is Store.set_acls


def weight_of(identifier: str) -> int:
    """Return the weight of an enabled store without building anything; 0 if it is not loaded."""
    info = _enabled(identifier)
    return 0 if info is None else int(getattr(info["store"], "weight", 0))


def stores() -> Iterator[tuple[str, str, Any]]:
    """Yield (identifier, driver, store) of each loaded store, reserved ones included."""
    for identifier, entry in _configured(active_conf()):
        info = _loaded(identifier)
        if info is not None:
            yield identifier, entry, info["store"]


def loaded_stores() -> dict[str, Any]:
    """Return the loaded stores by identifier, or by driver in single-store mode."""
    if _STATE.multi:
        return {name: store for name, _entry_name, store in stores()}
    conf = active_conf()
    return {
        str(info["store_entry"]): info["store"]
        for info in location.SCHEME_TO_CLS_MAP.values()
        if getattr(info["store"], "conf", None) is conf
    }


def ready_store(name: str) -> Any:
    """Return a store by its key in `loaded_stores`, configured again after an outage.

    :raises UnknownScheme: there is no such store
    :raises BackendUnavailable: it could not be configured so far
    """
    if _STATE.multi:
        return store_of_identifier(name, ready=True)
    store = loaded_stores().get(name)
    if store is None:
        raise exceptions.UnknownScheme(scheme=name)
    return store_of_scheme(store.get_schemes()[0], ready=True)


def candidates(uri: str) -> list[str]:
    """Return the identifiers of the stores that may hold a location, the likeliest first."""
    location.check_is_text(uri)
    uri = location.normalized(uri)
    scheme = uri.partition(":")[0]
    by_identifier = location.SCHEME_TO_CLS_BACKEND_MAP.get(scheme, {})
    found = [name for name, _entry_name in _configured(active_conf()) if name in by_identifier]

    def fit(identifier: str) -> int:
        prefix = getattr(by_identifier[identifier]["store"], "url_prefix", None) or ""
        # Compare whole path components: /srv/fast does not hold /srv/fast2/image.
        rest = uri[len(prefix) :]
        whole = not rest or prefix.endswith("/") or rest[0] == "/" or "://" not in prefix
        return len(prefix) if uri.startswith(prefix) and whole else 0

    return sorted(found, key=fit, reverse=True)


# Only a store that has the image says this.
_FINAL = (exceptions.InUseByStore, exceptions.HasSnapshot, exceptions.RedirectException)


def first_that_has(uri: str, operation: Callable[[str], _T]) -> _T:
    """Try an operation on each store that may hold a location, and return the first result.

    :raises NotFound: no store has it
    :raises BadStoreUri: no store can parse it
    :raises Exception: a store that fails in any other way may have it: the error of the first such
        store
    """
    malformed: exceptions.BadStoreUri | None = None
    uncertain: Exception | None = None
    missing = False
    for identifier in candidates(uri):
        try:
            return operation(identifier)
        except _FINAL:
            raise
        except (exceptions.NotFound, exceptions.UnknownScheme):
            missing = True
        except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way
            # Some outages are a BadStoreUri too.
            if isinstance(exc, exceptions.BadStoreUri) and not isinstance(exc, OUTAGES):
                malformed = malformed or exc
                continue
            # Many backends say "forbidden" of what they do not have.
            uncertain = uncertain or exc
            reason = one_line(f"{type(exc).__name__}: {exc}")
            LOG.info("Store %s may have an image, but failed (%s)", identifier, reason)
    if uncertain is not None:
        raise uncertain
    if malformed is not None and not missing:
        raise malformed
    raise exceptions.NotFound(
        _("Image not found in any configured store: %(uri)s"), uri=location.redact(uri)
    )
