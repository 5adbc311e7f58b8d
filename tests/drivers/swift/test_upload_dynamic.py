# SPDX-License-Identifier: Apache-2.0
"""Uploads where there are no static large objects: a listing says what belongs to the image."""

from __future__ import annotations

import concurrent.futures
import io
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.swift import large, upload
from glance_store.testing import image
from glance_store.testing.inputs import Source, check_bytes
from tests.drivers.swift.conftest import SEGMENT, locate, read, say
from tests.drivers.swift.uploads import add, behind, count, numbers
from tests.faults.http import How

if TYPE_CHECKING:
    from collections.abc import Callable

    from glance_store._drivers.swift import BaseStore
    from tests.drivers.swift.account import Account

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("no_static")]

SIZE = 2 * SEGMENT + 7
DATA = image(SIZE)


def is_dynamic(account: Account, container: str, name: str) -> bool:
    return "x-object-manifest" in account.call("HEAD", f"/{container}/{name}").headers


@pytest.fixture
def behind_proxy(make, through) -> BaseStore:
    """A store whose requests can be failed, and come one after the other."""
    return behind(make, through, thread_pool_size=1)


def test_existing_image_is_not_touched(store, account, container):
    uri = add(store, "image", DATA)
    before = account.objects(container)
    assert is_dynamic(account, container, "image")
    with pytest.raises(exceptions.Duplicate):
        add(store, "image", image(SIZE, seed=1))
    assert account.objects(container) == before
    check_bytes(read(store, uri), DATA)


def test_image_that_comes_up_while_another_is_stored(store, account, container):
    """Nothing of the later one is left."""
    stored = []

    def store_another(position: int) -> None:
        if position == SIZE and not stored:
            account.call("PUT", f"/{container}/image", b"of somebody else")
            stored.append(True)

    with pytest.raises(exceptions.Duplicate):
        store.add("image", Source(DATA, before_read=store_another), SIZE, "sha256")
    assert account.objects(container) == ["image"]
    assert account.call("GET", f"/{container}/image").body == b"of somebody else"


def test_uploads_of_one_id_in_two_stores(make, account, container):
    stores = [make(), make()]
    images = [image(SIZE, seed=number) for number in range(2)]
    barrier = threading.Barrier(2)

    def upload(number: int) -> str | Exception:
        def wait(position: int) -> None:
            if position == SIZE:
                barrier.wait(60)

        try:
            source = Source(images[number], before_read=wait)
            return str(stores[number].add("image", source, SIZE, "sha256")[0])
        except exceptions.GlanceStoreException as exc:
            return exc

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(upload, range(2)))
    (winner,) = [number for number in range(2) if isinstance(results[number], str)]
    assert isinstance(results[1 - winner], exceptions.Duplicate)
    check_bytes(read(stores[0], str(results[winner])), images[winner])
    assert len(account.objects(container)) == 4


@pytest.mark.parametrize("how", [How.RESET, How.TRUNCATE])
def test_lost_answer_to_the_manifest(behind_proxy, proxy, account, container, how):
    number = count(behind_proxy, proxy, "PUT", "", DATA)
    proxy.fail_request(number, how=how, after=0)
    uri = add(behind_proxy, "image", DATA)
    assert len(numbers(proxy, "PUT", "/image")) == 1
    proxy.clear()
    check_bytes(read(behind_proxy, uri), DATA)


@pytest.mark.parametrize("status", [413, 507])
@pytest.mark.parametrize("ending", ["-00002", ""], ids=["segment", "manifest"])
def test_no_room(behind_proxy, proxy, account, container, ending, status):
    number = count(behind_proxy, proxy, "PUT", ending, DATA)
    proxy.fail_request(number, status, times=None)
    with pytest.raises(exceptions.StorageFull):
        add(behind_proxy, "image", DATA)
    assert account.objects(container) == []


@pytest.mark.parametrize("status", [503, 507])
@pytest.mark.parametrize("times", [1, None], ids=["once", "for-good"])
def test_each_request_fails(behind_proxy, proxy, account, container, times, status):
    """Whichever it is: the image is there, or nothing of it."""
    names = (f"image{number}" for number in itertools.count())
    found: list[str] = []

    def upload() -> None:
        name = next(names)
        found[:] = [add(behind_proxy, name, DATA)]

    # The first one also makes the container.
    upload()
    behind_proxy.delete(locate(behind_proxy, found.pop()))
    outcomes = set()
    for number in proxy.each_request(upload):
        if found:
            behind_proxy.delete(locate(behind_proxy, found.pop()))
        proxy.fail_request(number, status, times=times)
        try:
            upload()
        except exceptions.GlanceStoreException:
            proxy.clear()
            assert account.objects(container) == [], f"request {number} leaves something"
            outcomes.add("failed")
        else:
            proxy.clear()
            check_bytes(read(behind_proxy, found[0]), DATA)
            outcomes.add("stored")
    assert outcomes == ({"stored"} if (status, times) == (503, 1) else {"failed", "stored"})


# Listings that are late.


@pytest.fixture
def late(account, container, monkeypatch) -> Callable[[int], list[int]]:
    """Let the listing lack a segment until the driver has looked some times; return its looks."""

    def late(patience: int) -> list[int]:
        sizes: list[int] = []
        taken: dict[str, bytes] = {}
        look = upload.Upload.look

        def looking(self: Any) -> Any:
            if self.uncertain and not taken:
                path = f"/{container}/{self._attempted[1]}"
                taken[path] = account.call("GET", path).body
                assert account.call("DELETE", path).status == 204
            if len(sizes) == patience:
                for path, data in taken.items():
                    account.call("PUT", path, data)
            found = look(self)
            if self.uncertain and found is not None:
                sizes.append(found.size)
            return found

        monkeypatch.setattr(upload.Upload, "look", looking)
        return sizes

    return late


def test_late_listing_is_waited_for(store, account, container, late):
    """Until then readers would get a shorter image."""
    sizes = late(3)
    uri = add(store, "image", DATA)
    assert sizes == [SIZE - SEGMENT] * 3 + [SIZE]
    check_bytes(read(store, uri), DATA)


def test_listing_that_stays_incomplete(store, account, container, late, monkeypatch):
    monkeypatch.setattr(upload, "_LISTING", 1.0)
    sizes = late(1000)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="listing"):
        add(store, "image", DATA)
    assert len(sizes) > 2
    assert account.objects(container) == []


# Where there are static large objects, and an image is none.


@pytest.mark.parametrize(
    ("limits", "dynamic"),
    [
        (large.Static(3, 10**6, 1), False),
        (large.Static(2, 10**6, 1), True),
        (large.Static(1000, 300, 1), True),
        # The last segment may be as small as it is.
        (large.Static(1000, 10**6, SEGMENT), False),
        (large.Static(1000, 10**6, SEGMENT + 1), True),
    ],
    ids=["fits", "too-many", "manifest-too-large", "small-end", "too-small"],
)
def test_limits_of_static_objects(store, account, container, monkeypatch, limits, dynamic):
    say(monkeypatch, static=limits)
    uri = str(store.add("image", io.BytesIO(DATA), SIZE, "sha256")[0])
    assert is_dynamic(account, container, "image") == dynamic
    check_bytes(read(store, uri), DATA)
    store.delete(locate(store, uri))
    assert account.objects(container) == []
