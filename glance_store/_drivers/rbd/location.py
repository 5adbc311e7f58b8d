# SPDX-License-Identifier: Apache-2.0
"""Locations of the Ceph RBD store."""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

from glance_store import location
from glance_store._drivers._uri import UriSyntax
from glance_store.i18n import _

_SYNTAX = UriSyntax(("rbd",), "rbd://<fsid>/<pool>/<image>/<snapshot> or rbd://<image>")
_FSID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class StoreLocation(location.StoreLocation):
    """An RBD image, with its cluster, pool and snapshot if known.

    A pool namespace adds a component: ``rbd://<fsid>/<pool>/<namespace>/<image>/<snapshot>``. Other
    programs reject such a location, rather than take another image for this one.

    Attributes: `fsid`, `pool`, `namespace` and `snapshot` (None in the short form), `image`.
    """

    fsid: str | None = None
    pool: str | None = None
    namespace: str | None = None
    image: str | None = None
    snapshot: str | None = None

    def process_specs(self) -> None:
        """Set `fsid`, `pool`, `namespace`, `image` and `snapshot` from the specs, as text."""
        self.fsid = _text(self.specs.get("fsid"))
        self.pool = _text(self.specs.get("pool"))
        self.namespace = _text(self.specs.get("namespace")) or None
        self.image = _text(self.specs.get("image"))
        self.snapshot = _text(self.specs.get("snapshot"))

    def get_uri(self) -> str:
        """Return the URI: the long form if all its parts are known, otherwise the short form."""
        if self.fsid and self.pool and self.image and self.snapshot:
            names = (self.namespace,) if self.namespace else ()
            parts = (self.fsid, self.pool, *names, self.image, self.snapshot)
            return "rbd://" + "/".join(urllib.parse.quote(part, safe="") for part in parts)
        # The short form was never percent-encoded.
        return f"rbd://{self.image}"

    def get_image_id(self) -> str | None:
        """Return the id of the image."""
        return self.image

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI.

        :param uri: the location
        :raises BadStoreUri: the URI is malformed
        """
        _scheme, rest = _SYNTAX.strip_scheme(uri)
        parts = rest.split("/")
        if "" in parts:
            raise _SYNTAX.refuse(uri, _("a component is empty"))
        self.fsid = self.pool = self.namespace = self.snapshot = None
        if len(parts) == 1:
            self.image = parts[0]
        elif len(parts) == 4:
            self.fsid, self.pool, self.image, self.snapshot = (
                _SYNTAX.decode(uri, part) for part in parts
            )
        elif len(parts) == 5 and _FSID.fullmatch(parts[0]):
            self.fsid, self.pool, self.namespace, self.image, self.snapshot = (
                _SYNTAX.decode(uri, part) for part in parts
            )
        else:
            raise _SYNTAX.refuse(
                uri, _("it must have one or four components, or five with a namespace")
            )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    # Older bindings return the fsid as bytes.
    return value.decode() if isinstance(value, bytes) else str(value)
