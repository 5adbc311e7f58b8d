# SPDX-License-Identifier: Apache-2.0
"""Large objects: what the cluster supports, and the two kinds of manifests."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

from glance_store._drivers._objects.errors import ERRORS
from glance_store._drivers._objects.ranges import bare_etag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glance_store._drivers.swift.client import Client
    from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

# The header with the mark of the upload that stored an image.
MARK = "X-Object-Meta-Glance-Upload"
# The header with the bytes of a dynamic large object: Swift adds them up from a listing, which can
# lag.
SIZE = "X-Object-Meta-Glance-Size"
# Seconds to keep a cluster's response, and seconds before asking again one that gave none.
_KEPT, _PAUSE = 3600.0, 60.0
# An underscore replaces these characters in the names of segments.
ODD = re.compile(r"[^A-Za-z0-9._~-]")
_PLAIN_NUMBERS = 100_000


class Segment(NamedTuple):
    """A stored part of an image."""

    name: str
    etag: str
    size: int


class Static(NamedTuple):
    """The limits of a static large object."""

    segments: int
    manifest_bytes: int
    smallest_segment: int


class Limits(NamedTuple):
    """A cluster's limits: segments of an image, bytes of an object."""

    most: int
    largest: int


class ClusterInfo(NamedTuple):
    """The capabilities a cluster reports."""

    static: Static | None  # None: no static large objects
    listing: int  # entries in a page of a container's listing
    largest: int  # bytes of an object

    def limits(self, names: Names, segment: int) -> Limits:
        """Return the limits for an image whose first segment has `segment` bytes."""
        # For as many segments as a page has, Swift knows no length, and serves no range beyond
        # them.
        most = max(1, self.listing - 1)
        static = self.static
        if static is not None and segment >= static.smallest_segment:
            most = max(most, min(static.segments, static.manifest_bytes // names.entry_bytes))
        return Limits(most, self.largest)

    def manifest(self, names: Names, segments: list[Segment]) -> bytes | None:
        """Return the manifest of a static large object; None if it cannot be one."""
        static = self.static
        if static is None or not 0 < len(segments) <= static.segments:
            return None
        # The last one may always be small.
        if any(segment.size < static.smallest_segment for segment in segments[:-1]):
            return None
        body = json.dumps([names.entry(segment) for segment in segments]).encode()
        return body if len(body) <= static.manifest_bytes else None


# Assumed for a cluster that does not say.
USUAL = ClusterInfo(None, 10_000, 5 * 1024**3)

# By the URL of an account: one host may serve several clusters.
_CLUSTERS: dict[str, tuple[float, ClusterInfo]] = {}


def cluster_info(client: Client, patience: Patience) -> ClusterInfo:
    """Return the capabilities of a cluster; it is asked once an hour, and need not answer."""
    address = client.account.url
    stored = _CLUSTERS.get(address)
    if stored is not None and time.monotonic() - stored[0] < _KEPT:
        return stored[1]
    try:
        response = client.info(patience)
    except ERRORS as exc:
        LOG.info("%s; asking again after a minute", exc)
        response = None
    now = time.monotonic()
    if response is None or response.status_code not in (200, 401, 403, 404):
        # A dynamic large object can always be written.
        found, now = (USUAL if stored is None else stored[1]), now - _KEPT + _PAUSE
    else:
        found = _parsed(response.content) if response.status_code == 200 else USUAL
    _CLUSTERS[address] = (now, found)
    return found


def _parsed(text: bytes) -> ClusterInfo:
    listing, largest, static = USUAL.listing, USUAL.largest, None
    try:
        said: Any = json.loads(text)
        limits = said.get("swift", {})
        listing = int(limits.get("container_listing_limit", listing))
        largest = int(limits.get("max_file_size", largest))
        slo = said.get("slo")
        if slo is not None:
            static = Static(
                int(slo.get("max_manifest_segments", 1000)),
                int(slo.get("max_manifest_size", 2 * 1024 * 1024)),
                int(slo.get("min_segment_size", 1)),
            )
    except (ValueError, TypeError, AttributeError):
        LOG.debug("The cluster's response does not state its limits")
    # Some servers say 0 or -1 where there is no limit.
    return ClusterInfo(
        static,
        listing if listing > 1 else USUAL.listing,
        largest if largest > 0 else USUAL.largest,
    )


class Names:
    """Names of the segments of an upload.

    Two uploads of one id never mix their segments, and segments left by a killed process never
    become part of a later image.
    """

    def __init__(self, container: str, obj: str, mark: str) -> None:
        self._container = container
        # radosgw percent-decodes the names in a manifest it removes: decoding must not change them.
        self.prefix = f"{ODD.sub('_', obj)}-{mark}-"

    def of(self, number: int) -> str:
        """Return the name of a segment; the first is number 1."""
        # A dynamic large object has its segments in the order of their names.
        digits = f"{number:05d}" if number < _PLAIN_NUMBERS else f"x{number:09d}"
        return self.prefix + digits

    def entry(self, segment: Segment) -> dict[str, object]:
        """Return a segment's entry in a static manifest."""
        return {
            "path": f"/{self._container}/{segment.name}",
            "etag": segment.etag,
            "size_bytes": segment.size,
        }

    @property
    def entry_bytes(self) -> int:
        """The maximum length of an entry in a static manifest."""
        longest = Segment(self.of(_PLAIN_NUMBERS), "0" * 32, 10**10)
        # With a comma and a space.
        return len(json.dumps(self.entry(longest))) + 2


class About:
    """What the headers of an object say about an image."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.mark = headers.get(MARK, "")  # of its upload; empty if another program stored it
        self.etag = etag_in(headers)
        self.size = _number(headers.get("content-length"))  # bytes, None if unknown
        self.stored_size = _number(headers.get(SIZE))  # bytes of a dynamic large object
        self.static = headers.get("x-static-large-object", "").lower() == "true"
        # Releases before 6 sent UTF-8 without quoting it; HTTP headers are read as Latin-1.
        text = headers.get("x-object-manifest", "").encode("latin-1", "replace")
        # Container and prefix of the segments of a dynamic large object; empty for any other.
        self.prefix = urllib.parse.unquote_to_bytes(text).decode(errors="replace")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def etag_in(headers: Mapping[str, str]) -> str:
    """Return the MD5 in hexadecimal that Swift reports; empty if it reports none."""
    return bare_etag(headers.get("etag")).lower()


def etag_of(segments: list[Segment]) -> str:
    """Return the ETag of a static large object: the MD5 of its segments' ETags."""
    etags = "".join(segment.etag for segment in segments)
    return hashlib.md5(etags.encode(), usedforsecurity=False).hexdigest()
