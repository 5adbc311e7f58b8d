# SPDX-License-Identifier: Apache-2.0
"""The address of the service, from the options for host, region and bucket."""

from __future__ import annotations

import re
from typing import NamedTuple

from glance_store import exceptions
from glance_store._drivers import _uri
from glance_store.i18n import _

# s3.eu-west-1.amazonaws.com, s3-eu-west-1..., s3.dualstack.eu-west-1..., in China ...com.cn.
_AMAZON = re.compile(
    r"s3(?P<special>(?:-fips)?(?:[.-]dualstack)?)(?:[.-](?P<region>[a-z]{2}(?:-[a-z]+)+-\d+))?"
    r"\.amazonaws\.com(?:\.cn)?(?::(?P<port>\d+))?"
)
_PORTS = {"http": "80", "https": "443"}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_CLASSIC_REGION = "us-east-1"
# Typing errors that leave the name of a scheme in place of the host.
_MISTYPED = re.compile(r"https?:?/", re.IGNORECASE)
# Ceph has <tenant>:<bucket> for the buckets of other tenants.
_BUCKET = re.compile(r"(?:[a-zA-Z0-9._-]*:)?[a-zA-Z0-9._-]{1,255}")
_DNS_BUCKET = re.compile(r"(?=.{3,63}$)[a-z0-9][a-z0-9-]*[a-z0-9]")


class Endpoint(NamedTuple):
    """The service that a store uses."""

    secure: bool
    host: str  # with port and path; no scheme, no slash at the end
    region: str | None  # None: the client library's default
    url: str | None  # None: Amazon's default for the region

    @property
    def location_scheme(self) -> str:
        """The scheme of the locations that the store writes."""
        return "s3+https" if self.secure else "s3"

    @property
    def shown(self) -> str:
        """The address, for log lines and errors."""
        return f"{'https' if self.secure else 'http'}://{self.host}"


def parse(option: str, region: str) -> Endpoint:
    """Return the service that s3_store_host and s3_store_region_name describe."""
    scheme, separator, rest = option.strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    scheme = scheme.lower()
    if scheme not in _PORTS:
        raise exceptions.BadStoreConfiguration(
            _("The option s3_store_host has the scheme %s: use http or https, or leave it out")
            # Text that cannot be a scheme may contain secrets.
            % (f"'{scheme}'" if _SCHEME.fullmatch(scheme) else "***")
        )
    secure = scheme == "https"
    # Credentials do not belong here; drop them, so that nothing shows them.
    host = rest.rstrip("/").rpartition("@")[2]
    mistyped = not separator and _MISTYPED.match(option.strip())
    if mistyped or set("?#,") & set(host) or not _uri.is_host(host.partition("/")[0]):
        raise exceptions.BadStoreConfiguration(_("The address in s3_store_host is not valid"))
    url = f"{scheme}://{host}"
    amazon = _AMAZON.fullmatch(host.lower())
    if region or amazon is None:
        return Endpoint(secure, host, region or None, url)
    # Without the address, special hosts (FIPS, IPv6) and ports would be lost.
    usual = not amazon["special"] and amazon["port"] in (None, _PORTS[scheme])
    return Endpoint(secure, host, amazon_region(host), None if usual else url)


def amazon_region(host: str) -> str | None:
    """Return the region in an Amazon host name; None for any other host."""
    found = _AMAZON.fullmatch(host.lower())
    if found is None:
        return None
    return found["region"] or _CLASSIC_REGION


def location_constraint(region: str | None) -> str | None:
    """Return the LocationConstraint of a new bucket; None where none may be sent."""
    return None if region in (None, "", _CLASSIC_REGION) else region


def is_bucket_name(bucket: str) -> bool:
    """Tell whether a text can be the name of a bucket; a path or an ARN cannot."""
    return _BUCKET.fullmatch(bucket) is not None and bucket not in (".", "..")


def is_dns_name(bucket: str) -> bool:
    """Tell whether a bucket name can be part of a host name."""
    return _DNS_BUCKET.fullmatch(bucket) is not None
