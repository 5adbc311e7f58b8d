# SPDX-License-Identifier: Apache-2.0
"""Networks that fail, clusters that are full, tokens that end."""

from __future__ import annotations

import concurrent.futures
import io
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing import image
from glance_store.testing.inputs import Source, check_bytes
from tests.drivers.swift.account import revoke
from tests.drivers.swift.conftest import SEGMENT, locate, read
from tests.faults.http import How
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from glance_store._drivers.swift import BaseStore

pytestmark = pytest.mark.services

SIZE = 3 * SEGMENT + 7
USER = "glance"


@pytest.fixture
def proxied(make, through) -> Callable[..., BaseStore]:
    """Make stores behind the fault proxy."""

    def proxied(**options: Any) -> BaseStore:
        return make(endpoint=through(USER), **options)

    return proxied


def number_of(proxy, method: str, ending: str) -> int:
    """Return the number of the first request of this kind since the proxy was cleared."""
    for request in proxy.requests:
        if request.method == method and request.target.endswith(ending):
            return int(request.number)
    raise AssertionError(f"no {method} of ...{ending}")


def count(store: BaseStore, proxy, method: str, ending: str, data: bytes) -> int:
    """Return which request of an upload, and of all to come, is the first of this kind."""
    store.delete(locate(store, add(store, "first", data)))
    proxy.clear()
    uri = add(store, "first", data)
    number = number_of(proxy, method, ending)
    store.delete(locate(store, uri))
    proxy.clear()
    return number


def add(store: BaseStore, name: str, data: bytes, known: bool = True) -> str:
    size = len(data) if known else 0
    return str(store.add(name, io.BytesIO(data), size, "sha256")[0])


@pytest.mark.parametrize("how", [How.RESET, How.TRUNCATE])
@pytest.mark.parametrize("size", [1000, SIZE], ids=["object", "manifest"])
def test_lost_answer_of_the_last_request(proxied, proxy, account, container, how, size):
    """The object is in place although nobody said so: the upload has succeeded."""
    store = proxied()
    ending = "first" if size == 1000 else "multipart-manifest=put"
    number = count(store, proxy, "PUT", ending, image(size))
    proxy.fail_request(number, how=how, after=0)
    uri = add(store, "second", image(size, seed=1))
    proxy.clear()
    assert read(store, uri) == image(size, seed=1)


@pytest.mark.parametrize("status", [413, 507])
@pytest.mark.parametrize("last", [False, True], ids=["segment", "manifest"])
def test_r098_full_cluster(proxied, proxy, account, container, status, last):
    """Regression 98: no room is `StorageFull`, and nothing is left."""
    store = proxied(thread_pool_size=1)
    ending = "multipart-manifest=put" if last else "-00003"
    number = count(store, proxy, "PUT", ending, image(SIZE))
    proxy.fail_request(number, status, times=None)
    with pytest.raises(exceptions.StorageFull):
        add(store, "image", image(SIZE))
    proxy.clear()
    assert account.objects(container) == []


@pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
@pytest.mark.parametrize("size", [1000, SIZE], ids=["object", "segments"])
def test_quota_of_a_container(make, account, container, known, size):
    store = make()
    headers = {"X-Container-Meta-Quota-Bytes": str(min(size, SEGMENT) - 1)}
    account.call("PUT", f"/{container}", headers=headers)
    with pytest.raises(exceptions.StorageFull):
        add(store, "image", image(size), known)
    assert account.objects(container) == []


@pytest.mark.parametrize("how", [How.RESET, How.TRUNCATE, How.ANSWER])
def test_segment_is_sent_again_alone(proxied, proxy, account, container, how):
    store = proxied(thread_pool_size=1)
    number = count(store, proxy, "PUT", "-00002", image(SIZE))
    proxy.fail_request(number, how=how)
    uri = add(store, "image", image(SIZE))
    puts = [request.target for request in proxy.requests if request.method == "PUT"]
    assert len(puts) == 4 + 1 + 1
    assert read(store, uri) == image(SIZE)


@pytest.mark.parametrize(
    ("memory", "segment", "recovers"), [(24, 13, True), (16, 17, False)], ids=["kept", "not-kept"]
)
def test_streamed_segment_breaks_off(proxied, proxy, account, container, memory, segment, recovers):
    """It is sent again if its bytes were kept; else the upload fails and leaves nothing."""
    store = proxied(memory=memory, large_object_chunk_size=segment)
    data = image(2 * segment * SEGMENT + 1)
    number = count(store, proxy, "PUT", "-00002", data)
    proxy.fail_request(number, how=How.RESET, drain=False)
    if recovers:
        uri = add(store, "image", data)
        check_bytes(read(store, uri), data)
    else:
        with pytest.raises(exceptions.RemoteServiceUnavailable):
            add(store, "image", data)
        assert account.objects(container) == []


def test_single_object_breaks_off(proxied, proxy, account, container):
    store = proxied(large_object_size=100)
    data = image(12 * SEGMENT)
    number = count(store, proxy, "PUT", "first", data)
    proxy.fail_request(number, how=How.RESET, drain=False)
    uri = add(store, "image", data)
    check_bytes(read(store, uri), data)


def test_segments_that_cannot_be_removed_are_named(proxied, proxy, account, container, caplog):
    store = proxied(retry_timeout=0)

    def cut(position: int) -> None:
        if position >= 2 * SEGMENT:
            until(lambda: account.objects(container), "a segment is stored")
            proxy.inject(refuse=True, reset_after=0)

    source = Source(image(SIZE), portion=SEGMENT, before_read=cut)
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        store.add("image", source, SIZE, "sha256")
    proxy.inject(refuse=False, reset_after=None)
    left = account.objects(container)
    assert left
    (line,) = [r.getMessage() for r in caplog.records if "are left in Swift" in r.getMessage()]
    assert container in line
    # What they have in common, and no other object has.
    assert left[0].rpartition("-")[0] in line


# Downloads.


def test_r107_r112_token_is_renewed(make, account, keystone, container):
    """A token that was revoked is replaced, in uploads as in downloads."""
    store = make()
    uri = add(store, "image", image(SIZE))
    reader = store.open_reader(locate(store, uri))
    client = store._client(locate(store, uri).store_location, None)
    revoke(keystone, client.account.token())
    assert reader.read_at(0, SIZE) == image(SIZE)
    reader.close()
    revoked = threading.Event()

    def revoke_once(position: int) -> None:
        if position >= SEGMENT and not revoked.is_set():
            revoked.set()
            revoke(keystone, client.account.token())

    source = Source(image(SIZE), portion=SEGMENT, before_read=revoke_once)
    other = store.add("other", source, SIZE, "sha256")[0]
    assert read(store, other) == image(SIZE)


def test_token_is_renewed_before_it_ends(make, keystone, monkeypatch):
    """One that has less time left than the option says is not used."""
    store = make(expire_soon_interval=3590)
    uri = add(store, "image", image(10))
    client = store._client(locate(store, uri).store_location, None)
    first = client.account.token()
    assert client.account.token() == first
    plugin = client.account._session.auth
    moved = plugin.auth_ref._data["token"]
    moved["expires_at"] = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + 600))
    assert client.account.token() != first


def test_sessions_are_shared(make, keystone):
    """One session an account: operations after the first need no request to Keystone."""
    store = make()
    uri = add(store, "image", image(10))
    place = locate(store, uri).store_location
    assert store._client(place, None).account is store._account_for(None)[0]


@pytest.mark.parametrize("patience", [0, 2])
def test_body_that_breaks_off(proxied, proxy, account, container, patience):
    """It is requested again as long as the option says, from where it broke off."""
    store = proxied(retry_timeout=patience)
    uri = add(store, "image", image(SIZE))
    proxy.clear()
    proxy.fail_request(2, how=How.RESET, after=100_000)
    if patience:
        check_bytes(read(store, uri), image(SIZE))
    else:
        with pytest.raises(exceptions.RemoteServiceUnavailable):
            read(store, uri)


def test_body_that_breaks_off_after_a_while(proxied, proxy, account, container):
    """What came before shows that Swift is there: this takes none of the time."""
    store = proxied(retry_timeout=0)
    data = image(4 * 1024 * 1024)
    uri = add(store, "image", data)
    proxy.clear()
    proxy.fail_request(2, how=How.RESET, after=3_000_000)
    check_bytes(read(store, uri), data)
    assert [request.method for request in proxy.requests] == ["HEAD", "GET", "GET"]


def test_several_ranges_at_once(proxied, proxy, account, container):
    store = proxied(large_object_size=100)
    store.READ_CHUNKSIZE = SEGMENT // 4
    data = image(9 * SEGMENT)
    uri = add(store, "image", data)
    before = proxy.accepted
    # So slow that one connection is not enough.
    proxy.inject(latency=0.01, bandwidth=8 * SEGMENT)
    check_bytes(read(store, uri), data)
    assert proxy.accepted - before >= 2


def test_silent_server(proxied, proxy):
    uri = add(proxied(), "image", image(10))
    store = proxied(read_timeout=1, retry_timeout=0)
    proxy.inject(black_hole=True)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="read_timeout"):
        store.get(locate(store, uri))


def test_conflict_of_a_deletion(proxied, proxy, account, container):
    """Swift answers 409 when requests for one object overlap."""
    store = proxied()
    uri = add(store, "image", image(10))
    proxy.clear()
    proxy.fail_request(2, 409)
    store.delete(locate(store, uri))
    assert account.objects(container) == []


# Several at once.


def test_uploads_of_one_id_in_two_stores(make, account, container):
    """Stores of one process know of each other, also where Swift cannot tell."""
    stores = [make(), make()]
    images = [image(SIZE, seed=number) for number in range(2)]
    barrier = threading.Barrier(2)

    def upload(number: int) -> str | Exception:
        def wait(position: int) -> None:
            if position == SIZE:
                barrier.wait(60)

        source = Source(images[number], before_read=wait)
        try:
            return str(stores[number].add("image", source, SIZE, "sha256")[0])
        except exceptions.GlanceStoreException as exc:
            return exc

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(upload, range(2)))
    (winner,) = [number for number in range(2) if isinstance(results[number], str)]
    assert isinstance(results[1 - winner], exceptions.Duplicate)
    assert read(stores[0], str(results[winner])) == images[winner]
    assert len(account.objects(container)) == 5
