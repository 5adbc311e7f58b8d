# SPDX-License-Identifier: Apache-2.0
"""Locations of the VMware datastore store."""

from __future__ import annotations

import urllib.parse

from glance_store import location
from glance_store._drivers import _uri
from glance_store.i18n import _

_FOLDER = "/folder"
_SYNTAX = _uri.UriSyntax(
    ("vsphere",), "vsphere://<host>/folder/<path>?dcPath=<datacenter>&dsName=<datastore>"
)


class StoreLocation(location.StoreLocation):
    """A file in a datastore.

    Attributes: `scheme`, `server_host` (with a port, if any), `path`, `query` (as in the URI),
    `datacenter_path` (None if the URI has none), `datastore_name`.
    """

    scheme: str = "vsphere"
    server_host: str | None = None
    path: str | None = None
    query: str | None = None
    datacenter_path: str | None = None
    datastore_name: str | None = None

    def process_specs(self) -> None:
        """Set the attributes from the specs.

        `image_dir` and `image_id` form `path`; `datacenter_path` and `datastore_name` form `query`.
        """
        self.scheme = self.specs.get("scheme") or "vsphere"
        self.server_host = self.specs.get("server_host")
        directory = str(self.specs.get("image_dir") or "").strip("/")
        self.path = "/".join((_FOLDER, directory, str(self.specs.get("image_id"))))
        self.datacenter_path = self.specs.get("datacenter_path")
        self.datastore_name = self.specs.get("datastore_name")
        query = {"dsName": self.datastore_name}
        # An ESXi host has no datacenter.
        if self.datacenter_path:
            query["dcPath"] = self.datacenter_path
        self.query = urllib.parse.urlencode(query)

    @property
    def https_url(self) -> str:
        """The file's URL on the server."""
        return self._url("https")

    def get_uri(self) -> str:
        """Return the URI."""
        return self._url(self.scheme)

    def get_image_id(self) -> str | None:
        """Return the id of the image."""
        return (self.path or "").rpartition("/")[2] or None

    def _url(self, scheme: str) -> str:
        host = self.server_host or ""
        if host.count(":") > 1 and not host.startswith("["):
            host = f"[{host}]"
        return f"{scheme}://{host}{self.path}?{self.query}"

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI.

        :param uri: the location
        :raises BadStoreUri: the URI is malformed
        """
        split = _SYNTAX.split(uri)
        if not _uri.is_host(split.netloc):
            raise _SYNTAX.refuse(uri, _("the host is missing or invalid, or has credentials"))
        if split.path.endswith("/") or not split.path:
            raise _SYNTAX.refuse(uri, _("it does not name a file"))
        datacenter, datastore = _parse_query(uri, split.query)
        self.scheme = split.scheme
        self.server_host = split.netloc
        self.path = split.path
        self.query = split.query
        self.datacenter_path = datacenter
        self.datastore_name = datastore


def _parse_query(uri: str, query: str) -> tuple[str | None, str]:
    try:
        values = urllib.parse.parse_qs(query, errors="strict")
    except ValueError:
        values = {}
    datacenters = values.get("dcPath", [None])
    datastores = values.get("dsName", [])
    # Given two names, this library and the server could choose different ones.
    if len(datacenters) != 1 or len(datastores) != 1:
        raise _SYNTAX.refuse(
            uri, _("its query must name one datastore, and at most one datacenter")
        )
    return datacenters[0], datastores[0]
