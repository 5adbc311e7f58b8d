# SPDX-License-Identifier: Apache-2.0
"""Locations of the Swift store."""

from __future__ import annotations

import urllib.parse

from glance_store import location
from glance_store._drivers import _uri
from glance_store._drivers.swift import references
from glance_store.i18n import _

SCHEMES = ("swift+https", "swift", "swift+http", "swift+config")

_SYNTAX = _uri.UriSyntax(
    SCHEMES,
    "swift[+http|+https]://[<user>:<key>@]<address>/<container>/<object> or "
    "swift+config://<reference>/<container>/<object>",
)


class StoreLocation(location.StoreLocation):
    """An object in a container.

    Attributes: `scheme`; `user` and `key`, or `application_credential_id` and `_secret` with
    `project_name` and `project_id`, as far as they are known; `auth_or_store_url`, the address of
    the identity service or, without credentials, of the account in Swift; `container`; `obj`;
    `reference` and `ssl_enabled` (of the address) for ``swift+config``.
    """

    scheme: str = "swift+https"
    user: str | None = None
    key: str | None = None
    application_credential_id: str | None = None
    application_credential_secret: str | None = None
    project_name: str | None = None
    project_id: str | None = None
    auth_or_store_url: str | None = None
    container: str | None = None
    obj: str | None = None
    reference: str | None = None
    ssl_enabled: bool = True

    def process_specs(self) -> None:
        """Take the attributes from the specs, under the same names."""
        self.scheme = self.specs.get("scheme") or "swift+https"
        for name in (*references.CREDENTIAL, "auth_or_store_url", "container", "obj"):
            setattr(self, name, self.specs.get(name))
        self.ssl_enabled = not (self.auth_or_store_url or "").lower().startswith("http://")

    @property
    def swift_url(self) -> str | None:
        """`auth_or_store_url` with http or https in front; None if there is no address."""
        if not self.auth_or_store_url or references.is_http(self.auth_or_store_url):
            return self.auth_or_store_url or None
        return f"{self._http_scheme()}://{self.auth_or_store_url}"

    def _http_scheme(self) -> str:
        if self.scheme == "swift+config":
            return "https" if self.ssl_enabled else "http"
        return "http" if self.scheme == "swift+http" else "https"

    def get_uri(self, credentials_included: bool = True) -> str:
        """Return the URI.

        :param credentials_included: True: with the address, and the user and key if both are known;
            False: with the name of the account in the configuration instead
        :raises BadStoreUri: the URI needs an address, and there is none
        """
        path = f"{self.container}/{self.obj}"
        if not credentials_included:
            return f"swift+config://{self._reference()}/{path}"
        address = references.without_scheme(self.auth_or_store_url or "").rstrip("/")
        if not address:
            raise _SYNTAX.refuse(path, _("the location has no address"))
        scheme = self.scheme
        if scheme == "swift+config":
            scheme = f"swift+{self._http_scheme()}"
        account = ""
        if self.user and self.key:
            quoted = (urllib.parse.quote(text, safe="") for text in (self.user, self.key))
            account = ":".join(quoted) + "@"
        return f"{scheme}://{account}{address}/{path}"

    def get_image_id(self) -> str | None:
        """Return the id of the image."""
        return self.obj

    def _reference(self) -> str:
        if self.reference is not None:
            return self.reference
        options = references.settings(self.conf, self.backend_group)
        return str(options.default_swift_reference)

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI.

        :raises BadStoreUri: it is malformed, or names an account that is not configured
        :raises BadStoreConfiguration: the file of accounts cannot be read
        """
        split = _SYNTAX.split(uri)
        if uri.count("://") != 1:
            raise _SYNTAX.refuse(uri, _("it contains '://' more than once"))
        if split.scheme == "swift+config":
            self._parse_reference(uri, split)
        else:
            self._parse_address(uri, split)
        self.scheme = split.scheme

    def _parse_reference(self, uri: str, split: urllib.parse.SplitResult) -> None:
        path = split.path.split("/")
        # More components would send the credentials to another path of the server.
        if len(path) != 3 or not path[1]:
            raise _SYNTAX.refuse(uri, _("it does not consist of reference, container and object"))
        account = references.load(self.conf, self.backend_group).get(split.netloc)
        if account is None:
            raise _SYNTAX.refuse(
                uri,
                _(
                    "no usable account of this name is configured (see swift_store_config_file "
                    "and default_swift_reference)"
                ),
            )
        self.reference = split.netloc
        for name in references.CREDENTIAL:
            setattr(self, name, getattr(account, name))
        self.ssl_enabled = account.ssl_enabled
        self.auth_or_store_url = account.bare_address
        self.container, self.obj = path[1:]

    def _parse_address(self, uri: str, split: urllib.parse.SplitResult) -> None:
        account, address, path = _divide(split)
        if len(path) != 2 or not path[0]:
            raise _SYNTAX.refuse(uri, _("the address, the container or the object is missing"))
        user = key = None
        if account is not None:
            # The user may be "project:user"; a colon in the key is encoded.
            quoted_user, colon, quoted_key = account.rpartition(":")
            if not colon or "@" in account:
                raise _SYNTAX.refuse(uri, _("the part before the @ is not <user>:<key>"))
            user = _SYNTAX.decode(uri, quoted_user)
            key = _SYNTAX.decode(uri, quoted_key)
        if not _uri.is_host(address.partition("/")[0]):
            raise _SYNTAX.refuse(uri, _("the address is missing, or its port is not valid"))
        for name in ("reference", *references.CREDENTIAL):
            setattr(self, name, None)
        self.user, self.key = user, key
        self.auth_or_store_url = address
        self.container, self.obj = path


def _divide(split: urllib.parse.SplitResult) -> tuple[str | None, str, list[str]]:
    """Return the credentials, the address, and the container and object of a location."""
    parts = (split.netloc + split.path).split("/")
    address, path = "/".join(parts[:-2]), parts[-2:]
    # Releases before 6 did not encode a slash in a key, which moves the @ out of the host part. In
    # a container or an object, an @ is an ordinary character.
    account, at, bare = address.rpartition("@")
    return (account, bare, path) if at else (None, address, path)
