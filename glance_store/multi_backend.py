# SPDX-License-Identifier: Apache-2.0
"""The functions of multi-store mode: stores with identifiers, named in ``enabled_backends``."""

from __future__ import annotations

import logging
from collections.abc import KeysView
from typing import Any

from oslo_config import cfg

from glance_store import loading, location, registry, sharing, store_options
from glance_store.backend import (
    set_acls_of,
    store_add_to_backend,
    store_add_to_backend_with_multihash,
)
from glance_store.i18n import _
from glance_store.location import check_location_metadata

__all__ = [
    "add",
    "add_with_multihash",
    "check_location_metadata",
    "create_multi_stores",
    "delete",
    "get",
    "get_known_schemes_for_multi_store",
    "get_size_from_uri_and_backend",
    "get_store_from_store_identifier",
    "get_store_weight",
    "register_store_opts",
    "set_acls_for_multi_store",
    "store_add_to_backend",
    "store_add_to_backend_with_multihash",
    "verify_store",
]

CONF = cfg.CONF
LOG = logging.getLogger(__name__)


def _list_config_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options of multi-store mode, for oslo.config's generator.

    In a real configuration the groups are named after the stores; here, after the drivers.
    """
    result = [(store_options.DEFAULT_GROUP, list(store_options.MULTI_STORE_OPTS))]
    for name, plugin in loading.drivers_once():
        opts = loading.options_of(plugin)
        if opts:
            opts += [*sharing.OPTIONS, *store_options.MULTI_BACKEND_OPTIONS]
            result.append((name, opts))
    return result


def register_store_opts(
    conf: cfg.ConfigOpts, reserved_stores: dict[str, str] | None = None
) -> None:
    """Register the options of all stores, each in the group named after its identifier.

    :param conf: the configuration; the caller registers its option ``enabled_backends``
    :param reserved_stores: stores for the image service itself, as {identifier: driver}
    """
    store_options.register_each(conf, store_options.MULTI_STORE_OPTS, store_options.DEFAULT_GROUP)
    for identifier, store_entry in (getattr(conf, "enabled_backends", None) or {}).items():
        loading.register_backend_opts(conf, identifier, store_entry, reserved=False)
    for identifier, store_entry in (reserved_stores or {}).items():
        loading.register_backend_opts(conf, identifier, store_entry, reserved=True)


def create_multi_stores(
    conf: cfg.ConfigOpts = CONF, reserved_stores: dict[str, str] | None = None
) -> int:
    """Create the stores listed in ``enabled_backends``.

    A misconfigured store becomes read-only, or is skipped if it cannot be used at all. The log says
    why. The other stores are not affected.

    :param conf: the configuration
    :param reserved_stores: stores for the image service itself, as {identifier: driver};
        remembered for the life of the process
    :returns: number of (identifier, scheme) pairs, not of stores: a file store counts 2
    :raises BackendException: a driver has no scheme
    """
    return registry.create_multi_stores(conf, reserved_stores)


def verify_store() -> None:
    """Check that the default store is loaded.

    :raises RuntimeError: ``[glance_store] default_backend`` is not set, or its store not loaded
    """
    identifier = registry.active_conf().glance_store.default_backend
    if not identifier:
        raise RuntimeError(
            _(
                "No default store is set: set [glance_store] default_backend to one of "
                "enabled_backends"
            )
        )
    if identifier not in {name for name, _driver, _store in registry.stores()}:
        reason = registry.failures().get(identifier, "it is not in enabled_backends")
        raise RuntimeError(
            _("The default store '%(store)s' is not available: %(reason)s")
            % {"store": identifier, "reason": reason}
        )


def get_store_from_store_identifier(store_identifier: str) -> Any:
    """Return a store.

    :param store_identifier: its key in ``enabled_backends``
    :returns: the store; a new one on each call if its driver is not reusable
    :raises UnknownScheme: it is not enabled, or could not be loaded
    """
    return registry.store_of_identifier(store_identifier)


def get_store_weight(store_identifier: str) -> int:
    """Return the weight of a store, without building or connecting anything.

    :param store_identifier: its key in ``enabled_backends``
    :returns: the option ``weight``; 0 for a store that could not be loaded
    :raises UnknownScheme: it is not enabled
    """
    return registry.weight_of(store_identifier)


def add(
    conf: cfg.ConfigOpts,
    image_id: str,
    data: Any,
    size: int,
    backend: str | None,
    context: Any = None,
    verifier: Any = None,
) -> tuple[Any, ...]:
    """Store an image.

    :param conf: the configuration
    :param image_id: id of the image
    :param data: an object with ``read(n)``, or an iterable of bytes
    :param size: bytes; 0 if unknown
    :param backend: identifier of the store; if empty, the default store
    :param context: the request's context
    :param verifier: object whose ``update(data)`` takes all bytes in order
    :returns: location, size, md5, location metadata with the identifier as ``store``
    """
    store = registry.store_of_identifier(backend or conf.glance_store.default_backend, ready=True)
    return store_add_to_backend(image_id, data, size, store, context, verifier)


def add_with_multihash(
    conf: cfg.ConfigOpts,
    image_id: str,
    data: Any,
    size: int,
    backend: str | None,
    hashing_algo: str,
    scheme: str | None = None,  # noqa: ARG001 - accepted for callers of single-store mode
    context: Any = None,
    verifier: Any = None,
) -> tuple[Any, ...]:
    """Store an image, and compute a hash of the caller's choice.

    :param conf: the configuration
    :param image_id: id of the image
    :param data: an object with ``read(n)``, or an iterable of bytes
    :param size: bytes; 0 if unknown
    :param backend: identifier of the store; if empty, the default store
    :param hashing_algo: name of the hash, such as ``sha512``
    :param scheme: not used; callers of single-store mode pass it
    :param context: the request's context
    :param verifier: object whose ``update(data)`` takes all bytes in order
    :returns: location, size, md5, multihash, location metadata
    :raises UnknownHashingAlgo: there is no such hash; nothing was read
    """
    store = registry.store_of_identifier(backend or conf.glance_store.default_backend, ready=True)
    return store_add_to_backend_with_multihash(
        image_id, data, size, hashing_algo, store, context, verifier
    )


def get(
    uri: str,
    backend: str | None,
    offset: int = 0,
    chunk_size: int | None = None,
    context: Any = None,
) -> tuple[Any, int]:
    """Read an image, or a range of it.

    :param uri: its location
    :param backend: identifier of the store; if empty, all stores of the scheme are searched
    :param offset: first byte
    :param chunk_size: length of the range; None for the rest of the image
    :param context: the request's context
    :returns: an iterator of bytes, and the number of bytes it yields (0 if unknown)
    :raises NotFound: there is no such image
    :raises UnknownScheme: the store is not enabled, or does not serve the scheme
    :raises BadStoreUri: the location is malformed
    :raises StoreRandomGetNotSupported: the store cannot read ranges
    """

    def read(identifier: str) -> tuple[Any, int]:
        store, loc = registry.located(uri, identifier)
        result: tuple[Any, int] = store.get(
            loc, offset=offset, chunk_size=chunk_size, context=context
        )
        return result

    return read(backend) if backend else registry.first_that_has(uri, read)


def get_size_from_uri_and_backend(uri: str, backend: str | None, context: Any = None) -> int:
    """Return the size of an image in bytes.

    :param uri: its location
    :param backend: identifier of the store; if empty, all stores of the scheme are searched
    :param context: the request's context
    :returns: bytes; 0 if the backend does not tell
    :raises NotFound: there is no such image
    """

    def size(identifier: str) -> int:
        store, loc = registry.located(uri, identifier)
        result: int = store.get_size(loc, context=context)
        return result

    return size(backend) if backend else registry.first_that_has(uri, size)


def delete(uri: str, backend: str | None, context: Any = None) -> Any:
    """Delete an image.

    :param uri: its location
    :param backend: identifier of the store; if empty, all stores of the scheme are searched
    :param context: the request's context
    :returns: what the driver returns
    :raises NotFound: there is no such image
    :raises InUseByStore: it is in use
    :raises StoreDeleteNotSupported: the store is read-only
    """

    def delete_from(identifier: str) -> Any:
        return sharing.remove(*registry.located(uri, identifier), context)

    return delete_from(backend) if backend else registry.first_that_has(uri, delete_from)


def set_acls_for_multi_store(
    location_uri: str,
    backend: str,
    public: bool = False,
    read_tenants: list[str] = [],  # noqa: B006 - the public signature; copied, never changed
    write_tenants: list[str] | None = None,
    context: Any = None,
) -> None:
    """Set the access control lists of an image. Does nothing if the store has none.

    :param location_uri: location of the image
    :param backend: identifier of the store
    :param public: whether everybody may read
    :param read_tenants: projects that may read
    :param write_tenants: projects that may write
    :param context: the request's context
    :raises NotFound: there is no such image
    """
    set_acls_of(location_uri, backend, public, read_tenants, write_tenants, context)


def get_known_schemes_for_multi_store() -> KeysView[str]:
    """Return the schemes that the loaded stores serve."""
    return location.SCHEME_TO_CLS_BACKEND_MAP.keys()
