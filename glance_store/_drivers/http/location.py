# SPDX-License-Identifier: Apache-2.0
"""Locations of images on web servers."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

from glance_store import location
from glance_store._drivers import _uri
from glance_store.i18n import _

SCHEMES = ("http", "https")

_SYNTAX = _uri.UriSyntax(SCHEMES, "http[s]://[<user>:<password>@]<host>[:<port>]/<path>[?<query>]")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Some clients read a backslash as a slash, and would talk to another host than the one checked.
_NOT_IN_HOST = re.compile(r"[\s\\<>\"^`{|}]")
# A request line may contain printable ASCII except the space. A "%" stays as it is, whether or not
# a valid escape follows.
_SENDABLE = "".join(map(chr, range(0x21, 0x7F)))


class StoreLocation(location.StoreLocation):
    """A file on a web server.

    `netloc` is host and port. `user` and `password` are percent-encoded as in the URI, None without
    credentials. `params` follow a ``;`` in the last component of the path. A fragment means nothing
    to a server and is dropped.
    """

    scheme: str = "http"
    netloc: str = ""
    user: str | None = None
    password: str | None = None
    path: str = ""
    params: str = ""
    query: str = ""
    # Path and query as they stood in the URI, if there was one.
    _given: str | None = None

    def process_specs(self) -> None:
        self.scheme = self.specs.get("scheme") or "http"
        self.netloc = self.specs.get("netloc") or ""
        self.user = self.specs.get("user")
        self.password = self.specs.get("password")
        self.path = self.specs.get("path") or ""
        self.params = self.specs.get("params") or ""
        self.query = self.specs.get("query") or ""

    def get_uri(self) -> str:
        """Return the URI with its credentials; log lines and errors use `shown`."""
        credentials = "" if self.user is None else f"{self.user}:{self.password or ''}@"
        return self._with(credentials, self.query)

    @property
    def url(self) -> str:
        """The URL without credentials, which go into a header of their own."""
        return self._with("", self.query)

    @property
    def target(self) -> str:
        """Path and query for the request line, with escapes and dots exactly as given.

        A signature may cover every byte: only what a request line cannot contain is encoded.
        """
        given = self._given
        if given is None:
            given = self.url.partition("://")[2][len(self.netloc) :]
        return urllib.parse.quote(given if given.startswith("/") else f"/{given}", _SENDABLE)

    @property
    def shown(self) -> str:
        """The URI for log lines: without credentials, and without the query's possible token."""
        return self._with("", "***" if self.query else "")

    def _with(self, credentials: str, query: str) -> str:
        params = f";{self.params}" if self.params else ""
        query = f"?{query}" if query else ""
        return f"{self.scheme}://{credentials}{self.netloc}{self.path}{params}{query}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: the server that the credentials are for."""
        parts = urllib.parse.urlsplit(f"{self.scheme}://{self.netloc}")
        port = parts.port if parts.port is not None else _DEFAULT_PORTS[self.scheme]
        return self.scheme, parts.hostname or "", port

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI; BadStoreUri if it is malformed."""
        # Dots in the path are the server's business: they name no file on this host.
        _scheme, rest = _SYNTAX.strip_scheme(uri)
        try:
            parts: urllib.parse.ParseResult | None = urllib.parse.urlparse(uri)
        except ValueError:
            parts = None
        # Raised outside the handler: the ValueError quotes the host part, and a chained one gets
        # logged.
        if parts is None:
            raise _SYNTAX.refuse(uri, _("its host part cannot be parsed"))
        user, password, host = _split_authority(uri, parts.netloc)
        if not _uri.is_host(host) or _NOT_IN_HOST.search(host) or not _is_bracketed_well(host):
            raise _SYNTAX.refuse(uri, _("the host is missing or invalid, or its port is"))
        if host.endswith(":") and parts.path.startswith("//"):
            # Two schemes in a row: the apparent path holds a host, and maybe credentials.
            raise _SYNTAX.refuse(uri, _("it has a second scheme where the host should be"))
        self.scheme, self.netloc = parts.scheme, host
        self.user, self.password = user, password
        self.path, self.params, self.query = parts.path, parts.params, parts.query
        self._given = rest[len(parts.netloc) :].partition("#")[0]


def _is_bracketed_well(host: str) -> bool:
    """Tell whether brackets, if any, hold an IPv6 address; not every Python checks."""
    if not host.startswith("["):
        return "[" not in host and "]" not in host
    address, _bracket, port = host[1:].partition("]")
    try:
        # A zone, such as %25eth0, is for the system to judge.
        ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return False
    return port == "" or port.startswith(":")


def _split_authority(uri: str, netloc: str) -> tuple[str | None, str | None, str]:
    """Split the part between ``//`` and the path into user, password and host."""
    if netloc.count("@") > 1:
        raise _SYNTAX.refuse(uri, _("an '@' in a user name or password must be written as %40"))
    credentials, _at, host = netloc.rpartition("@")
    if not credentials:
        return None, None, host
    if credentials.count(":") != 1:
        raise _SYNTAX.refuse(
            uri, _("credentials must have the form <user>:<password>; write a ':' in them as %3A")
        )
    user, _colon, password = credentials.partition(":")
    return user, password, host
