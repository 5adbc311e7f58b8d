# SPDX-License-Identifier: Apache-2.0
"""Sizes of segments: on their borders, and where the cluster takes few of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import large
from glance_store.testing import image
from glance_store.testing.inputs import check_bytes
from tests.drivers.swift.account import Account
from tests.drivers.swift.conftest import SEGMENT, locate, read
from tests.drivers.swift.uploads import BUFFERED, WAYS, add, options_of
from tests.services.swift import Swift

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.base import Lab

pytestmark = pytest.mark.services


@pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("way", [way for way in WAYS if WAYS[way].target])
def test_borders(make, account, container, tmp_path, way, more, known):
    """No empty segment, none too many, none too few."""
    store = make(**options_of(way, tmp_path))
    segment = WAYS[way].options.get("large_object_chunk_size", 1) * SEGMENT
    data = image(2 * segment + more)
    uri = add(store, "image", data, None if known else 0)
    query = "multipart-manifest=get&format=raw"
    entries = json.loads(account.call("GET", f"/{container}/image?{query}").body)
    expected = {-1: [segment, segment - 1], 0: [segment, segment], 1: [segment, segment, 1]}
    assert [entry["size_bytes"] for entry in entries] == expected[more]
    assert len(account.objects(container)) == 1 + len(entries)
    check_bytes(read(store, uri), data)


# A cluster that takes few segments.

PAGE = 9
# A dynamic object of as many as a page has cannot be read.
MOST = PAGE - 1
STATIC = 3


class FewSegments(Swift):
    """A Swift with low limits, besides the other one."""

    name = "swift-few-segments"
    container_listing_limit = PAGE
    catalogued: ClassVar[tuple[str, str]] = ("object-store-few-segments", "few segments")

    def _write(self, folder: Path, memcached_port: int, ports: dict[str, int]) -> None:
        super()._write(folder, memcached_port, ports)
        conf = folder / "proxy.conf"
        text = conf.read_text()
        assert text.count("[filter:slo]\n") == 1
        limit = f"[filter:slo]\nmax_manifest_segments = {STATIC}\n"
        conf.write_text(text.replace("[filter:slo]\n", limit))


@pytest.fixture(scope="module")
def few(lab: Lab, swift: Swift) -> Swift:
    return lab.get(FewSegments)


@pytest.fixture
def there(keystone, few, container) -> Iterator[Account]:
    """The account of the service in that cluster."""
    found = Account(keystone, "glance", few.storage_url("glance"))
    yield found
    found.remove(container)


def sizes_of(account: Account, container: str) -> list[int]:
    """Return the bytes of the segments of the only image, in order."""
    names = account.objects(container)
    heads = [account.call("HEAD", f"/{container}/{name}").headers for name in names[1:]]
    return [int(head["content-length"]) for head in heads]


@pytest.mark.parametrize(
    ("size", "segments", "static"),
    [
        (STATIC * SEGMENT, [SEGMENT] * STATIC, True),
        (STATIC * SEGMENT + 1, [SEGMENT] * STATIC + [1], False),
        (MOST * SEGMENT, [SEGMENT] * MOST, False),
        (MOST * SEGMENT + 1, [SEGMENT + 1] * (MOST - 1) + [SEGMENT - 6], False),
        (20 * SEGMENT, [20 * SEGMENT // MOST] * MOST, False),
    ],
)
@pytest.mark.parametrize("way", ["segments", BUFFERED])
def test_known_size(make, there, container, tmp_path, way, size, segments, static):
    """They are larger where so many as configured would not be an image."""
    store = make(endpoint=there.url, **options_of(way, tmp_path))
    data = image(size)
    uri = add(store, "image", data)
    assert sizes_of(there, container) == segments
    head = there.call("HEAD", f"/{container}/image").headers
    assert ("x-static-large-object" in head) == static
    assert store.get_size(locate(store, uri)) == size
    check_bytes(read(store, uri), data)
    store.delete(locate(store, uri))
    assert there.objects(container) == []


MIB = 1024 * 1024
# What the segments of an image grow to whose size is not known: no further than two of them fit
# into so many MiB of memory.
GROWN = {
    16: [SEGMENT, SEGMENT] + [MIB * times for times in (2, 4, 8, 8, 8, 8)],
    32: [SEGMENT, SEGMENT] + [MIB * times for times in (2, 4, 8, 16, 16, 16)],
}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    "count", [1, 2, 3, 5.5, 8], ids=["first", "last-same", "grown", "part", "all"]
)
@pytest.mark.parametrize("memory", GROWN)
def test_unknown_size(make, there, container, memory, count, threads):
    """They grow as far as they can be held."""
    store = make(endpoint=there.url, memory=memory, thread_pool_size=threads)
    sizes = GROWN[memory][: int(count)] + ([3 * SEGMENT + 5] if count % 1 else [])
    data = image(sum(sizes))
    uri = add(store, "image", data, 0)
    assert sizes_of(there, container) == sizes
    check_bytes(read(store, uri), data)
    store.delete(locate(store, uri))
    assert there.objects(container) == []


@pytest.mark.parametrize("way", ["streamed-kept", "streamed", BUFFERED])
def test_unknown_size_in_order(make, there, container, tmp_path, way):
    store = make(endpoint=there.url, **options_of(way, tmp_path))
    chunk = WAYS[way].options.get("large_object_chunk_size", 1) * SEGMENT
    data = image(4 * chunk)
    uri = add(store, "image", data, 0)
    assert sizes_of(there, container) == [chunk, chunk, 2 * chunk]
    check_bytes(read(store, uri), data)


@pytest.mark.parametrize("memory", GROWN)
def test_more_than_fits(make, there, container, memory):
    """An image that could not be read is none."""
    store = make(endpoint=there.url, memory=memory)
    with pytest.raises(exceptions.StorageFull, match="larger parts may help"):
        add(store, "image", image(sum(GROWN[memory]) + 1), 0)
    assert there.objects(container) == []


def test_largest_object_of_the_cluster(make, there, container, monkeypatch):
    """No segment is larger, whatever is configured; what does not fit is refused at once."""
    said = large.ClusterInfo(None, PAGE, SEGMENT)
    monkeypatch.setattr(large, "cluster_info", lambda _client, _patience: said)
    store = make(endpoint=there.url, large_object_chunk_size=5)
    with pytest.raises(exceptions.StorageFull, match=str(SEGMENT)):
        add(store, "large", image(MOST * SEGMENT + 1))
    assert there.containers(container) == []
    data = image(2 * SEGMENT + 1)
    uri = add(store, "image", data)
    assert sizes_of(there, container) == [SEGMENT, SEGMENT, 1]
    check_bytes(read(store, uri), data)
