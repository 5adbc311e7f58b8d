# SPDX-License-Identifier: Apache-2.0
"""Locations of the Cinder store."""

from __future__ import annotations

import re

from glance_store import location
from glance_store._drivers._uri import UriSyntax
from glance_store.i18n import _

_SYNTAX = UriSyntax(("cinder",), "cinder://[<store identifier>/]<volume id>")
_VOLUME_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


class StoreLocation(location.StoreLocation):
    """A volume.

    Attributes: `scheme`, `volume_id`. The store identifier in a URI only helps to find the store;
    the volume id alone identifies the volume.
    """

    scheme: str = "cinder"
    volume_id: str | None = None

    def process_specs(self) -> None:
        """Set `scheme` and `volume_id` from the specs."""
        self.scheme = self.specs.get("scheme") or "cinder"
        self.volume_id = self.specs.get("volume_id")

    def get_uri(self) -> str:
        """Return the URI, in multi-store mode with the store identifier."""
        if self.backend_group:
            return f"cinder://{self.backend_group}/{self.volume_id}"
        return f"cinder://{self.volume_id}"

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI.

        :param uri: the location
        :raises BadStoreUri: the URI is malformed
        """
        scheme, rest = _SYNTAX.strip_scheme(uri)
        volume_id = rest.rpartition("/")[2]
        if not _VOLUME_ID.fullmatch(volume_id):
            raise _SYNTAX.refuse(uri, _("it does not end with a volume id"))
        self.scheme = scheme
        self.volume_id = volume_id
