# SPDX-License-Identifier: Apache-2.0
"""Where the service is: what the options say about host, region and bucket."""

from __future__ import annotations

import re
from typing import NamedTuple

# s3.eu-west-1.amazonaws.com, s3-eu-west-1..., s3.dualstack.eu-west-1..., in China ...com.cn.
_AMAZON = re.compile(
    r"s3(?:-fips)?(?:[.-]dualstack)?(?:[.-](?P<region>[a-z]{2}(?:-[a-z]+)+-\d+))?"
    r"\.amazonaws\.com(?:\.cn)?"
)
_CLASSIC_REGION = "us-east-1"
_DNS_BUCKET = re.compile(r"(?=.{3,63}$)[a-z0-9][a-z0-9-]*[a-z0-9]")


class Endpoint(NamedTuple):
    """The service of a store."""

    secure: bool
    host: str  # with port and path, without a scheme and without a slash at the end
    region: str | None  # None: whatever the client library takes
    url: str | None  # None: Amazon's own for the region

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
    """
    scheme, separator, rest = option.strip().partition("://")
    secure = bool(separator) and scheme.lower() == "https"
    # Credentials do not belong there; should they be, nobody gets to see them.
    host = (rest if separator else option.strip()).rstrip("/").rpartition("@")[2]
    url = f"{'https' if secure else 'http'}://{host}"
    if region:
        return Endpoint(secure, host, region, url)
    known = amazon_region(host)
    if known is not None:
        return Endpoint(secure, host, known, None)
    return Endpoint(secure, host, None, url)


def amazon_region(host: str) -> str | None:
    """Return the region of a host name of Amazon; None for any other host.

    :param host: with or without a port
    """
    found = _AMAZON.fullmatch(host.partition(":")[0].lower())
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
