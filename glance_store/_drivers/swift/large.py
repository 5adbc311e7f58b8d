# SPDX-License-Identifier: Apache-2.0
"""Large objects: what the cluster can do, and the two kinds of manifests that make segments one."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from glance_store._drivers._objects.errors import ERRORS

if TYPE_CHECKING:
    from glance_store._drivers.swift.client import Client
    from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

# The header with the mark of the upload that has stored an image.
MARK = "X-Object-Meta-Glance-Upload"
# Seconds for which a cluster's answer is believed, and until one that gives none is asked again.
_KEPT, _PAUSE = 3600.0, 60.0
# In the names of segments an underline stands for these.
ODD = re.compile(r"[^A-Za-z0-9._~-]")
_PLAIN_NUMBERS = 100_000
# In what it says of a segment in a manifest: it is not there (yet), or its server is not well.
_NOT_SEEN = re.compile(r"\b(404 Not Found|408 Request Timeout|5\d\d [A-Z])")


class Segment(NamedTuple):
    """A stored part of an image."""

    name: str
    etag: str
    size: int


class Static(NamedTuple):
    """How large a static large object may be."""

    segments: int
    manifest_bytes: int
    smallest_segment: int


class Limits(NamedTuple):
    """What a cluster takes: segments of an image, bytes of an object."""

    most: int
    largest: int


class Cluster(NamedTuple):
    """What a cluster says of itself."""

    static: Static | None  # None: there are no static large objects
    listing: int  # entries of a listing of a container
    largest: int  # bytes of an object

    def limits(self, names: Names, segment: int) -> Limits:
        """Return of how many segments of which size an image can be.

        :param names: of its segments
        :param segment: bytes of the first one
        """
        # Of as many as a listing has, Swift knows no length, and serves no range behind them.
        most = max(1, self.listing - 1)
        static = self.static
        if static is not None and segment >= static.smallest_segment:
            most = max(most, min(static.segments, static.manifest_bytes // names.entry_bytes))
        return Limits(most, self.largest)

    def manifest(self, names: Names, segments: list[Segment]) -> bytes | None:
        """Return the manifest of a static large object; None where that is not possible.

        :param names: of the segments
        :param segments: in order
        """
        static = self.static
        if static is None or not 0 < len(segments) <= static.segments:
            return None
        # The last one may always be small.
        if any(segment.size < static.smallest_segment for segment in segments[:-1]):
            return None
        body = json.dumps([names.entry(segment) for segment in segments]).encode()
        return body if len(body) <= static.manifest_bytes else None


# Of a cluster that does not say.
USUAL = Cluster(None, 10_000, 5 * 1024**3)

# By the address of an account: behind one host there may be several clusters.
_CLUSTERS: dict[str, tuple[float, Cluster]] = {}


def cluster(client: Client, patience: Patience) -> Cluster:
    """Return what a cluster says of itself; it is asked once an hour, and need not answer.

    :param client: of an account on the cluster
    :param patience: for passing failures
    """
    address = client.account.url
    stored = _CLUSTERS.get(address)
    if stored is not None and time.monotonic() - stored[0] < _KEPT:
        return stored[1]
    try:
        response = client.info(patience)
    except ERRORS as exc:
        LOG.info("%s; asked again after a minute", exc)
        response = None
    now = time.monotonic()
    if response is None or response.status_code not in (200, 401, 403, 404):
        # A dynamic large object can always be written.
        found, now = (USUAL if stored is None else stored[1]), now - _KEPT + _PAUSE
    else:
        found = _parsed(response.content) if response.status_code == 200 else USUAL
    _CLUSTERS[address] = (now, found)
    return found


def _parsed(text: bytes) -> Cluster:
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
        LOG.debug("The cluster says nothing of its limits, or something strange")
    return Cluster(static, max(2, listing), max(1, largest))


class Names:
    """Names of the segments of an upload.

    Two uploads of one id never mix their segments, nor do segments that a killed process has left
    become part of a later image.

    :param container: where they are
    :param obj: name of the image
    :param mark: of the upload
    """

    def __init__(self, container: str, obj: str, mark: str) -> None:
        self._container = container
        # radosgw decodes the names in a manifest that it removes: they need nothing to be decoded.
        self.prefix = f"{ODD.sub('_', obj)}-{mark}-"

    def of(self, number: int) -> str:
        """Return the name of a segment.

        :param number: from 1
        """
        # In a dynamic large object the order of the names is the order of the segments.
        digits = f"{number:05d}" if number < _PLAIN_NUMBERS else f"x{number:09d}"
        return self.prefix + digits

    def entry(self, segment: Segment) -> dict[str, object]:
        """Return the entry of a manifest."""
        return {
            "path": f"/{self._container}/{segment.name}",
            "etag": segment.etag,
            "size_bytes": segment.size,
        }

    @property
    def entry_bytes(self) -> int:
        """How long an entry of a manifest is at most."""
        longest = Segment(self.of(_PLAIN_NUMBERS), "0" * 32, 10**10)
        # With a comma and a space.
        return len(json.dumps(self.entry(longest))) + 2


def lacks_segments(said: str) -> bool:
    """Tell whether a cluster refuses a manifest since it cannot see segments yet.

    :param said: what it says of them, such as ``Errors: /container/segment, 404 Not Found``
    """
    return _NOT_SEEN.search(said) is not None


def etag_of(segments: list[Segment]) -> str:
    """Return the ETag of a static large object: the MD5 of the ETags of its segments."""
    etags = "".join(segment.etag for segment in segments)
    return hashlib.md5(etags.encode(), usedforsecurity=False).hexdigest()
