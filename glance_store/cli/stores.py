# SPDX-License-Identifier: Apache-2.0
"""The stores of a configuration; commands see them alike in both modes of the library."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from oslo_config import cfg

from glance_store import backend, exceptions, location, multi_backend, registry
from glance_store.capabilities import BitMasks
from glance_store.cli.errors import UsageError, describe
from glance_store.health import Health, Probe
from glance_store.inventory import Capacity, StoredImage
from glance_store.location import one_line
from glance_store.sharing import SharingError, remove

_CAPABILITIES = (
    ("read", BitMasks.READ_ACCESS),
    ("write", BitMasks.WRITE_ACCESS),
    ("ranges", BitMasks.READ_RANDOM),
)


class StoreInfo(NamedTuple):
    """One store as the operator sees it.

    `latency` is how many seconds the health check took. `total`, `free` and `used` are bytes of the
    backend, as far as it reports them. `shared` is a `sharing.Usage` as a dict, if downloads of the
    store share what they read.
    """

    id: str
    driver: str
    schemes: list[str]
    capabilities: list[str]
    default: bool
    weight: int
    healthy: bool
    health: str
    latency: float | None = None
    total: int | None = None
    free: int | None = None
    used: int | None = None
    shared: dict[str, int] | None = None


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
    """Return the scheme of a location; UsageError if it has none."""
    scheme, colon, _rest = uri.partition(":")
    if not colon or not scheme:
        raise UsageError(
            f"{uri!r} is not a location: it must begin with a scheme, such as "
            "file:///directory/image"
        )
    return scheme.lower()


def default_store(conf: cfg.ConfigOpts, multi: bool) -> str | None:
    """Return the configured store for new images: an identifier, or without `multi` a scheme."""
    options = conf.glance_store
    name: str | None = options.default_backend if multi else options.default_store
    return name


def _unserved(scheme: str) -> exceptions.UnknownScheme:
    return exceptions.UnknownScheme(f"No loaded store serves '{one_line(scheme)}'")


def _info(
    name: str, entry: str, store: Any, default: bool, health: Health, room: Capacity
) -> StoreInfo:
    return StoreInfo(
        id=name,
        driver=entry,
        schemes=list(store.get_schemes()),
        capabilities=[word for word, mask in _CAPABILITIES if store.is_capable(mask)],
        default=default,
        weight=int(store.weight),
        healthy=health.healthy,
        health=health.text,
        latency=health.latency,
        shared=_shared(store),
        **room._asdict(),
    )


def _shared(store: Any) -> dict[str, int] | None:
    shared = getattr(store, "shared_reads", None)
    # An unreadable directory has nothing to report; downloads warn about it.
    with contextlib.suppress(SharingError):
        return None if shared is None else shared.folder.usage()._asdict()
    return None


def _failed(name: str, entry: str, reason: str, default: bool) -> StoreInfo:
    return StoreInfo(name, entry, [], [], default, 0, False, one_line(f"not loaded: {reason}"))


class Stores:
    """The stores loaded for a command.

    The name of a store is its identifier in multi-store mode, otherwise its driver.
    """

    def __init__(self, conf: cfg.ConfigOpts, drivers: dict[str, str], multi: bool) -> None:
        self._conf = conf
        self._drivers = drivers
        self._multi = multi

    def _store(self, name: str) -> Any:
        """Return a store by its name; in single-store mode a scheme will do as well."""
        if self._multi:
            return registry.store_of_identifier(name)
        for entry, store in registry.loaded_stores().items():
            schemes = store.get_schemes()
            if name == entry or name in schemes:
                return registry.store_of_scheme(schemes[0])
        raise _unserved(name)

    def listing(self, limit: float) -> list[StoreInfo]:
        """Return all stores, including those that failed to load.

        They are asked for their health at the same time, and have `limit` seconds to answer.
        """
        loaded = registry.loaded_stores()
        probes = {name: Probe(store, describe) for name, store in loaded.items()}
        deadline = time.monotonic() + limit
        default = default_store(self._conf, self._multi)
        # Without identifiers, a scheme names the default store.
        by_scheme = not self._multi
        result = [
            _info(
                name,
                self._drivers[name],
                store,
                name == default or (by_scheme and default in store.get_schemes()),
                *probes[name].result(deadline, limit),
            )
            for name, store in loaded.items()
        ]
        result += [
            _failed(name, self._drivers[name], reason, name == default)
            for name, reason in registry.failures().items()
        ]
        return result

    def each(self, store: str | None) -> Iterator[tuple[str, Any, str | None]]:
        """Yield (name, store, None) of loaded stores, and (name, None, problem) of others."""
        loaded = registry.loaded_stores()
        if store is not None:
            yield store, self._store(store), None
            return
        for name, found in loaded.items():
            yield name, found, None
        for name, reason in registry.failures().items():
            yield name, None, one_line(f"not loaded: {reason}")

    def default_problem(self) -> str | None:
        """Return what is wrong with the default store, None if nothing is."""
        try:
            if self._multi:
                multi_backend.verify_store()
            else:
                backend.verify_default_store()
        except RuntimeError as exc:
            return str(exc)
        return None

    def chosen(self, store: str | None) -> str:
        """Return the store for new images; UsageError if neither named nor configured."""
        name = store or default_store(self._conf, self._multi)
        if not name:
            raise UsageError(
                "the configuration names no default_backend: choose a store with --store"
            )
        return name

    def put(
        self,
        image_id: str,
        source: Any,
        size: int,
        hashing_algo: str,
        store: str | None,
        verifier: Any = None,
    ) -> Stored:
        """Store an image; `verifier` sees all bytes and may refuse them, see `Store.add`."""
        return Stored(
            *backend.store_add_to_backend_with_multihash(
                image_id,
                source,
                size,
                hashing_algo,
                self._store(self.chosen(store)),
                verifier=verifier,
            )
        )

    def _names(self, uri: str, store: str | None) -> list[str]:
        """Return the stores that may hold an image, the likeliest first."""
        scheme = scheme_of(uri)
        if self._multi:
            names = [store] if store else registry.candidates(uri)
        else:
            loaded = registry.loaded_stores()
            names = [name for name in loaded if scheme in loaded[name].get_schemes()]
        if not names:
            raise _unserved(scheme)
        if not self._multi and store and store not in (names[0], scheme):
            raise UsageError(
                f"locations of the scheme '{scheme}' belong to the store '{names[0]}', not "
                f"'{store}'"
            )
        return names

    def is_of(self, uri: str, store: str) -> bool:
        """Tell whether a location belongs to a store, as far as it shows."""
        name = self._names(uri, None)[0]
        return store == name or (not self._multi and store == scheme_of(uri))

    def image_id(self, uri: str, store: str | None) -> str | None:
        """Return the image id in a location, None if it contains none."""
        parsed = self._location_of(uri, self._names(uri, store)[0])
        found: str | None = parsed.store_location.get_image_id()
        return found

    def images(self, store: str) -> Iterator[StoredImage]:
        """Yield everything in a store."""
        found: Iterator[StoredImage] = self._store(store).images()
        return found

    def _location_of(self, uri: str, name: str) -> location.Location:
        if self._multi:
            return location.get_location_from_uri_and_backend(uri, name, conf=self._conf)
        return location.get_location_from_uri(uri, conf=self._conf)

    def _on(
        self, uri: str, store: str | None, operation: Callable[[Any, location.Location], Any]
    ) -> Found:
        def on(name: str) -> Found:
            # First of all: an unknown store is reported as such, whatever the location looks like.
            found = self._store(name)
            return Found(name, self._drivers[name], operation(found, self._location_of(uri, name)))

        names = self._names(uri, store)
        return on(names[0]) if len(names) == 1 else registry.first_that_has(uri, on)

    def open(self, uri: str, store: str | None, offset: int, length: int | None) -> Found:
        """Open an image; the value is its chunks, and its size or 0 if unknown."""
        return self._on(
            uri,
            store,
            lambda found, parsed: found.get(parsed, offset=offset, chunk_size=length),
        )

    def copy_within(
        self,
        uri: str,
        store: str | None,
        image_id: str,
        target: str,
        progress: Callable[[int], None],
    ) -> Stored | None:
        """Have the backend copy an image by itself, without digests; None if it cannot."""
        destination = self._store(target)
        found = self._on(
            uri,
            store,
            lambda source, parsed: destination.copy_from(source, parsed, image_id, progress),
        )
        if found.value is None:
            return None
        new_uri, size, metadata = found.value
        return Stored(new_uri, size, "", "", metadata)

    def size(self, uri: str, store: str | None) -> Found:
        """Return the size of an image as the value."""
        return self._on(uri, store, lambda found, parsed: found.get_size(parsed))

    def delete(self, uri: str, store: str | None) -> Found:
        """Remove an image."""
        return self._on(uri, store, remove)
