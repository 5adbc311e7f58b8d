# SPDX-License-Identifier: Apache-2.0
"""Large objects: what the cluster can do, and the two kinds of manifests that make segments one."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import time
import urllib.parse
from typing import NamedTuple

from glance_store import exceptions
from glance_store._drivers.swift.client import Client
from glance_store._drivers.swift.publish import TAKEN, Expected, Name
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# Seconds for which a cluster's answer is believed.
_KEPT = 3600.0
# Seconds that the cluster may take to look at one segment of a manifest.
_PER_SEGMENT = 0.5
_ODD = re.compile(r"[^A-Za-z0-9._~-]")
_PLAIN_NUMBERS = 100_000


class Segment(NamedTuple):
    """A stored part of an image."""

    name: str
    etag: str
    size: int


class Limits(NamedTuple):
    """How large a static large object may be."""

    segments: int
    manifest_bytes: int
    smallest_segment: int


class Cluster(NamedTuple):
    """What a cluster says of itself."""

    static: Limits | None  # None: there are no static large objects
    listing: int  # entries of a listing of a container
    largest: int  # bytes of an object

    def most(self, name: Name, segment: int) -> int:
        """Return of how many segments an image can be.

        :param name: of the image
        :param segment: bytes of one
        """
        # Of as many as a listing has, Swift knows no length, and serves no range behind them.
        dynamic = max(1, self.listing - 1)
        static = self.static
        if static is None or segment < static.smallest_segment:
            return dynamic
        return max(dynamic, min(static.segments, static.manifest_bytes // _entry_bytes(name)))


# Of a cluster that does not say.
USUAL = Cluster(None, 10_000, 5 * 1024**3)

_CLUSTERS: dict[str, tuple[float, Cluster]] = {}


def prefix(name: Name) -> str:
    """Return what the names of an upload's segments begin with, and those of no other.

    Two uploads of one id never mix their segments, nor do segments that a killed process has left
    become part of a later image.

    :param name: of the image
    """
    # radosgw decodes the names in a manifest that it removes: they need nothing to be decoded.
    return f"{_ODD.sub('_', name.obj)}-{name.mark}-"


def segment_name(name: Name, number: int) -> str:
    """Return the name of a segment.

    :param name: of the image
    :param number: from 1
    """
    # In a dynamic large object the order of the names is the order of the segments.
    digits = f"{number:05d}" if number < _PLAIN_NUMBERS else f"x{number:09d}"
    return prefix(name) + digits


def cluster(client: Client) -> Cluster:
    """Return what a cluster says of itself; it is asked once an hour.

    :param client: of an account on the cluster
    """
    address = urllib.parse.urlsplit(client.account.url).netloc
    stored = _CLUSTERS.get(address)
    if stored is not None and time.monotonic() - stored[0] < _KEPT:
        return stored[1]
    try:
        response = client.info()
    except exceptions.RemoteServiceUnavailable:
        response = None
    if response is None or response.status not in (200, 401, 403, 404):
        # Asked again next time; a dynamic large object can always be written.
        return USUAL if stored is None else stored[1]
    found = _parse_cluster(response.data) if response.status == 200 else USUAL
    _CLUSTERS[address] = (time.monotonic(), found)
    return found


def limits(client: Client) -> Limits | None:
    """Return the limits of static large objects; None where there are none such objects.

    :param client: of an account on the cluster
    """
    return cluster(client).static


def _parse_cluster(text: bytes) -> Cluster:
    listing, largest = USUAL.listing, USUAL.largest
    try:
        swift = json.loads(text)["swift"]
        listing = int(swift.get("container_listing_limit", listing))
        largest = int(swift.get("max_file_size", largest))
    except (ValueError, KeyError, TypeError, AttributeError):
        LOG.debug("The cluster says nothing of its limits, or something strange")
    return Cluster(_parse(text), max(2, listing), max(1, largest))


def _parse(text: bytes) -> Limits | None:
    try:
        slo = json.loads(text)["slo"]
        return Limits(
            int(slo.get("max_manifest_segments", 1000)),
            int(slo.get("max_manifest_size", 2 * 1024 * 1024)),
            int(slo.get("min_segment_size", 1)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _entry(name: Name, segment: Segment) -> dict[str, object]:
    return {
        "path": f"/{name.container}/{segment.name}",
        "etag": segment.etag,
        "size_bytes": segment.size,
    }


def _entry_bytes(name: Name) -> int:
    """Return how long an entry of a manifest is at most."""
    longest = Segment(segment_name(name, _PLAIN_NUMBERS), "0" * 32, 10**10)
    # With a comma and a space.
    return len(json.dumps(_entry(name, longest))) + 2


class Manifest:
    """The segments of an upload, and the manifest that will make them an image.

    :param name: of the image
    """

    def __init__(self, name: Name) -> None:
        self.name = name
        # Names that the cluster may know, whatever has become of the requests.
        self._attempted: dict[int, str] = {}
        self._stored: dict[int, Segment] = {}
        self._lock = threading.Lock()

    def attempt(self, number: int) -> str:
        """Return the name of a segment that is about to be sent.

        :param number: from 1
        """
        name = segment_name(self.name, number)
        with self._lock:
            self._attempted[number] = name
        return name

    def stored(self, number: int, etag: str, size: int) -> None:
        """Note that a segment is stored.

        :param number: from 1
        :param etag: MD5 of its bytes, in hexadecimal
        :param size: bytes
        """
        with self._lock:
            self._stored[number] = Segment(self._attempted[number], etag, size)

    @property
    def attempted(self) -> list[str]:
        """Names of all segments that may be in the container."""
        with self._lock:
            return list(self._attempted.values())

    def publish(self, size: int) -> None:
        """Write the manifest.

        :param size: bytes of the image
        :raises Duplicate: another upload was first
        :raises SwiftError: segments are missing
        """
        with self._lock:
            segments = [self._stored[number] for number in sorted(self._stored)]
        if sum(segment.size for segment in segments) != size:
            raise exceptions.BackendException(
                f"The segments of image {self.name.obj} do not have its {size} bytes"
            )
        with self.name.alone():
            body = self._static(segments)
            if body is None:
                # What Swift says of the data comes from a listing, and is no proof.
                expected = Expected(size, None)
                self.name.publish(self._put_dynamic, lambda: expected)
            else:
                expected = Expected(size, _etag(segments))
                self.name.publish(lambda: self._put_static(body, segments), lambda: expected)

    def _static(self, segments: list[Segment]) -> bytes | None:
        """Return the manifest of a static large object; None where that is not possible."""
        found = limits(self.name.client)
        if found is None or not 0 < len(segments) <= found.segments:
            return None
        # The last one may always be small.
        if any(segment.size < found.smallest_segment for segment in segments[:-1]):
            return None
        body = json.dumps([_entry(self.name, segment) for segment in segments]).encode()
        return body if len(body) <= found.manifest_bytes else None

    def _put_static(self, body: bytes, segments: list[Segment]) -> int:
        client = self.name.client
        patience = client.settings.read_timeout + _PER_SEGMENT * len(segments)
        return client.request(
            "PUT",
            self.name.container,
            self.name.obj,
            action=_("Writing the manifest of image %s") % self.name.obj,
            query={"multipart-manifest": "put"},
            headers=self.name.headers(),
            body=body,
            allow=TAKEN,
            retries=0,
            read_timeout=patience,
        ).status

    def _put_dynamic(self) -> int:
        # No ETag: radosgw compares it with that of the whole image.
        place = urllib.parse.quote(f"{self.name.container}/{prefix(self.name)}")
        return self.name.client.request(
            "PUT",
            self.name.container,
            self.name.obj,
            action=_("Writing the manifest of image %s") % self.name.obj,
            headers=self.name.headers({"X-Object-Manifest": place}),
            body=b"",
            allow=TAKEN,
            retries=0,
        ).status


def _etag(segments: list[Segment]) -> str:
    """Return the ETag of a static large object: the MD5 of the ETags of its segments."""
    etags = "".join(segment.etag for segment in segments)
    return hashlib.md5(etags.encode(), usedforsecurity=False).hexdigest()
