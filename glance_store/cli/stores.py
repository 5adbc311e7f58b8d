# SPDX-License-Identifier: Apache-2.0
"""The stores of a configuration, the same to the commands in both modes of the library."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from oslo_config import cfg

from glance_store import backend, exceptions, location, multi_backend, registry
from glance_store.capabilities import BitMasks
from glance_store.cli.errors import UsageError, describe, one_line

_CAPABILITIES = (
    ("read", BitMasks.READ_ACCESS),
    ("write", BitMasks.WRITE_ACCESS),
    ("ranges", BitMasks.READ_RANDOM),
)


class StoreInfo(NamedTuple):
    """One store as the operator sees it; `health` is a text, `healthy` whether it is a good one."""

    id: str
    driver: str
    schemes: list[str]
    capabilities: list[str]
    default: bool
    weight: int
    healthy: bool
    health: str


class Stored(NamedTuple):
    """An image that was stored."""

    location: str
    size: int
    checksum: str
    multihash: str
    metadata: dict[str, Any]


class Found(NamedTuple):
    """The store that holds an image, and what was asked about the image."""

    store: str
    driver: str
    value: Any


def scheme_of(uri: str) -> str:
    """Return the scheme of a location.

    :param uri: the location
    :raises UsageError: it has none
    """
    scheme, colon, _rest = uri.partition(":")
    if not colon or not scheme:
        raise UsageError(
            f"{uri!r} is no location: one starts with a scheme, such as file:///directory/image"
        )
    return scheme.lower()


def _health(store: Any) -> tuple[bool, str]:
    if store.configuration_error is not None:
        state = "read-only" if store.is_capable(BitMasks.READ_ACCESS) else "unusable"
        return False, one_line(f"{state}: {store.configuration_error}")
    try:
        return True, one_line(str(store.check_health()))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the other stores are listed too
        return False, describe(exc)


def _info(name: str, entry: str, store: Any, default: bool) -> StoreInfo:
    healthy, health = _health(store)
    return StoreInfo(
        id=name,
        driver=entry,
        schemes=list(store.get_schemes()),
        capabilities=[word for word, mask in _CAPABILITIES if store.is_capable(mask)],
        default=default,
        weight=int(store.weight),
        healthy=healthy,
        health=health,
    )


def _failed(name: str, entry: str, reason: str, default: bool) -> StoreInfo:
    return StoreInfo(name, entry, [], [], default, 0, False, one_line(f"not loaded: {reason}"))


class Stores(abc.ABC):
    """The stores of a configuration.

    :param conf: the configuration that they were created from
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    @abc.abstractmethod
    def listing(self) -> list[StoreInfo]:
        """Return all stores, also those that could not be loaded."""

    @abc.abstractmethod
    def default_problem(self) -> str | None:
        """Return what is wrong with the choice of the default store, None when nothing is."""

    @abc.abstractmethod
    def put(
        self, image_id: str, source: Any, size: int, hashing_algo: str, store: str | None
    ) -> Stored:
        """Store an image.

        :param image_id: its id
        :param source: an object with ``read(n)``
        :param size: bytes, 0 when unknown
        :param hashing_algo: name of the multihash
        :param store: identifier of the store, None for the default store
        """

    @abc.abstractmethod
    def open(self, uri: str, store: str | None, offset: int, length: int | None) -> Found:
        """Open an image for reading.

        :param uri: its location
        :param store: identifier of its store, None to search
        :param offset: first byte
        :param length: bytes, None for all that follow
        :returns: value: the pair (iterable of bytes, how many bytes, 0 when unknown)
        """

    @abc.abstractmethod
    def size(self, uri: str, store: str | None) -> Found:
        """Return the bytes of an image as the value.

        :param uri: its location
        :param store: identifier of its store, None to search
        """

    @abc.abstractmethod
    def delete(self, uri: str, store: str | None) -> Found:
        """Remove an image.

        :param uri: its location
        :param store: identifier of its store, None to search
        """


class MultiStores(Stores):
    """Stores with identifiers, named in ``enabled_backends``."""

    def _drivers(self) -> dict[str, str]:
        return dict(self.conf.enabled_backends)

    def listing(self) -> list[StoreInfo]:
        """Return all stores, also those that could not be loaded."""
        default = self.conf.glance_store.default_backend
        result = [
            _info(name, entry, store, name == default) for name, entry, store in registry.stores()
        ]
        drivers = self._drivers()
        result += [
            _failed(name, drivers.get(name, "file"), reason, name == default)
            for name, reason in registry.failures().items()
        ]
        return result

    def default_problem(self) -> str | None:
        """Return what is wrong with the choice of the default store, None when nothing is."""
        try:
            multi_backend.verify_store()
        except RuntimeError as exc:
            return str(exc)
        return None

    def put(
        self, image_id: str, source: Any, size: int, hashing_algo: str, store: str | None
    ) -> Stored:
        """Store an image."""
        if not (store or self.conf.glance_store.default_backend):
            raise UsageError(
                "the configuration names no default_backend: choose a store with --store"
            )
        return Stored(
            *multi_backend.add_with_multihash(
                self.conf, image_id, source, size, store, hashing_algo
            )
        )

    def _on(self, uri: str, store: str | None, operation: Callable[[str], Any]) -> Found:
        scheme = scheme_of(uri)

        def on(identifier: str) -> tuple[str, Any]:
            return identifier, operation(identifier)

        if store:
            # Asked first: an unknown store is reported as such, whatever the location looks like.
            registry.store_of_identifier(store)
            name, value = on(store)
        elif registry.candidates(uri):
            name, value = registry.first_that_has(uri, on)
        else:
            raise exceptions.UnknownScheme(
                f"No store that is loaded serves the scheme '{one_line(scheme)}'"
            )
        entries = {identifier: entry for identifier, entry, _store in registry.stores()}
        return Found(name, entries[name], value)

    def open(self, uri: str, store: str | None, offset: int, length: int | None) -> Found:
        """Open an image for reading."""
        return self._on(uri, store, lambda name: multi_backend.get(uri, name, offset, length))

    def size(self, uri: str, store: str | None) -> Found:
        """Return the bytes of an image as the value."""
        return self._on(
            uri, store, lambda name: multi_backend.get_size_from_uri_and_backend(uri, name)
        )

    def delete(self, uri: str, store: str | None) -> Found:
        """Remove an image."""
        return self._on(uri, store, lambda name: multi_backend.delete(uri, name))


class SingleStores(Stores):
    """One store for each scheme; a store is called by the name of its driver."""

    def _entries(self) -> dict[str, Any]:
        """Return {driver: store} of the stores that are loaded."""
        return {
            str(info["store_entry"]): info["store"]
            for info in location.SCHEME_TO_CLS_MAP.values()
            if info["store"].conf is self.conf
        }

    def _entry_of(self, scheme: str) -> str:
        info = location.SCHEME_TO_CLS_MAP.get(scheme)
        if info is None or info["store"].conf is not self.conf:
            raise exceptions.UnknownScheme(f"No store that is loaded serves '{one_line(scheme)}'")
        return str(info["store_entry"])

    def _is_default(self, schemes: Iterable[str]) -> bool:
        return self.conf.glance_store.default_store in schemes

    def listing(self) -> list[StoreInfo]:
        """Return all stores, also those that could not be loaded."""
        result = [
            _info(entry, entry, store, self._is_default(store.get_schemes()))
            for entry, store in self._entries().items()
        ]
        result += [
            _failed(entry, entry, reason, self._is_default([entry]))
            for entry, reason in registry.failures().items()
        ]
        return result

    def default_problem(self) -> str | None:
        """Return what is wrong with the choice of the default store, None when nothing is."""
        try:
            backend.verify_default_store()
        except RuntimeError as exc:
            return str(exc)
        return None

    def put(
        self, image_id: str, source: Any, size: int, hashing_algo: str, store: str | None
    ) -> Stored:
        """Store an image."""
        if store:
            schemes = self._entries().get(store)
            scheme = schemes.get_schemes()[0] if schemes else store
            self._entry_of(scheme)
        else:
            scheme = None
        return Stored(
            *backend.add_to_backend_with_multihash(
                self.conf, image_id, source, size, hashing_algo, scheme
            )
        )

    def _on(self, uri: str, store: str | None, operation: Callable[[], Any]) -> Found:
        scheme = scheme_of(uri)
        entry = self._entry_of(scheme)
        if store and store not in (entry, scheme):
            raise UsageError(
                f"locations of the scheme '{scheme}' belong to the store '{entry}', not '{store}'"
            )
        return Found(entry, entry, operation())

    def open(self, uri: str, store: str | None, offset: int, length: int | None) -> Found:
        """Open an image for reading."""
        return self._on(uri, store, lambda: backend.get_from_backend(uri, offset, length))

    def size(self, uri: str, store: str | None) -> Found:
        """Return the bytes of an image as the value."""
        return self._on(uri, store, lambda: backend.get_size_from_backend(uri))

    def delete(self, uri: str, store: str | None) -> Found:
        """Remove an image."""
        return self._on(uri, store, lambda: backend.delete_from_backend(uri))
