# SPDX-License-Identifier: Apache-2.0
"""Locations of the S3 store."""

from __future__ import annotations

from glance_store import location
from glance_store._drivers import _uri
from glance_store.i18n import _

SCHEMES = ("s3", "s3+http", "s3+https")

_SYNTAX = _uri.UriSyntax(SCHEMES, "s3[+http|+https]://<host>[:<port>]/<bucket>/<object>")


class StoreLocation(location.StoreLocation):
    """An object in a bucket.

    Attributes: `scheme`, `s3serviceurl` (as in the URI, without a scheme), `bucket`, `key`. Old
    releases wrote ``access key:secret key@`` before the host. `s3serviceurl` keeps that, so that
    the URI does not change; use `endpoint` for everything else, above all for log lines.
    """

    scheme: str = "s3"
    s3serviceurl: str | None = None
    bucket: str | None = None
    key: str | None = None

    @property
    def endpoint(self) -> str:
        """Host, port and path of the service, without credentials and without a scheme."""
        # A secret key may contain slashes: only the last @ ends it.
        return (self.s3serviceurl or "").rpartition("@")[2]

    def process_specs(self) -> None:
        """Take `scheme`, `s3serviceurl`, `bucket` and `key` from the specs.

        ``https://`` before `s3serviceurl` makes the scheme ``s3+https``. Keys of the account are
        not part of a location and are ignored.
        """
        self.scheme = self.specs.get("scheme") or "s3"
        url = str(self.specs.get("s3serviceurl") or "")
        if url.lower().startswith("https://"):
            self.scheme = "s3+https"
        if url.lower().startswith(("http://", "https://")):
            url = url.partition("://")[2]
        self.s3serviceurl = url.rstrip("/")
        self.bucket = self.specs.get("bucket")
        self.key = self.specs.get("key")

    def get_uri(self) -> str:
        """Return the URI, without credentials unless it was parsed from one that has them."""
        return f"{self.scheme}://{self.s3serviceurl}/{self.bucket}/{self.key}"

    def get_image_id(self) -> str | None:
        """Return the id of the image."""
        return self.key

    def parse_uri(self, uri: str) -> None:
        """Set the attributes from a URI."""
        split = _SYNTAX.split(uri)
        if uri.count("://") != 1:
            raise _SYNTAX.refuse(uri, _("it contains '://' more than once"))
        parts = (split.netloc + split.path).rstrip("/").split("/")
        if len(parts) < 3 or not (parts[0] and parts[-2] and parts[-1]):
            raise _SYNTAX.refuse(uri, _("the host, the bucket or the object is missing"))
        service = "/".join(parts[:-2])
        if not _uri.is_host(service.rpartition("@")[2].partition("/")[0]):
            raise _SYNTAX.refuse(uri, _("the host or its port is not valid"))
        self.scheme = split.scheme
        self.s3serviceurl = service
        self.bucket = parts[-2]
        self.key = parts[-1]
