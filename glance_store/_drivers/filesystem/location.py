# SPDX-License-Identifier: Apache-2.0
"""Locations of the file system store: ``file:///path``."""

from __future__ import annotations

import os

from glance_store import exceptions, location
from glance_store.i18n import _

SCHEMES = ("file", "filesystem")


def is_encodable(path: str) -> bool:
    """Tell whether the file system can have a file of this name at all."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


class StoreLocation(location.StoreLocation):
    """A file by its path.

    The path is taken literally: percent signs, question marks and number signs are part of it, as
    in older locations.
    """

    scheme: str = "file"
    path: str = ""

    def process_specs(self) -> None:
        self.scheme = self.specs.get("scheme", "file")
        self.path = self.specs.get("path") or ""

    def get_uri(self) -> str:
        return f"file://{self.path}"

    def parse_uri(self, uri: str) -> None:
        """Take the path from a ``file://`` or ``filesystem://`` URI."""
        self.validate_schemas(uri, tuple(f"{scheme}://" for scheme in SCHEMES))
        self.scheme, _separator, rest = uri.partition("://")
        self.path = rest.strip()
        if not self.path or "\0" in self.path or not is_encodable(self.path):
            raise exceptions.BadStoreUri(
                _("The Store URI was malformed: %(uri)s names no file; the form is file:///path"),
                uri=uri.replace("\0", "\\0").encode(errors="backslashreplace").decode(),
            )

    def get_image_id(self) -> str | None:
        return os.path.basename(self.path) or None

    def __repr__(self) -> str:
        return f"<StoreLocation file://{self.path}>"
