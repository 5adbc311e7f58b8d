# SPDX-License-Identifier: Apache-2.0
"""The functions of single-store mode: one store for each scheme.

They serve image services that do not set ``enabled_backends``. Those that do use
`glance_store.multi_backend`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, KeysView, Sequence
from typing import Any

from oslo_config import cfg

from glance_store import exceptions, loading, location, registry, sharing, store_options
from glance_store.i18n import _
from glance_store.location import check_location_metadata

__all__ = [
    "Indexable",
    "add_to_backend",
    "add_to_backend_with_multihash",
    "check_location_metadata",
    "create_stores",
    "delete_from_backend",
    "get_from_backend",
    "get_known_schemes",
    "get_size_from_backend",
    "get_store_from_location",
    "get_store_from_scheme",
    "get_store_from_uri",
    "register_opts",
    "set_acls",
    "store_add_to_backend",
    "store_add_to_backend_with_multihash",
    "verify_default_store",
]

CONF = cfg.CONF
LOG = logging.getLogger(__name__)


class Indexable:
    """An iterator of chunks that looks like a sequence, but can be read only once, in order.

    :param wrapped: the iterator
    :param size: total bytes; if 0, the attribute ``len`` of `wrapped` is used, if it has one
    """

    def __init__(self, wrapped: Any, size: Any) -> None:
        self.wrapped = wrapped
        self.size = int(size) if size else int(getattr(wrapped, "len", 0))
        self.cursor = 0
        self.chunk: Any = None

    def __iter__(self) -> Iterator[Any]:
        yield from self.wrapped

    def __getitem__(self, i: int | slice) -> Any:
        """Return the rest of the current chunk, or the next chunk.

        :param i: a position, or a slice without an end
        """
        start = i.start if isinstance(i, slice) else i
        if isinstance(i, slice) and i.stop is not None:
            raise IndexError("Only a slice without an end can be read: data[start:]")
        start = start or 0
        if self.chunk is not None and start < self.cursor:
            return self.chunk[start - (self.cursor - len(self.chunk)) :]
        self.chunk = self.another()
        if self.chunk:
            self.cursor += len(self.chunk)
        return self.chunk

    def another(self) -> Any:
        """Return the next chunk; empty at the end."""
        raise NotImplementedError("A subclass of Indexable must implement another")

    def getvalue(self) -> Any:
        """Return what ``getvalue()`` of the wrapped object returns."""
        return self.wrapped.getvalue()

    def __len__(self) -> int:
        return self.size


def _list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options of single-store mode, for oslo.config's generator."""
    drivers_opts: list[cfg.Opt] = []
    for _name, plugin in loading.drivers_once():
        drivers_opts.extend(loading.options_of(plugin))
    drivers_opts.extend(sharing.OPTIONS)
    return [
        (store_options.DEFAULT_GROUP, list(store_options.STORE_OPTS)),
        (store_options.DEFAULT_GROUP, drivers_opts),
    ]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register all options of single-store mode. Safe to call again.

    :param conf: the configuration
    """
    for group, opts in _list_opts():
        store_options.register_each(conf, opts, group)


def _load_store(conf: cfg.ConfigOpts, store_entry: str, invoke_load: bool = True) -> Any:
    """Load a driver without registering it; None if it cannot be loaded."""
    return loading.load_store(conf, store_entry, invoke_load)


def create_stores(conf: cfg.ConfigOpts = CONF) -> int:
    """Create the stores listed in ``[glance_store] stores``.

    A misconfigured store becomes read-only, or is skipped if it cannot be used at all. The log says
    why. The other stores are not affected.

    :param conf: the configuration
    :returns: number of entries of the option that were loaded
    :raises BackendException: a driver has no scheme
    """
    return registry.create_stores(conf)


def verify_default_store() -> None:
    """Check that the default store is loaded.

    :raises RuntimeError: no loaded store serves ``[glance_store] default_store``
    """
    scheme = registry.active_conf().glance_store.default_store
    if scheme not in location.SCHEME_TO_CLS_MAP:
        raise RuntimeError(
            _(
                "No loaded store serves the default store '%s'; check stores and default_store in "
                "[glance_store]"
            )
            % scheme
        )


def get_known_schemes() -> KeysView[str]:
    """Return the schemes that the loaded stores serve."""
    return location.SCHEME_TO_CLS_MAP.keys()


def get_store_from_scheme(scheme: str) -> Any:
    """Return the store that serves a scheme.

    :param scheme: such as ``file``
    :returns: the store; a new one on each call if its driver is not reusable
    :raises UnknownScheme: no loaded store serves it
    """
    return registry.store_of_scheme(scheme)


def get_store_from_uri(uri: str) -> Any:
    """Return the store that serves a location.

    :param uri: the location
    :raises UnknownScheme: no loaded store serves its scheme
    """
    return get_store_from_scheme(location.normalized(uri).partition(":/")[0])


def get_from_backend(
    uri: str, offset: int = 0, chunk_size: int | None = None, context: Any = None
) -> tuple[Any, int]:
    """Read an image, or a range of it.

    :param uri: its location
    :param offset: first byte
    :param chunk_size: length of the range; None for the rest of the image
    :param context: the request's context
    :returns: an iterator of bytes, and the number of bytes it yields (0 if unknown)
    :raises NotFound: there is no such image
    :raises UnknownScheme: no loaded store serves the scheme
    :raises BadStoreUri: the location is malformed
    :raises StoreRandomGetNotSupported: the store cannot read ranges
    """
    store, loc = registry.located(uri)
    result: tuple[Any, int] = store.get(loc, offset=offset, chunk_size=chunk_size, context=context)
    return result


def get_size_from_backend(uri: str, context: Any = None) -> int:
    """Return the size of an image in bytes.

    :param uri: its location
    :param context: the request's context
    :returns: bytes; 0 if the backend does not tell
    """
    store, loc = registry.located(uri)
    size: int = store.get_size(loc, context=context)
    return size


def delete_from_backend(uri: str, context: Any = None) -> Any:
    """Delete an image.

    :param uri: its location
    :param context: the request's context
    :returns: what the driver returns
    :raises NotFound: there is no such image
    :raises InUseByStore: it is in use
    :raises StoreDeleteNotSupported: the store is read-only
    """
    return sharing.remove(*registry.located(uri), context)


def get_store_from_location(uri: str) -> str:
    """Return the scheme of a location.

    :param uri: the location
    :raises UnknownScheme: no loaded store serves it
    :raises BadStoreUri: it is malformed
    """
    return location.get_location_from_uri(uri, conf=registry.active_conf()).store_name


def _checked(result: tuple[Any, ...], store: Any) -> tuple[Any, ...]:
    """Return the result of `add`, or raise BackendException if its metadata cannot be stored."""
    metadata = result[-1]
    if metadata is not None:
        if not isinstance(metadata, dict):
            raise exceptions.BackendException(
                f"The driver of store {store} returned location metadata of type "
                f"{type(metadata).__name__}, not a dictionary"
            )
        check_location_metadata(metadata)
    return result


def store_add_to_backend(
    image_id: str,
    data: Any,
    size: int,
    store: Any,
    context: Any = None,
    verifier: Any = None,
) -> tuple[Any, ...]:
    """Store an image in a given store.

    :param image_id: id of the image
    :param data: an object with ``read(n)``, or an iterable of bytes
    :param size: bytes; 0 if unknown
    :param store: the store
    :param context: the request's context
    :param verifier: object whose ``update(data)`` takes all bytes in order
    :returns: location, size, md5, location metadata
    :raises BackendException: the driver returned metadata that cannot be stored
    """
    result = store.add(image_id, data, size, context=context, verifier=verifier)
    return _checked(result, store)


def store_add_to_backend_with_multihash(
    image_id: str,
    data: Any,
    size: int,
    hashing_algo: str,
    store: Any,
    context: Any = None,
    verifier: Any = None,
) -> tuple[Any, ...]:
    """Store an image in a given store, and compute a hash of the caller's choice.

    :param image_id: id of the image
    :param data: an object with ``read(n)``, or an iterable of bytes
    :param size: bytes; 0 if unknown
    :param hashing_algo: name of the hash, such as ``sha512``
    :param store: the store
    :param context: the request's context
    :param verifier: object whose ``update(data)`` takes all bytes in order
    :returns: location, size, md5, multihash, location metadata
    :raises UnknownHashingAlgo: there is no such hash; nothing was read
    :raises BackendException: the driver returned metadata that cannot be stored
    """
    if not isinstance(hashing_algo, str) or hashing_algo not in hashlib.algorithms_available:
        raise exceptions.UnknownHashingAlgo(algo=hashing_algo)
    result = store.add(image_id, data, size, hashing_algo, context=context, verifier=verifier)
    return _checked(result, store)


def _default_store(conf: cfg.ConfigOpts, scheme: str | None) -> Any:
    return registry.store_of_scheme(scheme or conf.glance_store.default_store, ready=True)


def add_to_backend(
    conf: cfg.ConfigOpts,
    image_id: str,
    data: Any,
    size: int,
    scheme: str | None = None,
    context: Any = None,
    verifier: Any = None,
) -> tuple[Any, ...]:
    """Store an image in the store that serves a scheme.

    :param conf: the configuration
    :param image_id: id of the image
    :param data: an object with ``read(n)``, or an iterable of bytes
    :param size: bytes; 0 if unknown
    :param scheme: None for the default store
    :param context: the request's context
    :param verifier: object whose ``update(data)`` takes all bytes in order
    :returns: location, size, md5, location metadata
    """
    return store_add_to_backend(
        image_id, data, size, _default_store(conf, scheme), context, verifier
    )


def add_to_backend_with_multihash(
    conf: cfg.ConfigOpts,
    image_id: str,
    data: Any,
    size: int,
    hashing_algo: str,
    scheme: str | None = None,
    context: Any = None,
    verifier: Any = None,
) -> tuple[Any, ...]:
    """Store an image in the store that serves a scheme, and compute a hash of the caller's choice.

    :param conf: the configuration
    :param image_id: id of the image
    :param data: an object with ``read(n)``, or an iterable of bytes
    :param size: bytes; 0 if unknown
    :param hashing_algo: name of the hash, such as ``sha512``
    :param scheme: None for the default store
    :param context: the request's context
    :param verifier: object whose ``update(data)`` takes all bytes in order
    :returns: location, size, md5, multihash, location metadata
    """
    return store_add_to_backend_with_multihash(
        image_id, data, size, hashing_algo, _default_store(conf, scheme), context, verifier
    )


def set_acls(
    location_uri: str,
    public: bool = False,
    read_tenants: list[str] = [],  # noqa: B006 - the public signature; copied, never changed
    write_tenants: list[str] | None = None,
    context: Any = None,
) -> None:
    """Set the access control lists of an image. Does nothing if the store has none.

    :param location_uri: location of the image
    :param public: whether everybody may read
    :param read_tenants: projects that may read
    :param write_tenants: projects that may write
    :param context: the request's context
    :raises NotFound: there is no such image
    """
    set_acls_of(location_uri, None, public, read_tenants, write_tenants, context)


def set_acls_of(
    location_uri: str,
    identifier: str | None,
    public: bool,
    read_tenants: Sequence[str] | None,
    write_tenants: Sequence[str] | None,
    context: Any,
) -> None:
    """Set the access control lists of an image in either mode; see `set_acls`."""
    # Image services call this whenever they save an image: where there is nothing to do, a store
    # that is misconfigured, or whose backend is out of reach, must not keep them from that.
    try:
        loc = registry.parsed(location_uri, identifier)
    except exceptions.UnknownScheme:
        if registry.failed_without_acls(identifier):
            return
        raise
    if not registry.has_acls(loc):
        return
    try:
        registry.store_for(loc).set_acls(
            loc,
            public=public,
            read_tenants=list(read_tenants or []),
            write_tenants=list(write_tenants or []),
            context=context,
        )
    except NotImplementedError:
        LOG.debug("Store %s has no access control lists", loc.backend_group or loc.store_name)
