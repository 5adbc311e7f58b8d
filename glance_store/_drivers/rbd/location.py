# SPDX-License-Identifier: Apache-2.0
"""Locations of the Ceph RBD store."""

from __future__ import annotations

import urllib.parse
from typing import Any

from glance_store import location
from glance_store._drivers._uri import UriSyntax
from glance_store.i18n import _

_SYNTAX = UriSyntax(("rbd",), "rbd://<fsid>/<pool>/<image>/<snapshot> or rbd://<image>")


class StoreLocation(location.StoreLocation):
    """An RBD image, with its cluster, pool and snapshot if they are known.

    Attributes: `fsid`, `pool` and `snapshot` (None in the short form), `image`.
    """

    fsid: str | None = None
    pool: str | None = None
    image: str | None = None
    snapshot: str | None = None

    def process_specs(self) -> None:
        """Take `fsid`, `pool`, `image` and `snapshot` over from the specs, as text."""
        self.fsid = _text(self.specs.get("fsid"))
        self.pool = _text(self.specs.get("pool"))
        self.image = _text(self.specs.get("image"))
        self.snapshot = _text(self.specs.get("snapshot"))

    def get_uri(self) -> str:
        """Return the URI: the long form when all four values are there, else the short one."""
        if self.fsid and self.pool and self.image and self.snapshot:
            parts = (self.fsid, self.pool, self.image, self.snapshot)
            return "rbd://" + "/".join(urllib.parse.quote(part, safe="") for part in parts)
        # The short form has never been encoded.
        return f"rbd://{self.image}"

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI.

        :param uri: the text
        :raises BadStoreUri: it is malformed
        """
        _scheme, rest = _SYNTAX.strip_scheme(uri)
        parts = rest.split("/")
        if "" in parts:
            raise _SYNTAX.refuse(uri, _("a component is empty"))
        if len(parts) == 1:
            self.fsid = self.pool = self.snapshot = None
            self.image = parts[0]
        elif len(parts) == 4:
            self.fsid, self.pool, self.image, self.snapshot = (
                _SYNTAX.decode(uri, part) for part in parts
            )
        else:
            raise _SYNTAX.refuse(uri, _("it has neither one nor four components"))


def _text(value: Any) -> str | None:
    if value is None:
        return None
    # Older bindings give the fsid as bytes.
    return value.decode() if isinstance(value, bytes) else str(value)
