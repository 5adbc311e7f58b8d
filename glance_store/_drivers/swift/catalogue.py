# SPDX-License-Identifier: Apache-2.0
"""The service catalogue of a request: where Swift is, and where a user's token may be sent."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import urllib3.exceptions
import urllib3.util

_PORTS = {"http": 80, "https": 443}
_KINDS = ("publicURL", "internalURL", "adminURL")
# The URLs of all accounts of a cluster are the same up to here.
_VERSION = "/v1"


def addresses(
    catalog: Any, service_type: str, kind: str | None = None, region: str | None = None
) -> Iterator[str]:
    """Yield the matching addresses of a catalogue, in the form of version 2 or 3.

    `kind` is one of the values of ``swift_store_endpoint_type``; None matches all kinds or regions.
    """
    kinds = _KINDS if kind is None else (kind,)
    interfaces = {name for one in kinds for name in (one, one.removesuffix("URL"))}
    for service in _mappings(catalog):
        if service.get("type") != service_type:
            continue
        for endpoint in _mappings(service.get("endpoints")):
            if region and region not in (endpoint.get("region"), endpoint.get("region_id")):
                continue
            urls = [endpoint.get(one) for one in kinds]
            if endpoint.get("interface") in interfaces:
                urls.append(endpoint.get("url"))
            yield from dict.fromkeys(str(url) for url in urls if url)


def _mappings(listed: Any) -> list[Any]:
    """Return the dictionaries of a catalogue's list, even if the catalogue is malformed."""
    return [each for each in listed or () if isinstance(each, Mapping)]


class ClusterAddress(NamedTuple):
    """What the URLs of all accounts on one Swift cluster have in common."""

    scheme: str
    host: str
    port: int
    path: str | None  # before the version; None if there is no version

    @classmethod
    def of(cls, url: str) -> ClusterAddress | None:
        """Return the cluster of an account's URL; None if the URL is unusable."""
        try:
            # Use the parser of the library that sends the requests: another may see another host.
            parts = urllib3.util.parse_url(url)
        except urllib3.exceptions.LocationParseError:
            return None
        scheme, host = parts.scheme or "", parts.host or ""
        if scheme not in _PORTS or not host or parts.auth is not None:
            return None
        path = parts.path or ""
        # A server may decode the path before it resolves such steps.
        if any(part in (".", "..") for part in urllib.parse.unquote(path).split("/")):
            return None
        before, version, _account = path.rpartition(_VERSION)
        return cls(scheme, host, parts.port or _PORTS[scheme], before if version else None)


def is_known(url: str, known: Iterable[str]) -> bool:
    """Tell whether an account is on the same cluster as one of the known addresses."""
    wanted = ClusterAddress.of(url)
    clusters = {ClusterAddress.of(address) for address in known}
    return wanted is not None and (
        # Without a version, an address says nothing about other accounts.
        wanted in clusters or wanted._replace(path=None) in clusters
    )
