# SPDX-License-Identifier: Apache-2.0
"""Dynamic images of more segments than Swift lists at once: it says that they are empty.

Usually that are 10,000. Here it is few, on a Swift of its own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import urllib.parse
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.swift.account import Account
from tests.drivers.swift.conftest import locate, read
from tests.faults.http import How
from tests.faults.proxy import FaultProxy
from tests.services.swift import Swift

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glance_store._drivers.swift import BaseStore
    from tests.services.base import Lab

pytestmark = pytest.mark.services

PAGE = 20
# Two pages are full, the last one is not; segments differ in their sizes, one is empty.
SIZES = [1000 + 7 * number for number in range(2 * PAGE + 3)]
SIZES[PAGE] = 0
DATA = image(sum(SIZES))


class ShortListings(Swift):
    """A Swift with short pages, besides the other one."""

    name = "swift-short-listings"
    container_listing_limit = PAGE
    catalogued: ClassVar[tuple[str, str]] = ("object-store-short-listings", "short listings")


@pytest.fixture(scope="module")
def short(lab: Lab, swift: Swift) -> Swift:
    return lab.get(ShortListings)


@pytest.fixture
def account(keystone, short, container) -> Iterator[Account]:
    found = Account(keystone, "glance", short.storage_url("glance"))
    yield found
    found.remove(container)


@pytest.fixture
def proxy(short) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", short.port, http=True) as running:
        yield running


@pytest.fixture
def store(make, account, proxy) -> BaseStore:
    path = urllib.parse.urlsplit(account.url).path
    return make(endpoint=f"http://{proxy.address}{path}")


def put(account: Account, container: str, sizes: list[int]) -> list[bytes]:
    """Write an image as releases before this one did; return its segments."""
    account.call("PUT", f"/{container}")
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    parts = [DATA[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for number, part in enumerate(parts, 1):
            pool.submit(account.call, "PUT", f"/{container}/old-{number:05d}", part)
    headers = {"X-Object-Manifest": urllib.parse.quote(f"{container}/old-")}
    account.call("PUT", f"/{container}/old", b"", headers)
    return parts


@pytest.fixture
def uri(store, account, container) -> str:
    put(account, container, SIZES)
    head = account.call("HEAD", f"/{container}/old")
    assert head.headers.get("content-length", "0") == "0", "this Swift lists all of it"
    return f"{store.url_prefix}old"


def read_on(reader: Any, offset: int, stop: int) -> bytes:
    """Return a range; a read may return less than it was asked for."""
    found = b""
    while offset + len(found) < stop:
        data = reader.read_at(offset + len(found), stop - offset - len(found))
        assert data
        found += data
    return found


def test_whole_image(store, uri):
    assert read(store, uri) == DATA
    assert store.get_size(locate(store, uri)) == len(DATA)


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
def test_about_as_many_as_fit_on_a_page(store, account, container, count):
    sizes = [10] * count
    put(account, container, sizes)
    uri = f"{store.url_prefix}old"
    assert read(store, uri) == DATA[: 10 * count]
    assert read(store, uri, offset=10 * count - 15) == DATA[10 * count - 15 : 10 * count]


def test_ranges(store, uri):
    ranges = [
        (0, 1),
        (999, 2),
        (sum(SIZES[:PAGE]) - 1, 2),
        # Behind the first page, over several segments, up to the end.
        (sum(SIZES[: PAGE + 5]) - 3, 5000),
        (sum(SIZES[: 2 * PAGE]) - 1, 100),
        (len(DATA) - 1, 1),
        (5, len(DATA) - 7),
    ]
    with contextlib.closing(store.open_reader(locate(store, uri))) as reader:
        assert reader.size == len(DATA)
        assert reader.read_at(len(DATA), 10) == b""
        for offset, length in ranges:
            expected = DATA[offset : offset + length]
            assert read(store, uri, offset=offset, chunk_size=length) == expected
            assert read_on(reader, offset, offset + length) == expected
            assert read_on(reader, offset, len(DATA)) == DATA[offset:]


def test_segment_that_is_replaced(store, account, container, uri):
    """All of an image is of the version that was opened."""
    with contextlib.closing(store.open_reader(locate(store, uri))) as reader:
        account.call("PUT", f"/{container}/old-00030", b"x" * SIZES[29])
        assert read_on(reader, 0, sum(SIZES[:29])) == DATA[: sum(SIZES[:29])]
        with pytest.raises(exceptions.BackendException, match="replaced"):
            read_on(reader, 0, len(DATA))


def test_segment_that_is_removed(store, account, container, uri):
    """The image is not silently shorter."""
    with contextlib.closing(store.open_reader(locate(store, uri))) as reader:
        account.call("DELETE", f"/{container}/old-00030")
        with pytest.raises(exceptions.NotFound):
            read_on(reader, 0, len(DATA))


def test_each_request_breaks_off_once(make, store, proxy, uri, account):
    path = urllib.parse.urlsplit(account.url).path
    patient = make(endpoint=f"http://{proxy.address}{path}")
    proxy.clear()
    read(patient, uri)
    count = len(proxy.requests)
    # The image, two full pages and one that ends them, and each segment that has a byte.
    assert count >= 1 + 3 + len(SIZES) - 1
    for number in (1, 2, 3, 4, 5, count - 1, count):
        proxy.clear()
        proxy.fail_request(number, how=How.RESET, after=400)
        assert read(patient, uri) == DATA


def test_deletion(store, account, container, uri):
    account.call("PUT", f"/{container}/older-00001", b"of another image")
    store.delete(locate(store, uri))
    assert account.objects(container) == ["older-00001"]


def test_manifest_without_segments(store, account, container):
    account.call("PUT", f"/{container}")
    put(account, container, [])
    uri = f"{store.url_prefix}old"
    assert read(store, uri) == b""
    assert store.get_size(locate(store, uri)) == 0
    store.delete(locate(store, uri))
    assert account.objects(container) == []
