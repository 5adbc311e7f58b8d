# SPDX-License-Identifier: Apache-2.0
"""Where an image is: its URI, parsed by the location class of its store.

The two maps hold the loaded stores. Callers rebind these globals, so look them up on this module
at the time of the call; never import the names.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

from oslo_config import cfg

from glance_store import exceptions
from glance_store.i18n import _

CONF = cfg.CONF

# Enough to recognise a location in the log, not enough to flood it.
_LONGEST_SHOWN = 200
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# A host with or without a port; "user:password" is neither.
_LIKE_A_HOST = re.compile(r"(?:\[[^\]@]*\]|[^:@]*)(?::[0-9]*)?(?:[?#]|$)")

# {scheme: {"store": Store, "location_class": class, "store_entry": driver name}}
SCHEME_TO_CLS_MAP: dict[str, dict[str, Any]] = {}
# {scheme: {store identifier: {the same three keys}}}
SCHEME_TO_CLS_BACKEND_MAP: dict[str, dict[str, dict[str, Any]]] = {}


def redact(uri: object) -> str:
    """Return a location in a form that is safe to log.

    The location may be malformed, with a secret wherever credentials can be. So everything up to
    the last ``@`` is hidden, a host part that looks like credentials, the query, and the fragment.

    :param uri: the text
    """
    scheme, _separator, rest = str(uri).partition("://")
    if not _SCHEME.fullmatch(scheme) or not rest:
        return "***"
    tail = rest.replace("%40", "@").rpartition("@")[2]
    hidden = rest[: len(rest) - len(tail)]
    if not hidden:
        authority, slash, path = tail.partition("/")
        rest = tail if _LIKE_A_HOST.match(authority) else "***" + slash + path
    elif "?" in hidden or "#" in hidden:
        # What follows the @ may belong to a query.
        rest = "***"
    else:
        rest = "***@" + tail
    for mark in "?#":
        rest, found, _query = rest.partition(mark)
        rest += mark + "***" if found else ""
    clean = "".join(char if char.isprintable() else "?" for char in f"{scheme}://{rest}")
    return clean if len(clean) <= _LONGEST_SHOWN else clean[:_LONGEST_SHOWN] + "..."


def without_secrets(text: str) -> str:
    """Return a text with credentials and query values removed from its locations.

    :param text: any text
    """
    return re.sub(r"\S+://\S+?(?=[:;,]?(?:\s|$))", lambda found: redact(found[0]), text)


def one_line(text: object) -> str:
    """Return a text as one line without secrets, safe to print on a terminal.

    :param text: any text, or an exception
    """
    line = without_secrets(" ".join(str(text).split()))
    return "".join(char if char.isprintable() else "?" for char in line)


def normalized(uri: str) -> str:
    """Return a location with its scheme in lower case, the only form drivers know.

    :param uri: the text; returned unchanged if it does not start with a scheme
    """
    scheme, colon, rest = uri.partition(":") if isinstance(uri, str) else ("", "", "")
    return scheme.lower() + colon + rest if colon and _SCHEME.fullmatch(scheme) else uri


def check_is_text(uri: object) -> None:
    """Refuse a location that is not a string.

    :param uri: what the caller passed
    :raises BadStoreUri: it is not a string
    """
    if not isinstance(uri, str):
        raise exceptions.BadStoreUri(
            _("The Store URI was malformed: it is of type %(kind)s, not a string"),
            kind=type(uri).__name__,
        )


def _scheme_of(uri: str) -> str:
    check_is_text(uri)
    try:
        return urllib.parse.urlsplit(uri).scheme
    except ValueError:
        # Not raised here: the ValueError quotes the host part, and a chained error is logged too.
        pass
    raise exceptions.BadStoreUri(
        _("The Store URI was malformed: %(uri)s has a host part that cannot be parsed"),
        uri=redact(uri),
    )


def get_location_from_uri(uri: str, conf: Any = CONF) -> Location:
    """Parse a location in single-store mode.

    :param uri: the URI of an image, as returned by `add`
    :param conf: configuration for the location class
    :returns: the `Location`
    :raises UnknownScheme: no loaded store serves the scheme
    :raises BadStoreUri: the URI is malformed
    """
    scheme = _scheme_of(uri)
    info = SCHEME_TO_CLS_MAP.get(scheme)
    if info is None:
        raise exceptions.UnknownScheme(scheme=scheme)
    return Location(scheme, info["location_class"], conf, uri=uri)


def get_location_from_uri_and_backend(uri: str, backend: str, conf: Any = CONF) -> Location:
    """Parse a location in multi-store mode.

    :param uri: the URI of an image, as returned by `add`
    :param backend: identifier of the store
    :param conf: configuration for the location class
    :returns: the `Location`
    :raises UnknownScheme: the store is unknown or does not serve the scheme
    :raises BadStoreUri: the URI is malformed
    """
    scheme = _scheme_of(uri)
    stores = SCHEME_TO_CLS_BACKEND_MAP.get(scheme)
    if stores is None:
        raise exceptions.UnknownScheme(scheme=scheme)
    if backend not in stores:
        raise exceptions.UnknownScheme(
            _("The store '%(backend)s' is not enabled for the scheme '%(scheme)s'"),
            backend=backend,
            scheme=scheme,
        )
    return Location(scheme, stores[backend]["location_class"], conf, uri=uri, backend=backend)


def register_scheme_map(scheme_map: dict[str, dict[str, Any]]) -> None:
    """Add or replace entries of `SCHEME_TO_CLS_MAP`.

    :param scheme_map: entries in the form of that map
    """
    SCHEME_TO_CLS_MAP.update(scheme_map)


def register_scheme_backend_map(scheme_map: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Add or replace entries of `SCHEME_TO_CLS_BACKEND_MAP`.

    :param scheme_map: entries in the form of that map; stores of a scheme it does not name stay
    """
    for scheme, stores in scheme_map.items():
        SCHEME_TO_CLS_BACKEND_MAP.setdefault(scheme, {}).update(stores)


def check_location_metadata(val: Any, key: str = "") -> None:
    """Check that metadata holds only strings, at any depth of dicts and lists.

    :param val: the metadata
    :param key: where `val` is in the metadata, for the error
    :raises BackendException: it holds something else
    """
    if isinstance(val, dict):
        for name, value in val.items():
            check_location_metadata(value, f"{key}.{name}" if key else str(name))
    elif isinstance(val, list):
        for index, value in enumerate(val):
            check_location_metadata(value, f"{key}[{index}]")
    elif not isinstance(val, str):
        raise exceptions.BackendException(
            f"The location metadata has a value of type {type(val).__name__} at "
            f"{key or 'its top'}; only strings, and lists and dicts of strings, can be stored"
        )


class Location:
    """Where an image is, in any store.

    :param store_name: scheme of the store
    :param store_location_class: the driver's subclass of `StoreLocation`
    :param conf: configuration for it
    :param uri: URI to parse, or None; its scheme is case-insensitive
    :param image_id: id of the image, if known
    :param store_specs: values for the location class, in place of a URI
    :param backend: identifier of the store in multi-store mode
    :raises BadStoreUri: the URI is malformed
    """

    def __init__(
        self,
        store_name: str,
        store_location_class: type[StoreLocation],
        conf: Any,
        uri: str | None = None,
        image_id: str | None = None,
        store_specs: dict[str, Any] | None = None,
        backend: str | None = None,
    ) -> None:
        self.store_name = store_name
        self.image_id = image_id
        self.store_specs = store_specs or {}
        self.conf = conf
        self.backend_group = backend
        self.store_location = store_location_class(self.store_specs, conf, backend_group=backend)
        if uri:
            self.store_location.parse_uri(normalized(uri))

    def get_store_uri(self) -> str:
        """Return the URI that finds the image again."""
        return self.store_location.get_uri()

    def get_uri(self) -> None:
        """Return None. For the URI, see `get_store_uri`."""
        return


class StoreLocation:
    """Base of a driver's location class: the values that make up its URI.

    :param store_specs: initial values; if there are any, `process_specs` is called
    :param conf: the configuration in use
    :param backend_group: identifier of the store in multi-store mode
    """

    def __init__(
        self, store_specs: dict[str, Any], conf: Any, backend_group: str | None = None
    ) -> None:
        self.conf = conf
        self.specs = store_specs
        self.backend_group = backend_group
        if self.specs:
            self.process_specs()

    def process_specs(self) -> None:
        """Set the attributes from `specs`."""

    def get_uri(self) -> str:
        """Build the URI from the attributes."""
        raise NotImplementedError("A subclass of StoreLocation must implement get_uri")

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI.

        :param uri: the URI
        :raises BadStoreUri: it is malformed
        """
        raise NotImplementedError("A subclass of StoreLocation must implement parse_uri")

    def get_image_id(self) -> str | None:
        """Return the id of the image; None if the URI does not contain it."""
        return None

    @staticmethod
    def validate_schemas(uri: str, valid_schemas: Iterable[str]) -> None:
        """Check the start of a URI.

        :param uri: the URI
        :param valid_schemas: prefixes to accept, such as ``("file://",)``; case-sensitive
        :raises BadStoreUri: it starts with none of them
        """
        if not str(uri).startswith(tuple(valid_schemas)):
            raise exceptions.BadStoreUri(
                _("The Store URI was malformed: %(uri)s must start with one of %(schemas)s"),
                uri=redact(uri),
                schemas=", ".join(valid_schemas),
            )

    def __repr__(self) -> str:
        # Subclasses hold credentials, so show no values.
        return f"<{type(self).__module__}.{type(self).__qualname__}>"
