# SPDX-License-Identifier: Apache-2.0
"""Where an image is: its URI, parsed by the class of the store that the URI names.

The two maps are what the running configuration knows. They are module globals that callers rebind:
look them up on this module at the time of the call, never import the names.
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

# Enough to recognise a location in a log line, and no way to flood the log with one.
_LONGEST_SHOWN = 200
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# A host without or with a port; "user:password" without the rest is neither.
_LIKE_A_HOST = re.compile(r"(?:\[[^\]@]*\]|[^:@]*)(?::[0-9]*)?(?:[?#]|$)")

# {scheme: {"store": Store, "location_class": class, "store_entry": driver name}}
SCHEME_TO_CLS_MAP: dict[str, dict[str, Any]] = {}
# {scheme: {store identifier: {the same three keys}}}
SCHEME_TO_CLS_BACKEND_MAP: dict[str, dict[str, dict[str, Any]]] = {}


def redact(uri: object) -> str:
    """Return a location as a log line or an error may quote it.

    It may be malformed, and hold a secret at any place that credentials can have: everything up to
    the last ``@`` is left out, a host part that looks like credentials, and query and fragment.

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
        # What follows the @ may as well belong to a query.
        rest = "***"
    else:
        rest = "***@" + tail
    for mark in "?#":
        rest, found, _query = rest.partition(mark)
        rest += mark + "***" if found else ""
    clean = "".join(char if char.isprintable() else "?" for char in f"{scheme}://{rest}")
    return clean if len(clean) <= _LONGEST_SHOWN else clean[:_LONGEST_SHOWN] + "..."


def without_secrets(text: str) -> str:
    """Return a text whose locations have no user names, passwords and query values in them.

    :param text: any text
    """
    return re.sub(r"\S+://\S+?(?=[:;,]?(?:\s|$))", lambda found: redact(found[0]), text)


def one_line(text: str) -> str:
    """Return a text as one line that is safe to print on a terminal, without secrets.

    :param text: any text
    """
    line = without_secrets(" ".join(text.split()))
    return "".join(char if char.isprintable() else "?" for char in line)


def normalized(uri: str) -> str:
    """Return a location with its scheme in lower case, the only form that drivers know.

    :param uri: the text; what does not begin with a scheme is returned as it is
    """
    scheme, colon, rest = uri.partition(":") if isinstance(uri, str) else ("", "", "")
    return scheme.lower() + colon + rest if colon and _SCHEME.fullmatch(scheme) else uri


def check_is_text(uri: object) -> None:
    """Refuse what cannot be a location at all.

    :param uri: what a caller hands in as one
    :raises BadStoreUri: it is not a text
    """
    if not isinstance(uri, str):
        raise exceptions.BadStoreUri(
            _("The Store URI was malformed: it is of type %(kind)s, not a text"),
            kind=type(uri).__name__,
        )


def _scheme_of(uri: str) -> str:
    check_is_text(uri)
    try:
        return urllib.parse.urlsplit(uri).scheme
    except ValueError:
        # Not raised here: the ValueError quotes the host part, and a chained one would be logged.
        pass
    raise exceptions.BadStoreUri(
        _("The Store URI was malformed: %(uri)s has a host part that cannot be parsed"),
        uri=redact(uri),
    )


def get_location_from_uri(uri: str, conf: Any = CONF) -> Location:
    """Parse a location in single-store mode.

    :param uri: the URI of an image, as `add` returned it
    :param conf: configuration handed to the location class
    :returns: the `Location`
    :raises UnknownScheme: no enabled store serves the scheme
    :raises BadStoreUri: the URI is malformed
    """
    scheme = _scheme_of(uri)
    info = SCHEME_TO_CLS_MAP.get(scheme)
    if info is None:
        raise exceptions.UnknownScheme(scheme=scheme)
    return Location(scheme, info["location_class"], conf, uri=uri)


def get_location_from_uri_and_backend(uri: str, backend: str, conf: Any = CONF) -> Location:
    """Parse a location of one store of a multi-store configuration.

    :param uri: the URI of an image, as `add` returned it
    :param backend: identifier of the store
    :param conf: configuration handed to the location class
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

    :param scheme_map: in the form of that map
    """
    SCHEME_TO_CLS_MAP.update(scheme_map)


def register_scheme_backend_map(scheme_map: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Add or replace entries of `SCHEME_TO_CLS_BACKEND_MAP`.

    :param scheme_map: in the form of that map; the stores of a scheme that are not named stay
    """
    for scheme, stores in scheme_map.items():
        SCHEME_TO_CLS_BACKEND_MAP.setdefault(scheme, {}).update(stores)


def check_location_metadata(val: Any, key: str = "") -> None:
    """Check that metadata has only strings in it, in any depth of dicts and lists.

    :param val: the metadata
    :param key: where in the metadata `val` stands, for the text of the error
    :raises BackendException: there is something else
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
            f"{key or 'its top'}; only text, and lists and dictionaries of text, can be stored"
        )


class Location:
    """The place of one image, whatever the store.

    :param store_name: scheme of the store
    :param store_location_class: the driver's subclass of `StoreLocation`
    :param conf: configuration handed to it
    :param uri: text to parse, or None; case does not matter in its scheme
    :param image_id: id of the image, if known
    :param store_specs: values of the place when there is no text to parse
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
        """Return None: a location has no address of its own, only one in its store."""
        return


class StoreLocation:
    """Base of a driver's location class: the values that its URI is made of.

    :param store_specs: values to start from; `process_specs` is called when there are any
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
        """Take the values of `specs` over into attributes."""

    def get_uri(self) -> str:
        """Return the URI made of the attributes."""
        raise NotImplementedError("A subclass of StoreLocation must implement get_uri")

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI.

        :param uri: the text
        :raises BadStoreUri: it is malformed
        """
        raise NotImplementedError("A subclass of StoreLocation must implement parse_uri")

    def get_image_id(self) -> str | None:
        """Return the id of the image; None where the URI does not tell it."""
        return None

    @staticmethod
    def validate_schemas(uri: str, valid_schemas: Iterable[str]) -> None:
        """Check how a URI starts.

        :param uri: the text
        :param valid_schemas: beginnings to accept, such as ``("file://",)``; case matters
        :raises BadStoreUri: it starts with none of them
        """
        if not str(uri).startswith(tuple(valid_schemas)):
            raise exceptions.BadStoreUri(
                _("The Store URI was malformed: %(uri)s must start with one of %(schemas)s"),
                uri=redact(uri),
                schemas=", ".join(valid_schemas),
            )

    def __repr__(self) -> str:
        # Subclasses hold credentials: nothing of the values is shown.
        return f"<{type(self).__module__}.{type(self).__qualname__}>"
