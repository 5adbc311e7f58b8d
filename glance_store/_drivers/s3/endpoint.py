# SPDX-License-Identifier: Apache-2.0
"""Where the service is: what the options say about host, region and bucket."""

from __future__ import annotations

import re
from typing import NamedTuple

from glance_store import exceptions
from glance_store.i18n import _

# s3.eu-west-1.amazonaws.com, s3-eu-west-1..., s3.dualstack.eu-west-1..., in China ...com.cn.
_AMAZON = re.compile(
    r"s3(?P<special>(?:-fips)?(?:[.-]dualstack)?)(?:[.-](?P<region>[a-z]{2}(?:-[a-z]+)+-\d+))?"
    r"\.amazonaws\.com(?:\.cn)?(?::(?P<port>\d+))?"
)
_PORTS = {"http": "80", "https": "443"}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_CLASSIC_REGION = "us-east-1"
_DNS_BUCKET = re.compile(r"(?=.{3,63}$)[a-z0-9][a-z0-9-]*[a-z0-9]")


class Endpoint(NamedTuple):
    """The service of a store."""

    secure: bool
    host: str  # with port and path, without a scheme and without a slash at the end
    region: str | None  # None: whatever the client library takes
    url: str | None  # None: Amazon's usual one for the region

    @property
    def location_scheme(self) -> str:
        """Scheme of the locations that the store writes."""
        return "s3+https" if self.secure else "s3"

    @property
    def shown(self) -> str:
        """The address for log lines and errors."""
        return f"{'https' if self.secure else 'http'}://{self.host}"


def parse(option: str, region: str) -> Endpoint:
    """Read the address of the service.

    :param option: the option ``s3_store_host``: a host with or without a scheme in front
    :param region: the option ``s3_store_region_name``, empty if it is not set
    :raises BadStoreConfiguration: the scheme is neither http nor https
    """
    scheme, separator, rest = option.strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    scheme = scheme.lower()
    if scheme not in _PORTS:
        raise exceptions.BadStoreConfiguration(
            _("The option s3_store_host has the scheme %s; it has to be http or https, or left out")
            # What cannot be a scheme may be anything, and have secrets in it.
            % (f"'{scheme}'" if _SCHEME.fullmatch(scheme) else "***")
        )
    secure = scheme == "https"
    # Credentials do not belong there; should they be, nobody gets to see them.
    host = rest.rstrip("/").rpartition("@")[2]
    url = f"{scheme}://{host}"
    amazon = _AMAZON.fullmatch(host.lower())
    if region or amazon is None:
        return Endpoint(secure, host, region or None, url)
    # Special hosts (FIPS, IPv6) and ports would be lost with the address.
    usual = not amazon["special"] and amazon["port"] in (None, _PORTS[scheme])
    return Endpoint(secure, host, amazon_region(host), None if usual else url)


def amazon_region(host: str) -> str | None:
    """Return the region of a host name of Amazon; None for any other host.

    :param host: with or without a port
    """
    found = _AMAZON.fullmatch(host.lower())
    if found is None:
        return None
    return found["region"] or _CLASSIC_REGION


def location_constraint(region: str | None) -> str | None:
    """Return the name of the place of a new bucket; None where a request may not name it.

    :param region: of the service
    """
    return None if region in (None, "", _CLASSIC_REGION) else region


def is_dns_name(bucket: str) -> bool:
    """Tell whether a bucket can stand in front of a host name.

    :param bucket: its name
    """
    return _DNS_BUCKET.fullmatch(bucket) is not None
